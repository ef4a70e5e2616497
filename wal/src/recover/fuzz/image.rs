//! A log in memory: what was written, what was durable when, and what each part of it must be recovered as.

use crate::format::{LogId, Place, SEGMENT_HEADER, SegmentHeader, encode_record};
use crate::record::{Epoch, Mark, Record};
use crate::tail::Tail;

use super::disk::{Disk, open};

pub(super) const SEGMENT: usize = 2 * SEGMENT_HEADER;

/// A record of the image.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// Absolute, as is the end.
    pub(super) position: u64,
    pub(super) end: u64,
    /// All below was durable when it was written.
    pub(super) synced: u64,
    pub(super) record: Record,
    /// What the log comes to after it, if it begins with this segment or an earlier one: one for each.
    pub(super) tails: Vec<Tail>,
}

/// A log that was written without a fault, in several segments.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) log: LogId,
    pub(super) segments: Vec<Vec<u8>>,
    pub(super) records: Vec<Written>,
    /// What the log comes to at the start of each segment, for each segment that it may begin with.
    pub(super) starts: Vec<Vec<Tail>>,
}

/// Writes an image as the log's own thread would: in groups, each after the one before is durable.
struct Builder {
    log: LogId,
    image: Image,
    previous: u32,
    position: u64,
    synced: u64,
    promise: Option<Epoch>,
    tails: Vec<Tail>,
}

impl Image {
    /// A log with this id: `segments` of them, filled with records of all kinds. Two with different ids differ in nothing else.
    pub(super) fn new(id: u64, segments: usize) -> Image {
        let log = LogId::new(id);
        let image = Image { log, segments: Vec::new(), records: Vec::new(), starts: Vec::new() };
        let mut builder =
            Builder { log, image, previous: 0, position: 0, synced: 0, promise: None, tails: Vec::new() };
        let mut step = 0;
        for sequence in 1..=segments as u64 {
            builder.begin_segment(sequence);
            // The last one stays half full, as the one that is being written mostly is.
            let full = if sequence == segments as u64 { SEGMENT * 3 / 4 } else { SEGMENT };
            while builder.group(&mut step, full) {}
        }
        builder.image
    }

    /// All segments with their sequences.
    pub(super) fn numbered(&self) -> Vec<(u64, Vec<u8>)> {
        (1..).zip(self.segments.iter().cloned()).collect()
    }

    /// The bytes of a record.
    pub(super) fn bytes(&self, written: &Written) -> &[u8] {
        let (segment, from, to) = place(written);
        &self.segments[segment][from..to]
    }

    /// What stands in a damaged copy where a record was written; `None` if the segment is gone or too short.
    pub(super) fn same_place<'a>(written: &Written, damaged: &'a [(u64, Vec<u8>)]) -> Option<&'a [u8]> {
        let (segment, from, to) = place(written);
        let (_, bytes) = damaged.iter().find(|(sequence, _)| *sequence == segment as u64 + 1)?;
        bytes.get(from..to)
    }
}

/// The segment of a record, counted from 0, and where in it the record is.
fn place(written: &Written) -> (usize, usize, usize) {
    let at = |position: u64| usize::try_from(position).expect("the image fits memory");
    let segment = at(written.position) / SEGMENT;
    (segment, at(written.position) - segment * SEGMENT, at(written.end) - segment * SEGMENT)
}

impl Builder {
    fn begin_segment(&mut self, sequence: u64) {
        let start = (sequence - 1) * SEGMENT as u64;
        let last = self.tails.first().map_or(Mark::ZERO, |tail| tail.last);
        let header = SegmentHeader {
            log: self.log,
            sequence,
            start,
            size: SEGMENT as u64,
            previous: self.previous,
            promise: self.promise,
            last,
        };
        let mut bytes = header.encode();
        bytes.resize(SEGMENT, 0);
        self.image.segments.push(bytes);
        self.tails.push(Tail::starting_at(self.promise, last));
        self.image.starts.push(self.tails.clone());
        // All before it is durable, and so is the header.
        self.position = start + SEGMENT_HEADER as u64;
        self.synced = self.position;
    }

    /// Writes one to three records, all of which are durable afterwards. False if one does not fit any more.
    fn group(&mut self, step: &mut u64, full: usize) -> bool {
        let synced = self.synced;
        for _ in 0..1 + *step % 3 {
            let record = self.next(*step);
            let mut bytes = Vec::new();
            let place = Place { position: self.position, previous: self.previous, synced };
            let checksum = encode_record(&mut bytes, self.log, place, &record);
            let number = self.image.segments.len() - 1;
            let from = usize::try_from(self.position).expect("the image fits memory") - number * SEGMENT;
            if from + bytes.len() > full {
                return false;
            }
            self.image.segments[number][from..from + bytes.len()].copy_from_slice(&bytes);
            self.previous = checksum;
            let position = self.position;
            self.position += bytes.len() as u64;
            for tail in &mut self.tails {
                tail.check(record.change()).expect("the image is a good log");
                tail.apply(record.change());
            }
            self.promise = self.tails[0].promise;
            let (end, tails) = (self.position, self.tails.clone());
            self.image.records.push(Written { position, end, synced, record, tails });
            *step += 1;
        }
        self.synced = self.position;
        true
    }

    /// A record that can follow: mostly entries, of different lengths, and now and then everything else.
    fn next(&self, step: u64) -> Record {
        let last = self.tails[0].last;
        let epoch = Epoch { counter: 1 + step / 20, node: 1 };
        match step % 23 {
            5 | 16 => Record::Promise { epoch: Epoch { counter: 2 + step / 20, node: 1 } },
            // Overwrites the last entry, which a record before this one has made room for.
            11 => Record::Truncate { to: self.before_last().unwrap_or(last) },
            21 => Record::Base { mark: Mark { epoch, version: last.version + 5 } },
            _ => {
                let mark = Mark { epoch: epoch.max(last.epoch), version: last.version + 1 };
                let length = [0, 3, 40, 8, 300, 17][usize::try_from(step % 6).expect("small")];
                Record::Entry { mark, payload: vec![u8::try_from(step % 251).expect("small"); length].into() }
            }
        }
    }

    /// The mark before the last, if every log that begins with one of the segments has it.
    fn before_last(&self) -> Option<Mark> {
        let to = self.tails[0].mark(self.tails[0].last.version.checked_sub(1)?)?;
        self.tails.iter().all(|tail| to.version >= tail.base.version).then_some(to)
    }
}

/// Undamaged, all of it comes back, wherever it begins.
#[test]
fn an_image_is_recovered_as_it_was_written() {
    let image = Image::new(1, 3);
    assert!(image.records.len() > 60);
    for first in 0..3 {
        let opened = open(&Disk::holding(&image.numbered()[first..])).expect("a good log");
        let last = image.records.last().expect("there are records");
        assert_eq!(opened.shared.read().tail, last.tails[first]);
        assert_eq!((opened.end.position, opened.recovered.torn), (last.end, None));
    }
}
