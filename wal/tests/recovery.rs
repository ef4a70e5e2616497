//! Torn tails are cut, damage is refused: at every byte.

mod common;

use std::fs::{self, OpenOptions};

use common::{
    HEADER, Image, as_entry, entries_in, entry, epoch, mark, open, segments, sized_entry, small, start,
};
use quorumkv_wal::{Damage, Log, Mark, OpenError, Record};

/// Six records, each synced before the next is written.
fn six() -> Image {
    Image::of((1..=6).map(|version| vec![entry(1, version)]).collect())
}

fn damage(result: Result<(Log, quorumkv_wal::Recovered), OpenError>) -> (u64, Damage) {
    match result {
        Err(OpenError::Damaged { offset, reason, .. }) => (offset, reason),
        other => panic!("not damaged: {other:?}"),
    }
}

#[test]
fn zeroed_from_any_byte_on_the_log_is_the_exact_prefix_and_goes_on() {
    let image = six();
    for from in image.ends[2]..=image.ends[6] {
        let mut bytes = image.bytes.clone();
        bytes[from..].fill(0);
        let intact =
            image.ends.iter().skip(1).take_while(|end| bytes[..**end] == image.bytes[..**end]).count();
        let is_clean = bytes[image.ends[intact]..].iter().all(|byte| *byte == 0);
        image.write(&bytes);

        let (log, recovered) = image.open(0).expect("a cut tail is no error");
        assert_eq!(recovered.last, mark(1, intact as u64), "zeroed from byte {from}");
        assert_eq!(recovered.torn.is_none(), is_clean, "zeroed from byte {from}");
        if let Some(torn) = recovered.torn {
            assert_eq!((torn.segment, torn.offset), (image.path.clone(), image.ends[intact] as u64));
        }
        let mut running = start(log);
        running.append(vec![entry(2, intact as u64 + 1)]);
        drop(running);
        let (_, recovered) = image.open(0).expect("the log was repaired");
        assert_eq!((recovered.last, recovered.torn), (mark(2, intact as u64 + 1), None), "cut once only");
    }
}

#[test]
fn any_byte_of_the_last_record_flipped_cuts_it() {
    let image = six();
    for at in image.ends[5]..image.ends[6] {
        let mut bytes = image.bytes.clone();
        bytes[at] ^= 0x55;
        image.write(&bytes);
        let (_, recovered) = image.open(5).expect("a torn tail");
        assert_eq!(recovered.last, mark(1, 5), "byte {at}");
        assert_eq!(recovered.torn.expect("torn").offset, image.ends[5] as u64, "byte {at}");
        let mut expected = image.bytes.clone();
        expected[image.ends[5]..].fill(0);
        assert_eq!(fs::read(&image.path).unwrap(), expected, "the tail is zero again");
    }
}

#[test]
fn any_byte_flipped_before_a_later_synced_record_is_damage_and_nothing_is_touched() {
    let image = six();
    let spare = image.directory.path().join("spare.tmp");
    fs::write(&spare, "left over").unwrap();
    for at in HEADER..image.ends[5] {
        let mut bytes = image.bytes.clone();
        bytes[at] ^= 0x55;
        image.write(&bytes);
        let (offset, reason) = damage(image.open(0));
        let record = image.ends.iter().rposition(|end| *end <= at).unwrap();
        assert_eq!(offset, image.ends[record] as u64, "byte {at}");
        // The first record written when the bad one was durable; its synced position lies above the bad one's.
        assert_eq!(reason, Damage::Record { witness: image.ends[record + 1] as u64 }, "byte {at}");
        assert!(fs::read(&image.path).unwrap() == bytes, "byte {at}: the file is untouched");
        assert_eq!(fs::read(&spare).unwrap(), b"left over");
    }
}

#[test]
fn any_byte_of_the_header_flipped_is_damage() {
    let image = six();
    for at in 0..HEADER {
        let mut bytes = image.bytes.clone();
        bytes[at] ^= 0x55;
        image.write(&bytes);
        assert_eq!(damage(image.open(0)), (0, Damage::Header), "byte {at}");
    }
}

#[test]
fn a_log_that_ends_below_what_is_known_durable_is_damaged() {
    let image = six();
    let mut bytes = image.bytes.clone();
    bytes[image.ends[5] + 8..].fill(0);
    image.write(&bytes);
    assert_eq!(damage(image.open(6)), (image.ends[5] as u64, Damage::TooShort { last: 5, known_durable: 6 }));
    assert!(fs::read(&image.path).unwrap() == bytes, "the file is untouched");
    let (_, recovered) = image.open(5).expect("torn, and above what is known");
    assert_eq!(recovered.last, mark(1, 5));
    assert_eq!(damage(image.open(6)), (image.ends[5] as u64, Damage::TooShort { last: 5, known_durable: 6 }));
}

#[test]
fn an_empty_directory_is_a_fresh_log_unless_something_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("a/b");
    let result = Log::open(&missing, small(), 1);
    assert!(matches!(result, Err(OpenError::Absent { .. })), "{result:?}");
    let (_, recovered) = Log::open(&missing, small(), 0).unwrap();
    assert_eq!((recovered.last, recovered.epochs), (Mark::ZERO, vec![]));
}

#[test]
fn a_record_in_a_wrong_place_is_seen() {
    let records = (1..=6).map(|version| vec![sized_entry(1, version, 24)]).collect();
    let image = Image::of(records);
    let ends = &image.ends;
    let size = ends[1] - ends[0];
    assert!(ends.windows(2).all(|pair| pair[1] - pair[0] == size), "records of one size");
    for (from, to) in [(0, 2), (2, 0), (5, 1), (3, 4)] {
        let mut bytes = image.bytes.clone();
        bytes.copy_within(ends[from]..ends[from] + size, ends[to]);
        image.write(&bytes);
        assert_eq!(damage(image.open(0)).0, ends[to] as u64, "record {from} copied over {to}");
    }
    // After the end it is the rest of some write that never was acknowledged.
    let mut bytes = image.bytes.clone();
    bytes.copy_within(ends[1]..ends[2], ends[6]);
    image.write(&bytes);
    let (_, recovered) = image.open(6).unwrap();
    assert_eq!(recovered.last, mark(1, 6));
    assert_eq!(recovered.torn.unwrap().offset, ends[6] as u64);
}

#[test]
fn good_records_after_a_bad_one_of_the_same_batch_are_a_torn_tail() {
    let batch: Vec<Record> = (3..=8).map(|version| entry(1, version)).collect();
    let image = Image::of(vec![vec![entry(1, 1)], vec![entry(1, 2)], batch]);
    let start_of_batch = image.ends[2];
    for at in start_of_batch..start_of_batch + 64 {
        let mut bytes = image.bytes.clone();
        bytes[at] ^= 0x01;
        image.write(&bytes);
        let (_, recovered) = image.open(2).expect("torn");
        assert_eq!(recovered.last, mark(1, 2), "byte {at}");
    }
}

#[test]
fn a_payload_that_looks_like_a_record_is_none() {
    // The payload is a true record of this log that claims a high synced position, taken from further on.
    let image = six();
    let forged = image.bytes[image.ends[5]..image.ends[6]].to_vec();
    let mut bytes = image.bytes.clone();
    bytes[image.ends[1]..].fill(0);
    image.write(&bytes);
    let mut running = start(image.open(0).unwrap().0);
    let payload = Record::Entry { mark: mark(1, 3), payload: forged.into() };
    running.append(vec![entry(1, 2), payload]);
    drop(running);
    let mut bytes = fs::read(&image.path).unwrap();
    bytes[image.ends[1]] ^= 1;
    image.write(&bytes);
    let (_, recovered) = image.open(0).expect("the batch is torn, whatever it holds");
    assert_eq!(recovered.last, mark(1, 1));
}

/// Takes each sector from one of two images at random.
fn mix(random: &mut fastrand::Rng, old: &[u8], new: &[u8]) -> Vec<u8> {
    let sectors = old.chunks(512).zip(new.chunks(512));
    sectors.flat_map(|(old, new)| if random.bool() { old } else { new }).copied().collect()
}

#[test]
fn any_subset_of_the_sectors_of_an_unsynced_group_is_a_torn_tail_and_so_is_a_crash_while_cutting() {
    let mut random = fastrand::Rng::with_seed(1);
    let batch: Vec<Record> = (4..=30).map(|version| sized_entry(1, version, random.usize(1..700))).collect();
    let image = Image::of(vec![vec![entry(1, 1)], vec![entry(1, 2), entry(1, 3)], batch.clone()]);
    let mut old = image.bytes.clone();
    old[image.ends[2]..].fill(0);
    for round in 0..200 {
        let torn = mix(&mut random, &old, &image.bytes);
        image.write(&torn);
        let (log, recovered) = image.open(3).unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        assert!((3..=30).contains(&recovered.last.version));
        let survived = log.reader().read(4, u64::MAX).unwrap();
        assert!(
            survived.iter().eq(batch.iter().map(as_entry).collect::<Vec<_>>().iter().take(survived.len()))
        );
        drop(log);

        let cut = fs::read(&image.path).unwrap();
        let half_cut = mix(&mut random, &torn, &cut);
        image.write(&half_cut);
        let (_, again) = image.open(3).unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        assert_eq!(again.last, recovered.last, "round {round}");
        assert_eq!(fs::read(&image.path).unwrap(), cut, "round {round}");
    }
}

/// A log over several segments, closed.
fn several_segments() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    running.append((1..=120).map(|version| sized_entry(1, version, 270)).collect());
    running.append(vec![Record::Promise { epoch: epoch(2) }]);
    drop(running);
    assert_eq!(segments(directory.path()).len(), 4);
    directory
}

#[test]
fn a_sealed_segment_tolerates_nothing() {
    let directory = several_segments();
    let segments = segments(directory.path());
    let (path, original) = segments.iter().nth(1).unwrap();
    let used = original.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let record = 320;
    let last_record = used.next_multiple_of(8) - record;
    // Its last record zeroed, cut in the middle, flipped; something after its end.
    let tampered: [fn(&mut [u8], usize); 4] = [
        |bytes, last_record| bytes[last_record..].fill(0),
        |bytes, last_record| bytes[last_record + 100..].fill(0),
        |bytes, last_record| bytes[last_record + 60] ^= 1,
        |bytes, _| *bytes.last_mut().unwrap() = 1,
    ];
    for tamper in tampered {
        let mut bytes = original.clone();
        tamper(&mut bytes, last_record);
        fs::write(path, &bytes).unwrap();
        let result = Log::open(directory.path(), small(), 0);
        let Err(OpenError::Damaged { segment, offset, reason: Damage::Record { .. } }) = result else {
            panic!("not damaged: {result:?}");
        };
        assert_eq!(&segment, path);
        assert!([last_record, last_record + record].contains(&usize::try_from(offset).unwrap()));
        assert_eq!(fs::read(path).unwrap(), bytes);
    }
    fs::write(path, original).unwrap();
    assert_eq!(entries_in(directory.path()).len(), 120);
}

#[test]
fn missing_foreign_misplaced_and_missized_segments_are_named() {
    let directory = several_segments();
    let other = several_segments();
    let open = || Log::open(directory.path(), small(), 0);
    let all = segments(directory.path());
    let paths: Vec<_> = all.keys().collect();
    let restore = |at: usize| fs::write(paths[at], &all[paths[at]]).unwrap();

    fs::remove_file(paths[1]).unwrap();
    assert!(matches!(open(), Err(OpenError::Missing { segment }) if &segment == paths[1]));

    fs::copy(segments(other.path()).keys().nth(1).unwrap(), paths[1]).unwrap();
    assert!(matches!(open(), Err(OpenError::Foreign { segment }) if &segment == paths[1]));

    fs::copy(paths[2], paths[1]).unwrap();
    let result = open();
    assert!(
        matches!(&result, Err(OpenError::Damaged { segment, reason: Damage::Misplaced, .. }) if segment == paths[1])
    );
    restore(1);

    for at in [1, 3] {
        for size in [0, 100, 5000, (16 << 10) + 1] {
            OpenOptions::new().write(true).open(paths[at]).unwrap().set_len(size).unwrap();
            let result = open();
            assert!(
                matches!(&result, Err(OpenError::Size { segment, found, .. }) if segment == paths[at] && *found == size)
            );
            restore(at);
        }
    }

    fs::remove_file(paths[2]).unwrap();
    fs::create_dir(paths[2]).unwrap();
    assert!(matches!(open(), Err(OpenError::Io(error)) if &error.path == paths[2]));
    fs::remove_dir(paths[2]).unwrap();
    restore(2);

    // The last segment gone is a shorter log: only what is known from elsewhere tells.
    fs::remove_file(paths[3]).unwrap();
    let result = Log::open(directory.path(), small(), 120);
    assert!(matches!(result, Err(OpenError::Damaged { reason: Damage::TooShort { .. }, .. })));
}

#[test]
fn segments_keep_their_size_and_too_small_ones_are_refused() {
    let directory = several_segments();
    let larger = quorumkv_wal::Options { segment_bytes: 64 << 10, ..small() };
    let (mut running, recovered) = open(directory.path(), larger);
    assert_eq!(recovered.last, mark(1, 120));
    running.append((121..=300).map(|version| sized_entry(1, version, 270)).collect());
    drop(running);
    assert_eq!(entries_in(directory.path()).len(), 300);
    let result = Log::open(directory.path(), quorumkv_wal::Options { segment_bytes: 8191, ..small() }, 0);
    assert!(matches!(result, Err(OpenError::SegmentBytes { segment_bytes: 8191 })));
}

#[test]
fn a_record_damaged_under_a_running_log_is_an_error_for_its_reader() {
    let image = six();
    let (log, _) = image.open(6).unwrap();
    let mut bytes = image.bytes.clone();
    bytes[image.ends[3] + 50] ^= 1;
    image.write(&bytes);
    let reader = log.reader();
    assert_eq!(reader.read(1, 200).unwrap().len(), 2);
    let error = reader.read(1, u64::MAX).unwrap_err();
    assert!(matches!(error, quorumkv_wal::ReadError::Damaged { version: 4, .. }), "{error:?}");
}

#[test]
fn what_was_recovered_is_durable_and_its_loss_is_damage() {
    let image = Image::of(vec![vec![entry(1, 1), entry(1, 2), entry(1, 3)]]);
    let mut running = start(image.open(0).unwrap().0);
    running.append(vec![entry(1, 4)]);
    drop(running);
    let bytes = fs::read(&image.path).unwrap();
    for at in [image.ends[0], image.ends[1] - 10] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        image.write(&bytes);
        let (_, reason) = damage(image.open(0));
        assert_eq!(reason, Damage::Record { witness: image.ends[1] as u64 });
    }
}
