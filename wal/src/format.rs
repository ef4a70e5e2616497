//! The layout on disk, format version 1. Integers are little-endian.
//!
//! A log is a directory of segments, `<sequence, 16 hex digits>.wal`, with consecutive sequences. A segment has its final size
//! from the start, and is zero wherever nothing was written yet. The *absolute position* of a byte is its offset
//! in its segment plus the segment's start; the next segment starts where the one before it ends.
//!
//! # Segment header, 4096 bytes
//!
//! It is a block of its own, durable before the segment gets its name, and never written again.
//!
//! | Bytes | Field |
//! |---|---|
//! | 0..8 | magic, `quorumkv` |
//! | 8..12 | format version, 1 |
//! | 12..16 | checksum of the record before the segment's first (0 if there never was one) |
//! | 16..24 | log id: random, the same in all segments of a log |
//! | 24..32 | sequence of this segment, from 1 |
//! | 32..40 | absolute position of the segment's first byte |
//! | 40..48 | size of the segment in bytes |
//! | 48..56 | 1 if there is a promise in force at the start of the segment, else 0 |
//! | 56..64, 64..72 | the promise: counter, node |
//! | 72..80, 80..88, 88..96 | the last entry before the segment: epoch counter, epoch node, version |
//! | 96..4092 | zero |
//! | 4092..4096 | CRC32C of bytes 0..4092 |
//!
//! # Record, 48 bytes and the payload, padded with zeros to a multiple of 8
//!
//! | Bytes | Field |
//! |---|---|
//! | 0..4 | CRC32C of: log id, absolute position of the record (8 bytes each, not stored here), bytes 4 to the end of the padding |
//! | 4..8 | length of the payload |
//! | 8..12 | checksum (bytes 0..4) of the previous record |
//! | 12 | kind: 1 entry, 2 promise, 3 base, 4 truncate |
//! | 13..16 | zero |
//! | 16..24, 24..32 | epoch: counter, node |
//! | 32..40 | version; zero in a promise |
//! | 40..48 | `synced`: all bytes below this absolute position were durable when the record was written |
//! | 48.. | payload; empty unless the record is an entry |
//!
//! Log id and position are in the checksum so that a record is valid only where it was written. A payload can therefore
//! not pose as a record either, whatever a client puts in it: recovery looks for records at every multiple of 8.
//!
//! `synced` separates a torn tail from damage. Sectors of what was not synced reach the disk in any order, so a good record
//! after a bad one proves nothing by itself; it proves damage if the bad one had been synced before it was written.

use std::ops::Range;

use quorumkv_mutants::Mutant;

use crate::record::{Change, Epoch, Mark, Record};

pub(crate) const SEGMENT_HEADER: usize = 4096;
pub(crate) const RECORD_HEADER: usize = 48;
pub(crate) const ALIGNMENT: usize = 8;

const MAGIC: [u8; 8] = *b"quorumkv";
const FORMAT: u32 = 1;
const HEADER_FIELDS: usize = 96;
const HEADER_CHECKSUM: usize = SEGMENT_HEADER - 4;

/// What stands in place of a promise where there is none.
const NO_EPOCH: Epoch = Epoch { counter: 0, node: 0 };

/// The random identity of a log; seeds every record's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogId(u64);

impl LogId {
    pub(crate) const fn new(entropy: u64) -> LogId {
        LogId(entropy)
    }

    /// The checksum state from which a record at `position` goes on.
    fn seed(self, position: u64) -> u32 {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&self.0.to_le_bytes());
        place[8..].copy_from_slice(&position.to_le_bytes());
        crc32c::crc32c(&place)
    }
}

/// The header of a segment: enough to start a log from this segment alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogId,
    pub(crate) sequence: u64,
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) previous: u32,
    pub(crate) promise: Option<Epoch>,
    pub(crate) last: Mark,
}

/// Why 4096 bytes are not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Unreadable,
    Format(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let promise = self.promise.unwrap_or_default();
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.previous.to_le_bytes());
        let words = [
            self.log.0,
            self.sequence,
            self.start,
            self.size,
            u64::from(self.promise.is_some()),
            promise.counter,
            promise.node,
            self.last.epoch.counter,
            self.last.epoch.node,
            self.last.version,
        ];
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.resize(HEADER_CHECKSUM, 0);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `bytes` are the first 4096 of a segment. They are a header only if it would be written in just this way.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        let good = bytes.len() == SEGMENT_HEADER
            && bytes[..8] == MAGIC
            && read_u32(bytes, HEADER_CHECKSUM) == crc32c::crc32c(&bytes[..HEADER_CHECKSUM]);
        if !good {
            return Err(BadHeader::Unreadable);
        }
        let format = read_u32(bytes, 8);
        if format != FORMAT {
            return Err(BadHeader::Format(format));
        }
        let promise = match (read_u64(bytes, 48), read_epoch(bytes, 56)) {
            (1, promise) => Some(promise),
            (0, NO_EPOCH) => None,
            _ => return Err(BadHeader::Unreadable),
        };
        let header = SegmentHeader {
            log: LogId(read_u64(bytes, 16)),
            sequence: read_u64(bytes, 24),
            start: read_u64(bytes, 32),
            size: read_u64(bytes, 40),
            previous: read_u32(bytes, 12),
            promise,
            last: Mark { epoch: read_epoch(bytes, 72), version: read_u64(bytes, 88) },
        };
        // Positions and versions go on from here, so they must have room to.
        let is_sound = header.start.checked_add(header.size).is_some() && header.last.version != u64::MAX;
        let has_its_form = bytes[HEADER_FIELDS..HEADER_CHECKSUM].iter().all(|byte| *byte == 0);
        if is_sound && has_its_form { Ok(header) } else { Err(BadHeader::Unreadable) }
    }
}

/// The bytes that a record with this payload takes.
pub(crate) fn record_size(payload: usize) -> usize {
    (RECORD_HEADER + payload).next_multiple_of(ALIGNMENT)
}

/// Where a record stands in the log, and what was durable then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) previous: u32,
    pub(crate) synced: u64,
}

/// Appends a record to `buffer` and returns its checksum, the next one's `previous`.
///
/// # Panics
/// If the payload is longer than 4 GiB; the writer refuses it long before.
pub(crate) fn encode_record(buffer: &mut Vec<u8>, log: LogId, place: Place, record: &Record) -> u32 {
    let (kind, mark) = match record.change() {
        Change::Entry(mark) => (1, mark),
        Change::Promise(epoch) => (2, Mark { epoch, version: 0 }),
        Change::Base(mark) => (3, mark),
        Change::Truncate(mark) => (4, mark),
    };
    let payload = record.payload();
    let length = u32::try_from(payload.len()).expect("a record fits its segment");
    let mut header = [0; RECORD_HEADER];
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..12].copy_from_slice(&place.previous.to_le_bytes());
    header[12] = kind;
    header[16..24].copy_from_slice(&mark.epoch.counter.to_le_bytes());
    header[24..32].copy_from_slice(&mark.epoch.node.to_le_bytes());
    header[32..40].copy_from_slice(&mark.version.to_le_bytes());
    header[40..48].copy_from_slice(&place.synced.to_le_bytes());

    let start = buffer.len();
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(payload);
    buffer.resize(start + record_size(payload.len()), 0);
    let checksum = crc32c::crc32c_append(log.seed(place.position), &buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// A valid record, found in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundRecord {
    pub(crate) checksum: u32,
    pub(crate) previous: u32,
    pub(crate) synced: u64,
    pub(crate) change: Change,
    /// Within the buffer given to [`decode_record`].
    pub(crate) payload: Range<usize>,
    /// Padding included.
    pub(crate) size: usize,
}

/// The record that starts at the first of `bytes`, which stand at `position` of `log`; `None` if there is no valid one, or not in
/// the form in which it would be written. Whether it follows its predecessor is for the caller to see.
pub(crate) fn decode_record(bytes: &[u8], log: LogId, position: u64) -> Option<FoundRecord> {
    if bytes.len() < RECORD_HEADER || bytes[13..16] != [0; 3] {
        return None;
    }
    let epoch = read_epoch(bytes, 16);
    let mark = Mark { epoch, version: read_u64(bytes, 32) };
    let change = match bytes[12] {
        1 => Change::Entry(mark),
        2 => Change::Promise(epoch),
        3 => Change::Base(mark),
        4 => Change::Truncate(mark),
        _ => return None,
    };
    let length = read_u32(bytes, 4) as usize;
    let size = record_size(length);
    if size > bytes.len() {
        return None;
    }
    let checksum = read_u32(bytes, 0);
    let is_intact = checksum == crc32c::crc32c_append(log.seed(position), &bytes[4..size]);
    if !is_intact && !Mutant::ChecksumIgnored.on() {
        return None;
    }
    let has_its_form = match change {
        Change::Entry(_) => true,
        Change::Promise(_) => length == 0 && mark.version == 0,
        Change::Base(_) | Change::Truncate(_) => length == 0,
    };
    if !has_its_form || bytes[RECORD_HEADER + length..size].iter().any(|byte| *byte != 0) {
        return None;
    }
    Some(FoundRecord {
        checksum,
        previous: read_u32(bytes, 8),
        synced: read_u64(bytes, 40),
        change,
        payload: RECORD_HEADER..RECORD_HEADER + length,
        size,
    })
}

/// What the bytes would claim as `synced` if they were a record: a cheap look before [`decode_record`].
/// `bytes` are at least a record header.
pub(crate) fn claimed_synced(bytes: &[u8]) -> u64 {
    read_u64(bytes, 40)
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn read_epoch(bytes: &[u8], at: usize) -> Epoch {
    Epoch { counter: read_u64(bytes, at), node: read_u64(bytes, at + 8) }
}

/// What tests make by hand.
#[cfg(test)]
impl LogId {
    /// Puts the right checksum on what is to be a record, as far as it reaches.
    pub(crate) fn seal_record(self, bytes: &mut [u8], position: u64) {
        if bytes.len() >= RECORD_HEADER {
            let size = record_size(read_u32(bytes, 4) as usize).min(bytes.len());
            let checksum = crc32c::crc32c_append(self.seed(position), &bytes[4..size]);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(0x0123_4567_89ab_cdef);
    const MARK: Mark = Mark { epoch: Epoch { counter: 3, node: 9 }, version: 12 };
    const PLACE: Place = Place { position: 4096, previous: 0xdead_beef, synced: 4000 };

    fn encoded(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, LOG, PLACE, record);
        bytes
    }

    #[test]
    fn an_entry_has_the_documented_bytes() {
        let bytes = encoded(&Record::Entry { mark: MARK, payload: "hi".into() });
        let golden = "a8df198902000000efbeadde010000000300000000000000090000000000\
                      00000c00000000000000a00f0000000000006869000000000000";
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }

    #[test]
    fn every_kind_of_record_round_trips() {
        let records = [
            Record::Entry { mark: MARK, payload: "hello, world".into() },
            Record::Promise { epoch: MARK.epoch },
            Record::Base { mark: MARK },
            Record::Truncate { to: MARK },
        ];
        for record in records {
            let bytes = encoded(&record);
            let found = decode_record(&bytes, LOG, PLACE.position).expect("valid");
            assert_eq!(found.change, record.change());
            assert_eq!(&bytes[found.payload], record.payload());
            assert_eq!(
                (found.previous, found.synced, found.size),
                (PLACE.previous, PLACE.synced, bytes.len())
            );
        }
    }

    #[test]
    fn a_record_with_any_bit_flipped_is_not_valid() {
        let bytes = encoded(&Record::Entry { mark: MARK, payload: "payload!!".into() });
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_record(&flipped, LOG, PLACE.position), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_valid_only_in_its_log_and_at_its_position() {
        let bytes = encoded(&Record::Promise { epoch: MARK.epoch });
        assert!(decode_record(&bytes, LOG, PLACE.position).is_some());
        assert_eq!(decode_record(&bytes, LOG, PLACE.position + 8), None);
        assert_eq!(decode_record(&bytes, LogId(1), PLACE.position), None);
    }

    #[test]
    fn a_segment_header_round_trips_and_sees_any_flipped_byte() {
        let header = SegmentHeader {
            log: LOG,
            sequence: 4,
            start: 1 << 20,
            size: 1 << 20,
            previous: 77,
            promise: Some(MARK.epoch),
            last: MARK,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert_eq!(SegmentHeader::decode(&flipped), Err(BadHeader::Unreadable), "byte {at}");
        }
    }

    #[test]
    fn a_later_format_is_named() {
        let header = SegmentHeader {
            log: LOG,
            sequence: 1,
            start: 0,
            size: 8192,
            previous: 0,
            promise: None,
            last: Mark::ZERO,
        };
        let mut bytes = header.encode();
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..HEADER_CHECKSUM]);
        bytes[HEADER_CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Format(2)));
    }
}
