//! Logs that are damaged in all the ways that disks know: what is recovered was written, and nothing durable is lost in silence.

mod disk;
mod image;

use std::sync::Arc;

use quorumkv_fuzzing::{Case, fuzz};

use super::{OpenError, Opened, Recovered};
use crate::reader::Reader;
use crate::record::Record;
use disk::{Disk, open};
use image::{Image, SEGMENT};

/// What disks write as a whole.
const SECTOR: usize = 512;

/// Takes numbers from the front of a script; zeros when it has ended.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// Below `limit`, which is not above 65536.
    fn below(&mut self, limit: usize) -> usize {
        (usize::from(self.byte()) | usize::from(self.byte()) << 8) % limit
    }
}

/// A place in the image, in the midst of what is written more often than not: segment and offset.
fn somewhere(script: &mut Script<'_>, image: &Image) -> (usize, usize) {
    if script.byte().is_multiple_of(4) {
        return (script.below(image.segments.len()), script.below(SEGMENT));
    }
    let written = &image.records[script.below(image.records.len())];
    let length = image.bytes(written).len();
    let position = usize::try_from(written.position).expect("small") + script.below(length);
    (position / SEGMENT, position % SEGMENT)
}

/// One fault of a disk, or of a person.
fn damage(script: &mut Script<'_>, image: &Image, other: &Image, segments: &mut Vec<(u64, Vec<u8>)>) {
    let what = script.byte() % 16;
    let (segment, offset) = somewhere(script, image);
    let (from_segment, from) = somewhere(script, image);
    let sector = |offset: usize| offset / SECTOR * SECTOR..offset / SECTOR * SECTOR + SECTOR;
    let Some(at) = segments.iter().position(|(sequence, _)| *sequence == segment as u64 + 1) else { return };
    let bytes = &mut segments[at].1;
    if offset >= bytes.len() || bytes.len() < SEGMENT {
        return;
    }
    match what {
        0..=2 => bytes[offset] ^= 1 << (from % 8),
        3 | 4 => bytes[offset] = script.byte(),
        5 => bytes[sector(offset)].fill(0),
        6 => bytes[offset..].fill(0),
        // A block that was written to the wrong place, of this log and of another, at the same place or not.
        7 => bytes[sector(offset)].copy_from_slice(&image.segments[from_segment][sector(from)]),
        8 => bytes[sector(offset)].copy_from_slice(&other.segments[segment][sector(offset)]),
        9 => bytes[sector(offset)].copy_from_slice(&other.segments[from_segment][sector(from)]),
        // A record in another's place.
        10 => {
            let (to, from) = (offset / 8 * 8, from / 8 * 8);
            let length = (8 * script.below(64)).min(SEGMENT - to.max(from));
            let part = image.segments[from_segment][from..from + length].to_vec();
            bytes[to..to + length].copy_from_slice(&part);
        }
        11 => bytes.truncate(offset),
        12 => drop(segments.remove(at)),
        13 => bytes.copy_from_slice(&image.segments[from_segment]),
        14 => bytes.copy_from_slice(&other.segments[from_segment]),
        _ => bytes[sector(offset)].iter_mut().for_each(|byte| *byte = script.byte()),
    }
}

/// What was recovered is what was written, from the first segment that is there up to the end of some record. Returns how many
/// records that is, counted from the first of the image.
fn check_written(image: &Image, segments: &[(u64, Vec<u8>)], opened: &Opened) -> usize {
    let end = opened.end.position;
    let first = usize::try_from(segments[0].0).expect("small") - 1;
    let last = first + segments.len() - 1;
    let upto = image.records.partition_point(|written| written.end <= end);
    let here = image.records.partition_point(|written| written.position < (first * SEGMENT) as u64);
    let tail = match image.records[..upto].last() {
        Some(written) if written.position >= (last * SEGMENT) as u64 => {
            assert_eq!(written.end, end, "the log ends where no record does");
            &written.tails[first]
        }
        // Nothing of the last segment but its header.
        _ => &image.starts[last][first],
    };
    assert_eq!(&opened.shared.read().tail, tail, "the log does not come to what was written");
    for written in &image.records[here.min(upto)..upto] {
        let found = Image::same_place(written, segments).expect("its segment was read");
        assert!(found == image.bytes(written), "a record was taken that was not written: {written:?}");
    }
    upto
}

/// No intact record behind the recovered end says that something there was durable: that would be lost in silence.
fn check_nothing_lost(image: &Image, segments: &[(u64, Vec<u8>)], end: u64) {
    let last_start = (segments.last().expect("there is one").0 - 1) * SEGMENT as u64;
    assert!(end >= last_start, "a later segment is there, so all before it was durable");
    for written in image.records.iter().filter(|written| written.position >= end) {
        let is_intact = Image::same_place(written, segments) == Some(image.bytes(written));
        assert!(
            !is_intact || written.synced <= end,
            "{written:?} was written after more than {end} was durable"
        );
    }
}

/// Only the torn end was changed, and is zero now: opened again, the log is the same and not torn.
fn check_cut(disk: &Disk, segments: &[(u64, Vec<u8>)], opened: &Opened) {
    let mut expected = segments.last().expect("there is one").1.clone();
    if let Some(torn) = &opened.recovered.torn {
        expected[usize::try_from(torn.offset).expect("small")..].fill(0);
    }
    assert!(disk.last() == expected, "more or less was changed than cut");
    if opened.recovered.torn.is_some() {
        let again = open(disk).expect("a log that was cut is good");
        assert_eq!(again.recovered, Recovered { torn: None, ..opened.recovered.clone() });
        assert_eq!(again.end.position, opened.end.position);
    }
}

/// Every entry can be read, and is the newest that was written with its version; and what reads the log back finds nothing bad.
fn check_readers(image: &Image, upto: usize, opened: Opened) {
    let Recovered { base, last, .. } = opened.recovered;
    let reader = Reader::new(Arc::new(opened.shared));
    let entries = reader.read(base.version + 1, u64::MAX).expect("what was recovered can be read");
    assert_eq!(entries.len() as u64, last.version - base.version);
    for (version, entry) in (base.version + 1..).zip(entries) {
        let newest = image.records[..upto].iter().rev().find_map(|written| match &written.record {
            Record::Entry { mark, payload } if mark.version == version => Some((*mark, payload)),
            _ => None,
        });
        assert_eq!(newest, Some((entry.mark, &entry.payload)));
    }
    let mut after = 0;
    while let Some(sequence) = reader.verify_after(after).expect("what was recovered is not damaged") {
        after = sequence;
    }
}

/// Returns how many records of the image were recovered. What is nothing but another log, as a whole, is recovered as that.
fn check(images: [&Image; 2], segments: &[(u64, Vec<u8>)], with_readers: bool) -> Result<usize, OpenError> {
    let disk = Disk::holding(segments);
    let opened = open(&disk)?;
    let image =
        images.into_iter().find(|image| image.log == opened.shared.log).expect("a log that was written");
    let upto = check_written(image, segments, &opened);
    check_nothing_lost(image, segments, opened.end.position);
    check_cut(&disk, segments, &opened);
    if with_readers {
        check_readers(image, upto, opened);
    }
    Ok(upto)
}

/// The flavour says how many faults there are, which segments were trimmed and whether all is read, and the case which faults.
#[test]
fn damaged_log() {
    let (image, other) = (Image::new(1, 3), Image::new(2, 3));
    let sample = |what: u8| vec![what, 1, 5, 0, 9, 0, 1, 40, 0, 12, 0, what, 0, 1, 0, 33, 1, 30, 0, 4, 1];
    fuzz!((0..16).map(sample).collect(), move |case: &mut Case| {
        let mut segments = image.numbered();
        let mut script = Script(&case.bytes);
        for _ in 0..=case.flavour % 4 {
            damage(&mut script, &image, &other, &mut segments);
        }
        let trimmed = [0, 1, 1, 2][usize::from(case.flavour / 4 % 4)];
        segments.retain(|(sequence, _)| *sequence > trimmed);
        if segments.is_empty() {
            return;
        }
        let is_gap = segments.windows(2).any(|pair| pair[1].0 != pair[0].0 + 1);
        let result = check([&image, &other], &segments, case.flavour < 16);
        assert!(result.is_err() || !is_gap, "a segment is missing");
    });
}

/// Power fails while a group is being written: of what is not durable, sectors reach the disk or not, or are garbage. That is never
/// called damage, and costs nothing durable.
#[test]
fn torn_log() {
    let image = Image::new(1, 2);
    let sample = |record: u8| vec![record, 0, 0b1010_1010, 1, 2, 3, 0, 0xff];
    fuzz!((0..80).map(sample).collect(), move |case: &mut Case| {
        let mut script = Script(&case.bytes);
        let last = &image.records[script.below(image.records.len())];
        let durable = last.synced;
        // Those before the last segment are as they were.
        let number = usize::try_from(last.position).expect("small") / SEGMENT;
        let (start, mut segments) =
            (number * SEGMENT, vec![(number as u64 + 1, image.segments[number].clone())]);
        let [durable_here, end_here] =
            [durable, last.end].map(|position| usize::try_from(position).expect("small") - start);
        let bytes = &mut segments.last_mut().expect("there is one").1;
        bytes[end_here..].fill(0);
        let (mut from, garbage) = (durable_here, case.flavour % 2 == 1);
        while from < end_here {
            let upto = (from / SECTOR + 1) * SECTOR;
            match script.byte() % 3 {
                0 => {}
                1 if garbage => bytes[from..upto].iter_mut().for_each(|byte| *byte = script.byte()),
                _ => bytes[from..upto].fill(0),
            }
            from = upto;
        }
        let upto = check([&image, &image], &segments, case.flavour < 16).expect("a torn tail is not damage");
        let durable = image.records.partition_point(|written| written.end <= durable);
        assert!(upto >= durable, "{upto} records of {durable} that were durable");
    });
}
