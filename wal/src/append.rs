//! The end of the log: encodes records, writes them, syncs them, and goes on to the next segment.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quorumkv_mutants::Mutant;

use crate::disk::{Disk, IoError};
use crate::files::{BLOCK, Blocks};
use crate::format::{Place, SEGMENT_HEADER, SegmentHeader, encode_record, record_size};
use crate::housekeeper::Housekeeper;
use crate::index::Shared;
use crate::record::{Change, Record};
use crate::segment::{Segment, install_spare};

/// Where a recovered log ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Absolute position of the next record; all before is durable.
    pub(crate) position: u64,
    /// Checksum of the last record.
    pub(crate) previous: u32,
}

/// Appends to the log. After an error it must not be used again: what is on disk is unknown.
pub(crate) struct Appender {
    shared: Arc<Shared>,
    disk: Disk,
    directory: PathBuf,
    housekeeper: Arc<Housekeeper>,
    segment_bytes: u64,
    sync: bool,
    active: Arc<Segment>,
    /// Where the next record goes, once `buffer` is written.
    position: u64,
    previous: u32,
    /// All below is durable.
    synced: u64,
    /// Records that end at `position` and are not written yet.
    buffer: Vec<u8>,
    /// What stands in the block that is not full before those records, once that is known.
    begun: Option<Vec<u8>>,
    blocks: Blocks,
    /// The records in `buffer`, with the absolute positions at which they end.
    buffered: Vec<(Change, u64)>,
}

impl Appender {
    pub(crate) fn new(
        shared: Arc<Shared>,
        disk: Disk,
        directory: PathBuf,
        housekeeper: Arc<Housekeeper>,
        (segment_bytes, sync): (u64, bool),
        end: End,
    ) -> Appender {
        let active = Arc::clone(shared.read().active());
        let End { position, previous } = end;
        housekeeper.note(position - active.start);
        Appender {
            shared,
            disk,
            directory,
            housekeeper,
            segment_bytes,
            sync,
            active,
            position,
            previous,
            synced: position,
            buffer: Vec::new(),
            begun: None,
            blocks: Blocks::default(),
            buffered: Vec::new(),
        }
    }

    /// Adds a record to what the next [`Appender::flush`] writes. The record fits a segment: the writer has checked.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), IoError> {
        let size = record_size(record.payload().len()) as u64;
        if self.position + size > self.active.limit() {
            self.roll()?;
        }
        let place = Place { position: self.position, previous: self.previous, synced: self.synced };
        self.previous = encode_record(&mut self.buffer, self.shared.log, place, record);
        self.position += size;
        self.buffered.push((record.change(), self.position));
        Ok(())
    }

    /// Writes what was appended, in one piece, and lets readers see it.
    pub(crate) fn flush(&mut self) -> Result<(), IoError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut start = self.position - self.buffer.len() as u64;
        self.write(start - self.active.start)?;
        self.buffer.clear();
        self.housekeeper.note(self.position - self.active.start);
        let mut index = self.shared.write();
        for (change, end) in self.buffered.drain(..) {
            index.apply(change, start, end);
            start = end;
        }
        Ok(())
    }

    /// Writes the records to this place in the active segment, in whole blocks: with what stands before them, and with the zeros that
    /// stand after them anyway.
    fn write(&mut self, offset: u64) -> Result<(), IoError> {
        let Segment { file, path, size, .. } = &*self.active;
        let before = usize::try_from(offset % BLOCK as u64).expect("less than a block");
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let mut begun = vec![0; before];
                let read = file.read_exact_at(&mut begun, offset - before as u64);
                read.map_err(IoError::at("read", path))?;
                begun
            }
        };
        let used = before + self.buffer.len();
        let whole = (size - offset).saturating_add(before as u64).min(used.next_multiple_of(BLOCK) as u64);
        let blocks = self.blocks.of(usize::try_from(whole).expect("it is in memory"));
        blocks[..before].copy_from_slice(&begun);
        blocks[before..used].copy_from_slice(&self.buffer);
        blocks[used..].fill(0);
        self.disk.write(&**file, path, blocks, offset - before as u64)?;
        let mut begun = begun;
        begun.clear();
        begun.extend_from_slice(&blocks[used - used % BLOCK..used]);
        self.begun = Some(begun);
        Ok(())
    }

    /// Makes durable what was written, unless the log runs without syncs.
    pub(crate) fn sync(&mut self) -> Result<(), IoError> {
        if self.sync && self.synced < self.position {
            if !Mutant::LogNotSynced.on() {
                self.disk.sync(&*self.active.file, &self.active.path)?;
            }
            self.synced = self.position;
        }
        Ok(())
    }

    /// Where in the active segment that is durable ends which all records from now on know of.
    pub(crate) fn synced_offset(&self) -> u64 {
        self.synced.saturating_sub(self.active.start)
    }

    /// Goes on in a new segment if that was asked for.
    pub(crate) fn roll_if_asked(&mut self) -> Result<(), IoError> {
        if self.shared.roll.swap(false, Ordering::Relaxed) { self.roll() } else { Ok(()) }
    }

    /// Goes on in a new segment. The old one is synced first (always): only the last segment can have a torn tail,
    /// and the header of the new one proves that everything before it was durable.
    fn roll(&mut self) -> Result<(), IoError> {
        self.flush()?;
        if !Mutant::FullSegmentNotSynced.on() {
            self.disk.sync(&*self.active.file, &self.active.path)?;
        }
        let spare = self.housekeeper.take_spare()?;
        let (promise, last) = {
            let index = self.shared.read();
            (index.tail.promise, index.tail.last)
        };
        let header = SegmentHeader {
            log: self.shared.log,
            sequence: self.active.sequence + 1,
            start: self.active.limit(),
            size: self.segment_bytes,
            previous: self.previous,
            promise,
            last,
        };
        self.active = Arc::new(install_spare(&self.disk, &self.directory, spare, &header)?);
        self.begun = Some(Vec::new());
        self.housekeeper.note(0);
        self.housekeeper.prepare_next();
        self.position = header.start + SEGMENT_HEADER as u64;
        self.synced = self.position;
        self.shared.write().push_segment(Arc::clone(&self.active), self.position);
        tracing::debug!(segment = header.sequence, %last, "started a segment");
        Ok(())
    }
}
