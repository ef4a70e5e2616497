//! Reads back what was written, segment by segment, to find damage before it is needed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::IoError;
use crate::format::{SEGMENT_HEADER, SegmentHeader, decode_record};
use crate::index::Shared;
use crate::segment::Segment;

/// Bytes read at once; more for a record that is longer.
const WINDOW: usize = 1 << 20;

/// A segment that the disk does not give back as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at offset {offset}", segment.display())]
pub struct DamagedSegment {
    /// The segment file.
    pub segment: PathBuf,
    /// Where in it the first bad record or byte is.
    pub offset: u64,
    /// Its number. Once everything [up to it](crate::Reader::highest_upto) is applied and persisted elsewhere,
    /// [`trim`](crate::Writer::trim) gets rid of it.
    pub sequence: u64,
    /// Whether it is the one that is being written. A [`roll`](crate::Writer::roll) ends that.
    pub is_active: bool,
}

/// Why a segment could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// What the disk returned is not what was written.
    #[error(transparent)]
    Damaged(#[from] DamagedSegment),
    /// The disk did not return anything.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// A segment as far as it was written at one moment.
pub(crate) struct Written {
    pub(crate) segment: Arc<Segment>,
    /// Absolute position after its last record.
    pub(crate) end: u64,
    pub(crate) is_active: bool,
}

/// Verifies the oldest segment whose number is above `after`; returns its number, or `None` if there is no such segment.
pub(crate) fn verify_after(shared: &Shared, after: u64) -> Result<Option<u64>, VerifyError> {
    let Some(written) = shared.read().written_after(after) else { return Ok(None) };
    let sequence = written.segment.sequence;
    let bad = match first_bad(shared, &written) {
        // The medium does not give back what was written to it.
        Err(error) if is_medium_error(&error.source) => Some(written.segment.start),
        found => found?,
    };
    match bad {
        None => Ok(Some(sequence)),
        Some(position) => Err(VerifyError::Damaged(DamagedSegment {
            segment: written.segment.path.clone(),
            offset: position - written.segment.start,
            sequence,
            is_active: written.is_active,
        })),
    }
}

/// Whether something was lost, rather than that it could not be read just now.
fn is_medium_error(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        || error.kind() == std::io::ErrorKind::UnexpectedEof
}

/// The absolute position of the first thing in the segment that is not as it was written.
fn first_bad(shared: &Shared, written: &Written) -> Result<Option<u64>, IoError> {
    let segment = &*written.segment;
    let header = SegmentHeader::decode(&read(segment, segment.start, SEGMENT_HEADER)?).ok();
    let is_its_own = |header: &SegmentHeader| {
        (header.log, header.sequence, header.start, header.size)
            == (shared.log, segment.sequence, segment.start, segment.size)
    };
    let Some(header) = header.filter(is_its_own) else { return Ok(Some(segment.start)) };
    let (mut position, mut previous) = (segment.start + SEGMENT_HEADER as u64, header.previous);
    let mut window = Window { bytes: Vec::new(), start: position };
    while position < written.end {
        let found = loop {
            let at = usize::try_from(position - window.start).expect("within the window");
            let found = decode_record(&window.bytes[at..], shared.log, position);
            if found.is_some() || window.end() >= written.end {
                break found;
            }
            window.move_on(segment, position, written.end)?;
        };
        match found {
            Some(found) if found.previous == previous => {
                (position, previous) = (position + found.size as u64, found.checksum);
            }
            _ => return Ok(Some(position)),
        }
    }
    if written.is_active { Ok(None) } else { first_not_zero(segment, written.end) }
}

/// A part of a segment in memory.
struct Window {
    bytes: Vec<u8>,
    /// The absolute position of its first byte.
    start: u64,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Reads on from `position`, at least twice as much as there is from there on.
    fn move_on(&mut self, segment: &Segment, position: u64, end: u64) -> Result<(), IoError> {
        let left = usize::try_from(end - position).expect("a segment fits memory");
        let here = usize::try_from(self.end() - position).expect("the window reaches there");
        (self.bytes, self.start) = (read(segment, position, left.min(WINDOW.max(here * 2)))?, position);
        Ok(())
    }
}

/// Behind the last record of a segment that is full there is nothing.
fn first_not_zero(segment: &Segment, end: u64) -> Result<Option<u64>, IoError> {
    let mut position = end;
    while position < segment.limit() {
        let length = usize::try_from(segment.limit() - position).map_or(WINDOW, |left| left.min(WINDOW));
        let bytes = read(segment, position, length)?;
        if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
            return Ok(Some(position + at as u64));
        }
        position += length as u64;
    }
    Ok(None)
}

fn read(segment: &Segment, position: u64, length: usize) -> Result<Vec<u8>, IoError> {
    let mut bytes = vec![0; length];
    let offset = position - segment.start;
    segment.file.read_exact_at(&mut bytes, offset).map_err(IoError::at("read", &segment.path))?;
    Ok(bytes)
}
