//! A log on disk that survives a crash only as far as it was synced.

use std::collections::VecDeque;
use std::sync::Arc;

use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::{EntryId, Epoch, Version};
use quorumkv_replica::{LogRecord, Outgoing, PersistId, Recovered};

/// What a log's records come to when they are read from the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) promise: Epoch,
    /// The entry before the first.
    pub(crate) base: EntryId,
    pub(crate) entries: VecDeque<Arc<Entry>>,
}

/// A batch that was written and is not synced yet.
#[derive(Debug)]
struct Batch {
    id: PersistId,
    records: VecDeque<LogRecord>,
    when_durable: Vec<Outgoing>,
}

/// The log of one node.
#[derive(Debug)]
pub(crate) struct Disk {
    /// What survives a crash.
    pub(crate) synced: Image,
    /// What a reader of the log sees.
    pub(crate) written: Image,
    pending: VecDeque<Batch>,
}

impl Image {
    const fn fresh() -> Self {
        Self { promise: Epoch::ZERO, base: EntryId::ZERO, entries: VecDeque::new() }
    }

    pub(crate) fn last(&self) -> EntryId {
        self.entries.back().map_or(self.base, |entry| entry.id)
    }

    /// The id of the entry at `version`; `None` before the base and after the last.
    pub(crate) fn id_at(&self, version: Version) -> Option<EntryId> {
        if version == self.base.version {
            return Some(self.base);
        }
        let index = version.get().checked_sub(self.base.version.get() + 1)?;
        self.entries.get(usize::try_from(index).ok()?).map(|entry| entry.id)
    }

    pub(crate) fn holds(&self, id: EntryId) -> bool {
        self.id_at(id.version) == Some(id)
    }

    fn take(&mut self, record: &LogRecord) {
        match record {
            LogRecord::Promise(epoch) => {
                assert!(*epoch > self.promise, "the log is told of promises that grow");
                self.promise = *epoch;
            }
            LogRecord::Entry(entry) => {
                let version = entry.id.version;
                assert!(version > self.base.version, "entry {} lies before the log's base", entry.id);
                while self.last().version >= version {
                    self.entries.pop_back();
                }
                assert_eq!(self.last().version.next(), version, "the log has no gaps");
                self.entries.push_back(Arc::clone(entry));
            }
            LogRecord::Base(base) => {
                self.base = *base;
                self.entries.clear();
            }
        }
    }

    fn truncate_after(&mut self, version: Version) {
        while self.last().version > version && self.entries.pop_back().is_some() {}
    }

    /// Whether a log that holds all of `found` comes to this. It may reach further back, for it is trimmed in pieces.
    fn is_read_as(&self, found: &Self) -> bool {
        let same = self.promise == found.promise && self.last() == found.last();
        let first = self.base.version.max(found.base.version).next();
        let tail = |image: &Self| {
            let skip = usize::try_from(first.since(image.base.version) - 1).expect("logs are short");
            image.entries.iter().skip(skip).cloned().collect::<Vec<_>>()
        };
        same && found.base.version <= self.base.version && tail(self) == tail(found)
    }

    fn trim(&mut self, base: EntryId) {
        if self.holds(base) {
            self.entries.retain(|entry| entry.id.version > base.version);
            self.base = base;
        }
    }

    /// Entries from `from` on, up to `max_bytes` of them but at least one; none if the log no longer has them.
    pub(crate) fn read(&self, from: Version, max_bytes: usize) -> Vec<Arc<Entry>> {
        if from <= self.base.version {
            return Vec::new();
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in self.entries.iter().filter(|entry| entry.id.version >= from) {
            bytes += 200;
            if !entries.is_empty() && bytes > max_bytes {
                break;
            }
            entries.push(Arc::clone(entry));
        }
        entries
    }
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { synced: Image::fresh(), written: Image::fresh(), pending: VecDeque::new() }
    }

    /// Appends a batch. It and its messages wait to be synced.
    pub(crate) fn write(&mut self, id: PersistId, records: Vec<LogRecord>, when_durable: Vec<Outgoing>) {
        for record in &records {
            self.written.take(record);
        }
        self.pending.push_back(Batch { id, records: records.into(), when_durable });
    }

    /// Syncs the oldest batch; returns it, and the messages that waited for it.
    pub(crate) fn sync(&mut self) -> Option<(PersistId, Vec<Outgoing>)> {
        let batch = self.pending.pop_front()?;
        for record in &batch.records {
            self.synced.take(record);
        }
        Some((batch.id, batch.when_durable))
    }

    /// How many records are not synced.
    pub(crate) fn unsynced(&self) -> usize {
        self.pending.iter().map(|batch| batch.records.len()).sum()
    }

    /// What a log may hold after a crash: what was synced, and the beginning of what was not. Takes on what `found` says if
    /// that is possible; entries of both that lie after `after` are compared. False if it is not possible.
    pub(crate) fn crash_to(&mut self, found: &Image) -> bool {
        let pending: Vec<LogRecord> = self.pending.drain(..).flat_map(|batch| batch.records).collect();
        let mut image = self.synced.clone();
        let mut next = pending.iter();
        loop {
            if image.is_read_as(found) {
                break;
            }
            match next.next() {
                Some(LogRecord::Entry(entry)) if entry.id.version <= image.last().version => {
                    // Whoever writes over entries drops them first.
                    image.truncate_after(entry.id.version.previous());
                    if image.is_read_as(found) {
                        break;
                    }
                    image.take(&LogRecord::Entry(Arc::clone(entry)));
                }
                Some(record) => image.take(record),
                None => return false,
            }
        }
        (self.written, self.synced) = (image.clone(), image);
        true
    }

    /// Loses what was not synced, but for the first `survivors` records, which happened to reach the disk.
    pub(crate) fn crash(&mut self, survivors: usize) {
        let records = self.pending.drain(..).flat_map(|batch| batch.records);
        for record in records.take(survivors) {
            self.synced.take(&record);
        }
        self.written = self.synced.clone();
    }

    /// Forgets entries up to `base`. False if they are not all synced.
    pub(crate) fn trim(&mut self, base: EntryId) -> bool {
        let holds = self.synced.holds(base) && self.written.holds(base);
        if holds {
            self.synced.trim(base);
            self.written.trim(base);
        }
        holds
    }

    /// What a node finds when it starts with a state that has applied everything up to `applied`.
    ///
    /// The state may have outrun the log: a snapshot was installed, or an entry was committed by others before this
    /// log had synced it. Then the state is all that counts, and the log goes on from there.
    pub(crate) fn recover(&mut self, applied: EntryId) -> Recovered {
        assert!(self.pending.is_empty(), "a node that starts has written nothing yet");
        assert!(
            applied.version >= self.synced.base.version,
            "the log is trimmed only below what the state has saved"
        );
        if !self.synced.holds(applied) {
            self.synced.take(&LogRecord::Base(applied));
            self.written = self.synced.clone();
        }
        let log = &self.synced;
        let mut epochs: Vec<(Epoch, Version)> = Vec::new();
        for entry in &log.entries {
            if epochs.last().is_none_or(|(epoch, _)| *epoch != entry.id.epoch) {
                epochs.push((entry.id.epoch, entry.id.version));
            }
        }
        let is_unapplied = |entry: &&Arc<Entry>| entry.id.version > applied.version;
        Recovered {
            promise: log.promise,
            base: log.base,
            epochs,
            last: log.last(),
            applied,
            unapplied: log.entries.iter().filter(is_unapplied).cloned().collect(),
            damaged: false,
        }
    }
}
