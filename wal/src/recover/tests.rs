//! Segments made by hand, as the writer never makes them.

use std::fs;

use super::*;
use crate::format::{Place, encode_record};
use crate::record::Record;

const SIZE: u64 = SMALLEST_SEGMENT;
const EPOCH: Epoch = Epoch { counter: 2, node: 1 };

fn header() -> SegmentHeader {
    SegmentHeader {
        log: LogId::new(7),
        sequence: 1,
        start: 0,
        size: SIZE,
        previous: 0,
        promise: None,
        last: Mark::ZERO,
    }
}

/// A directory with one segment of these records. `chain` makes each record's link from that of the one before.
fn segment(
    header: &SegmentHeader,
    records: &[Record],
    chain: impl Fn(u32) -> u32,
) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = header.encode();
    let mut previous = header.previous;
    for record in records {
        let position = header.start + bytes.len() as u64;
        let place = Place { position, previous: chain(previous), synced: header.start };
        previous = encode_record(&mut bytes, header.log, place, record);
    }
    bytes.resize(usize::try_from(SIZE).unwrap(), 0);
    let directory = tempfile::tempdir().unwrap();
    let path = segment_path(directory.path(), header.sequence);
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn entry(version: u64) -> Record {
    Record::Entry { mark: Mark { epoch: EPOCH, version }, payload: "x".into() }
}

fn open_in(directory: &tempfile::TempDir) -> Result<Recovered, OpenError> {
    open(&Disk::default(), directory.path(), SIZE, 0).map(|opened| opened.recovered)
}

#[test]
fn an_intact_record_that_cannot_follow_is_damage_and_not_a_torn_tail() {
    let (directory, path) = segment(&header(), &[entry(1), entry(3)], |previous| previous);
    let before = fs::read(&path).unwrap();
    let mark = Mark { epoch: EPOCH, version: 3 };
    let expected = Damage::Contradiction(InvalidRecord::Gap { mark, last: 1 });
    let result = open_in(&directory);
    let Err(OpenError::Damaged { offset, reason, .. }) = result else {
        panic!("not damaged: {result:?}");
    };
    assert_eq!((offset, reason), (SEGMENT_HEADER as u64 + 56, expected));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn an_intact_record_with_another_predecessor_is_not_taken() {
    let (directory, _) =
        segment(&header(), &[entry(1), entry(2)], |previous| previous ^ u32::from(previous != 0));
    let recovered = open_in(&directory).unwrap();
    assert_eq!(recovered.last, Mark { epoch: EPOCH, version: 1 });
    assert_eq!(recovered.torn.map(|torn| torn.offset), Some(SEGMENT_HEADER as u64 + 56));
}

#[test]
fn a_segment_of_another_format_is_named() {
    let (directory, path) = segment(&header(), &[], |previous| previous);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let checksum = crc32c::crc32c(&bytes[..SEGMENT_HEADER - 4]);
    bytes[SEGMENT_HEADER - 4..SEGMENT_HEADER].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let result = open_in(&directory);
    assert!(matches!(result, Err(OpenError::Format { format: 9, .. })), "{result:?}");
}

#[test]
fn a_log_whose_first_segments_were_trimmed_starts_from_its_header() {
    let base = Mark { epoch: EPOCH, version: 40 };
    let header = SegmentHeader {
        sequence: 5,
        start: 1 << 30,
        previous: 0xabcd,
        promise: Some(EPOCH),
        last: base,
        ..header()
    };
    let (directory, _) = segment(&header, &[entry(41)], |previous| previous);
    let recovered = open_in(&directory).unwrap();
    let last = Mark { epoch: EPOCH, version: 41 };
    let expected = Recovered { promise: Some(EPOCH), base, last, epochs: vec![(EPOCH, 41)], torn: None };
    assert_eq!(recovered, expected);
}
