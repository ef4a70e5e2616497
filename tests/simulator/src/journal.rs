//! The real write-ahead log of a node, on a disk that is made up, beside the model of what it must hold.
//!
//! The model is what the replica is told and what the invariants look at. The real log must come to the same: what it
//! finds after a crash is what was synced, and perhaps the beginning of what was not.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use quorumkv_protocol::entry::{Body, Entry};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version, frame};
use quorumkv_replica::LogRecord;
use quorumkv_wal as wal;

use crate::disk::SimDisk;
use crate::model::disk::Image;

/// The size of a segment: the least that there may be, so that there are many.
const SEGMENT: u64 = 8 << 10;

/// The log of one node.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: SimDisk,
    log: Option<wal::SteppedLog>,
    /// Up to here, in the last file, a record was written later that proves that it was durable.
    witnessed: u64,
    /// The same, once what is written is synced.
    proven: u64,
}

impl Journal {
    /// An empty disk.
    pub(crate) fn new() -> Self {
        Self { disk: SimDisk::default(), log: None, witnessed: 0, proven: 0 }
    }

    /// Opens the log and reads all of it.
    pub(crate) fn open(&mut self) -> Result<Image, wal::OpenError> {
        let files: Arc<dyn wal::Files> = Arc::new(self.disk.clone());
        let options = wal::Options { segment_bytes: SEGMENT, files: Some(files), ..wal::Options::default() };
        let (log, found) = wal::Log::open(Path::new("log"), options, 0)?;
        let log = self.log.insert(log.in_steps());
        let reader = log.reader();
        let mut entries: VecDeque<Arc<Entry>> = VecDeque::new();
        let mut next = found.base.version + 1;
        while next <= found.last.version {
            for entry in reader.read(next, u64::MAX).expect("what was recovered can be read") {
                let body: Body = frame::decode(&entry.payload).expect("an intact record holds an entry");
                entries.push_back(Arc::new(Entry { id: id(entry.mark), body }));
                next += 1;
            }
        }
        assert_eq!(entries.back().map_or(id(found.base), |last| last.id), id(found.last));
        let promise = found.promise.map_or(Epoch::ZERO, epoch);
        Ok(Image { promise, base: id(found.base), entries })
    }

    fn log(&mut self) -> &mut wal::SteppedLog {
        self.log.as_mut().expect("a node that runs has its log open")
    }

    /// Writes records. False if the disk failed: the process must end.
    pub(crate) fn write(&mut self, records: &[LogRecord]) -> bool {
        if records.is_empty() {
            return true;
        }
        let before = self.log().synced_offset();
        let written = self.log().write(records.iter().map(record).collect());
        self.proven = self.log().synced_offset();
        if self.proven < before {
            // A new file was begun, and what is written to it proves nothing yet.
            self.witnessed = 0;
        }
        match written {
            Ok(()) => true,
            Err(wal::StepError::Io(_)) => false,
            Err(wal::StepError::Invalid(reason)) => panic!("the log refuses what the replica logs: {reason}"),
        }
    }

    /// Syncs what was written. False if the disk failed: the process must end.
    pub(crate) fn sync(&mut self) -> bool {
        let is_synced = self.log().sync().is_ok();
        if is_synced {
            self.witnessed = self.proven;
        }
        is_synced
    }

    /// Forgets what lies before the entry after `base`, in whole files.
    pub(crate) fn trim(&mut self, base: EntryId) {
        self.log().trim(base.version.get() + 1);
    }

    /// Whether these entries are what a reader of the log finds.
    pub(crate) fn reads_as(&self, entries: &[Arc<Entry>]) -> bool {
        let (Some(first), Some(log)) = (entries.first(), &self.log) else { return true };
        let Ok(found) = log.reader().read(first.id.version.get(), u64::MAX) else { return false };
        let is_same = |(entry, found): (&Arc<Entry>, &wal::Entry)| {
            mark(entry.id) == found.mark && payload(&entry.body) == found.payload
        };
        found.len() >= entries.len() && entries.iter().zip(&found).all(is_same)
    }

    pub(crate) fn fail_syncs_after(&self, more: u32) {
        self.disk.fail_syncs_after(more);
    }

    pub(crate) fn mend_syncs(&self) {
        self.disk.mend_syncs();
    }

    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.log = None;
        self.disk.crash(rng);
    }

    /// Changes something of the log of a node that does not run. True if it must be noticed.
    pub(crate) fn damage(&mut self, rng: &mut Rng) -> bool {
        let end = self.witnessed;
        self.disk.damage(rng, end)
    }
}

fn record(record: &LogRecord) -> wal::Record {
    match record {
        LogRecord::Promise(epoch) => wal::Record::Promise { epoch: wal_epoch(*epoch) },
        LogRecord::Entry(entry) => wal::Record::Entry { mark: mark(entry.id), payload: payload(&entry.body) },
        LogRecord::Base(id) => wal::Record::Base { mark: mark(*id) },
    }
}

fn payload(body: &Body) -> Bytes {
    let mut bytes = BytesMut::new();
    frame::encode_body(body, &mut bytes);
    bytes.freeze()
}

fn wal_epoch(epoch: Epoch) -> wal::Epoch {
    wal::Epoch { counter: epoch.counter(), node: epoch.node().get() }
}

fn mark(id: EntryId) -> wal::Mark {
    wal::Mark { epoch: wal_epoch(id.epoch), version: id.version.get() }
}

fn epoch(epoch: wal::Epoch) -> Epoch {
    Epoch::new(epoch.counter, NodeId::new(epoch.node))
}

fn id(mark: wal::Mark) -> EntryId {
    EntryId::new(epoch(mark.epoch), Version::new(mark.version))
}
