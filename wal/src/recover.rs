//! Opens a directory: verifies every record, and tells a torn tail from damage.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorumkv_mutants::Mutant;

use crate::append::End;
use crate::disk::{Disk, IoError};
use crate::files::LogFile;
use crate::format::{
    ALIGNMENT, BadHeader, LogId, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, claimed_synced, decode_record,
};
use crate::index::{Index, Shared};
use crate::record::{Epoch, Mark};
use crate::segment::{Segment, install_spare, parse_name, prepare_spare, segment_path, spare_path};
use crate::tail::{InvalidRecord, Tail};

/// The smallest segment: a header and as much again.
const SMALLEST_SEGMENT: u64 = 2 * SEGMENT_HEADER as u64;

/// What an opened log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The promise in force, if one was ever made.
    pub promise: Option<Epoch>,
    /// The mark before the first retained entry; [`Mark::ZERO`] if the log holds all there ever was.
    pub base: Mark,
    /// The last entry; the base if nothing is retained after it.
    pub last: Mark,
    /// The epochs of the retained entries, ascending, each with its first retained version.
    pub epochs: Vec<(Epoch, u64)>,
    /// What was cut off, if the last write before a crash was not complete.
    pub torn: Option<TornTail>,
}

/// The remains of a write that never became durable, cut off by recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub segment: PathBuf,
    /// Where in it the log now ends.
    pub offset: u64,
    /// How many bytes were cleared from there on.
    pub bytes: u64,
}

/// How a log is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The segment's header is not readable.
    #[error("the segment's header is damaged")]
    Header,
    /// The segment's header contradicts the segments before it or its name.
    #[error("the segment's header does not fit its place")]
    Misplaced,
    /// There is no valid record where one had been made durable.
    #[error("a record that was durable is damaged (the log went on at position {witness})")]
    Record {
        /// The absolute position of a record or segment that was written later.
        witness: u64,
    },
    /// The record is intact, but cannot follow those before it.
    #[error("an intact record does not follow the ones before it")]
    Contradiction(#[source] InvalidRecord),
    /// The log ends too early.
    #[error("the log ends at {last}, but is known to have reached {known_durable}")]
    TooShort {
        /// The last version recovered.
        last: u64,
        /// What the caller knows to have been durable.
        known_durable: u64,
    },
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something that was durable is lost. Nothing was changed.
    #[error("the log is damaged in {} at offset {offset}", segment.display())]
    Damaged {
        /// The segment file.
        segment: PathBuf,
        /// Where in it.
        offset: u64,
        /// In which way.
        #[source]
        reason: Damage,
    },
    /// There is no log, where there must have been one.
    #[error("no log in {}, though it is known to have reached {known_durable}", directory.display())]
    Absent {
        /// The directory.
        directory: PathBuf,
        /// What the caller knows to have been durable.
        known_durable: NonZeroU64,
    },
    /// A segment between others is not there.
    #[error("segment {} is missing", segment.display())]
    Missing {
        /// The file that should be there.
        segment: PathBuf,
    },
    /// The segment belongs to another log.
    #[error("segment {} belongs to another log", segment.display())]
    Foreign {
        /// The segment file.
        segment: PathBuf,
    },
    /// A segment file does not have the size that it was made with.
    #[error("segment {} has {found} bytes instead of {expected}", segment.display())]
    Size {
        /// The segment file.
        segment: PathBuf,
        /// Its size.
        found: u64,
        /// The size that its header names, or that of the header.
        expected: u64,
    },
    /// The segment was written by another version of this software.
    #[error("segment {} has the unknown format {format}", segment.display())]
    Format {
        /// The segment file.
        segment: PathBuf,
        /// The format that it names.
        format: u32,
    },
    /// [`crate::Options::segment_bytes`] is too small.
    #[error("segments of {segment_bytes} bytes are too small; {SMALLEST_SEGMENT} is the least")]
    SegmentBytes {
        /// What was asked for.
        segment_bytes: u64,
    },
    /// A file cannot be read or changed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl OpenError {
    /// Whether something of the log itself is lost, so that only another copy of it can help.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::Absent { .. }
            | Self::Missing { .. }
            | Self::Foreign { .. }
            | Self::Size { .. } => true,
            Self::Format { .. } | Self::SegmentBytes { .. } | Self::Io(_) => false,
        }
    }
}

/// An open log, taken apart.
pub(crate) struct Opened {
    pub(crate) shared: Shared,
    pub(crate) end: End,
    pub(crate) recovered: Recovered,
}

/// See [`crate::Log::open`].
pub(crate) fn open(
    disk: &Disk,
    directory: &Path,
    segment_bytes: u64,
    known_durable: u64,
) -> Result<Opened, OpenError> {
    if segment_bytes < SMALLEST_SEGMENT {
        return Err(OpenError::SegmentBytes { segment_bytes });
    }
    make_directory(disk, directory)?;
    let Some(replayed) = replay(disk, directory)? else {
        if let Some(known_durable) = NonZeroU64::new(known_durable) {
            return Err(OpenError::Absent { directory: directory.to_owned(), known_durable });
        }
        return create(disk, directory, segment_bytes);
    };
    let Replayed { index, log, end, torn } = replayed;
    let active = Arc::clone(index.active());
    let last = index.tail.last.version;
    if last < known_durable {
        return Err(damaged(
            &active.path,
            end.position - active.start,
            Damage::TooShort { last, known_durable },
        ));
    }

    // Only from here on is anything changed.
    let stays = Mutant::TornTailStays.on() || Mutant::PredecessorIgnored.on();
    if let Some(torn) = torn.as_ref().filter(|_| !stays) {
        cut(disk, &active, torn)?;
    }
    disk.remove(&spare_path(directory))?;
    let recovered = recovered(&index.tail, torn);
    Ok(Opened { shared: Shared::new(log, index), end, recovered })
}

/// Reads a log and changes nothing; `None` if there is none.
pub(crate) fn read_only(directory: &Path) -> Result<Option<(Shared, Recovered)>, OpenError> {
    let Some(Replayed { index, log, torn, .. }) = replay(&Disk::default(), directory)? else {
        return Ok(None);
    };
    let recovered = recovered(&index.tail, torn);
    Ok(Some((Shared::new(log, index), recovered)))
}

/// What the segments of a directory hold.
struct Replayed {
    index: Index,
    log: LogId,
    end: End,
    torn: Option<TornTail>,
}

/// Walks through the segments of a directory; `None` if there are none.
fn replay(disk: &Disk, directory: &Path) -> Result<Option<Replayed>, OpenError> {
    let Some(sequences) = list(disk, directory)? else { return Ok(None) };
    let mut replay = Replay::default();
    for sequence in sequences.clone() {
        replay.segment(disk, &segment_path(directory, sequence), sequence, sequence == *sequences.end())?;
    }
    let Replay { index, log, end, torn } = replay;
    let (index, log) = index.zip(log).expect("a segment was replayed");
    Ok(Some(Replayed { index, log, end, torn }))
}

fn recovered(tail: &Tail, torn: Option<TornTail>) -> Recovered {
    Recovered { promise: tail.promise, base: tail.base, last: tail.last, epochs: tail.runs(), torn }
}

fn damaged(segment: &Path, offset: u64, reason: Damage) -> OpenError {
    OpenError::Damaged { segment: segment.to_owned(), offset, reason }
}

/// Makes the directory, durably, if it is not there.
fn make_directory(disk: &Disk, directory: &Path) -> Result<(), IoError> {
    if disk.files().names(directory).map_err(IoError::at("list", directory))?.is_some() {
        return Ok(());
    }
    disk.files().make_directory(directory).map_err(IoError::at("create directory", directory))?;
    match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => disk.sync_directory(parent),
        None => disk.sync_directory(Path::new(".")),
    }
}

/// The sequences of the segments in a directory, without a gap; `None` if there are none. Other files are let be.
fn list(disk: &Disk, directory: &Path) -> Result<Option<std::ops::RangeInclusive<u64>>, OpenError> {
    let unreadable = |error| IoError::at("list", directory)(error);
    let names = disk.files().names(directory).map_err(unreadable)?.unwrap_or_default();
    let mut sequences: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    sequences.sort_unstable();
    let (Some(first), Some(last)) = (sequences.first().copied(), sequences.last().copied()) else {
        return Ok(None);
    };
    match (first..=last).zip(&sequences).find(|(expected, found)| expected != *found) {
        Some((expected, _)) => Err(OpenError::Missing { segment: segment_path(directory, expected) }),
        None => Ok(Some(first..=last)),
    }
}

/// A fresh log with its first segment.
fn create(disk: &Disk, directory: &Path, segment_bytes: u64) -> Result<Opened, OpenError> {
    let log = LogId::new(disk.files().entropy());
    let header = SegmentHeader {
        log,
        sequence: 1,
        start: 0,
        size: segment_bytes,
        previous: 0,
        promise: None,
        last: Mark::ZERO,
    };
    let spare = prepare_spare(disk, directory, segment_bytes, |_| true)?.expect("nothing cancels it");
    let segment = install_spare(disk, directory, spare, &header)?;
    let end = End { position: SEGMENT_HEADER as u64, previous: 0 };
    let mut index = Index::new(Tail::default());
    index.push_segment(Arc::new(segment), end.position);
    let recovered = recovered(&index.tail, None);
    Ok(Opened { shared: Shared::new(log, index), end, recovered })
}

/// Clears a torn tail, durably, so that nothing of it can ever be taken for a record. Can be repeated after a crash.
fn cut(disk: &Disk, segment: &Segment, torn: &TornTail) -> Result<(), IoError> {
    let zeros = vec![0; usize::try_from(torn.bytes).expect("a part of a segment fits memory")];
    disk.write(&*segment.file, &segment.path, &zeros, torn.offset)?;
    disk.sync(&*segment.file, &segment.path)
}

/// The state of a walk through the segments, oldest first.
struct Replay {
    index: Option<Index>,
    log: Option<LogId>,
    end: End,
    torn: Option<TornTail>,
}

impl Default for Replay {
    fn default() -> Replay {
        Replay { index: None, log: None, end: End { position: 0, previous: 0 }, torn: None }
    }
}

impl Replay {
    fn segment(&mut self, disk: &Disk, path: &Path, sequence: u64, is_last: bool) -> Result<(), OpenError> {
        let Loaded { file, header, bytes } = load(disk, path, is_last)?;
        if *self.log.get_or_insert(header.log) != header.log {
            return Err(OpenError::Foreign { segment: path.to_owned() });
        }
        if header.sequence != sequence {
            return Err(damaged(path, 0, Damage::Misplaced));
        }
        self.check_transition(path, &header)?;
        let SegmentHeader { start, size, previous, promise, last, .. } = header;
        let segment = Segment { sequence, start, size, path: path.to_owned(), file };
        let index = self.index.get_or_insert_with(|| Index::new(Tail::starting_at(promise, last)));
        self.end = End { position: start + SEGMENT_HEADER as u64, previous };
        index.push_segment(Arc::new(segment), self.end.position);
        self.records(path, &header, &bytes)?;
        self.rest(path, &header, &bytes, is_last)
    }

    /// The segment must go on where the one before it ended. If that one lost records at its end, this is where it shows.
    fn check_transition(&self, path: &Path, header: &SegmentHeader) -> Result<(), OpenError> {
        let Some(index) = &self.index else {
            return Ok(());
        };
        let before = index.active();
        if header.start != before.limit() {
            return Err(damaged(path, 0, Damage::Misplaced));
        }
        if header.previous != self.end.previous {
            let offset = self.end.position - before.start;
            return Err(damaged(&before.path, offset, Damage::Record { witness: header.start }));
        }
        if (header.promise, header.last) != (index.tail.promise, index.tail.last) {
            return Err(damaged(path, 0, Damage::Misplaced));
        }
        Ok(())
    }

    /// Takes in records up to the first place without a valid one.
    fn records(&mut self, path: &Path, header: &SegmentHeader, bytes: &[u8]) -> Result<(), OpenError> {
        let index = self.index.as_mut().expect("set before");
        loop {
            let position = self.end.position;
            let offset = usize::try_from(position - header.start).expect("within the segment");
            let Some(found) = decode_record(&bytes[offset..], header.log, position) else {
                return Ok(());
            };
            if found.previous != self.end.previous && !Mutant::PredecessorIgnored.on() {
                return Ok(());
            }
            let contradiction = |reason| damaged(path, offset as u64, Damage::Contradiction(reason));
            index.tail.check(found.change).map_err(contradiction)?;
            let end = position + found.size as u64;
            index.apply(found.change, position, end);
            self.end = End { position: end, previous: found.checksum };
        }
    }

    /// Judges what follows the last valid record of a segment: nothing, a torn tail, or damage.
    fn rest(
        &mut self,
        path: &Path,
        header: &SegmentHeader,
        bytes: &[u8],
        is_last: bool,
    ) -> Result<(), OpenError> {
        let position = self.end.position;
        let offset = position - header.start;
        let rest = &bytes[usize::try_from(offset).expect("within the segment")..];
        let used = used_length(rest);
        if used == 0 {
            return Ok(());
        }
        // The header of a later segment is written when all before it is durable.
        let witness =
            if is_last { find_witness(rest, header.log, position) } else { Some(header.start + header.size) };
        if let Some(witness) = witness.filter(|_| !Mutant::DamageTakenForTorn.on()) {
            return Err(damaged(path, offset, Damage::Record { witness }));
        }
        self.torn = Some(TornTail { segment: path.to_owned(), offset, bytes: used });
        Ok(())
    }
}

/// A segment as it was read.
struct Loaded {
    file: Arc<dyn LogFile>,
    header: SegmentHeader,
    bytes: Vec<u8>,
}

/// Opens a segment and reads all of it; its size is right.
///
/// A crash of the process alone leaves records in the page cache that the disk may not have, even marked as clean if their sync
/// had failed. So the last segment is synced, dropped from the cache and read from the disk.
fn load(disk: &Disk, path: &Path, is_last: bool) -> Result<Loaded, OpenError> {
    let file = disk.files().open(path).map_err(IoError::at("open", path))?;
    let bytes = file.read_all(is_last).map_err(IoError::at("read", path))?;
    let found = bytes.len() as u64;
    let wrong_size = |expected| OpenError::Size { segment: path.to_owned(), found, expected };
    let header = bytes.get(..SEGMENT_HEADER).ok_or_else(|| wrong_size(SEGMENT_HEADER as u64))?;
    let header = SegmentHeader::decode(header).map_err(|bad| match bad {
        BadHeader::Unreadable => damaged(path, 0, Damage::Header),
        BadHeader::Format(format) => OpenError::Format { segment: path.to_owned(), format },
    })?;
    if header.size != found {
        return Err(wrong_size(header.size));
    }
    Ok(Loaded { file, header, bytes })
}

/// The length of `bytes` without the zeros at the end.
fn used_length(bytes: &[u8]) -> u64 {
    const ZEROS: [u8; 4096] = [0; 4096];
    let zero_chunks = bytes.rchunks(ZEROS.len()).take_while(|chunk| **chunk == ZEROS[..chunk.len()]);
    let used = bytes.len() - zero_chunks.map(<[u8]>::len).sum::<usize>();
    bytes[..used].iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// The position of a valid record in `rest`, which starts at `bad`, that was written when `bad` was durable already.
fn find_witness(rest: &[u8], log: LogId, bad: u64) -> Option<u64> {
    (0..rest.len().saturating_sub(RECORD_HEADER - 1)).step_by(ALIGNMENT).find_map(|at| {
        let position = bad + at as u64;
        let claimed = claimed_synced(&rest[at..]);
        let is_witness =
            claimed > bad && claimed <= position && decode_record(&rest[at..], log, position).is_some();
        is_witness.then_some(position)
    })
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
