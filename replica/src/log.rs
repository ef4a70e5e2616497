//! The replica's view of its log: which entry stands at which version, how much of it is durable, and the entries
//! that are still needed in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::entry::{Effect, Entry};
use quorumkv_protocol::{EntryId, Epoch, Version};

use crate::effects::PersistId;
use crate::input::Recovered;

/// What an entry takes in memory beside its keys and values, roughly.
const ENTRY_OVERHEAD: usize = 200;

/// The log, as a sequence of ids from `base` to `last`, with the newest entries themselves.
#[derive(Debug)]
pub(crate) struct Log {
    /// The entry before the first.
    base: EntryId,
    /// Each epoch after `base` with the first version that it wrote, in order.
    runs: VecDeque<(Epoch, Version)>,
    last: Version,
    /// Entries up to `last`: at least those that are not applied yet.
    tail: VecDeque<Arc<Entry>>,
    tail_bytes: usize,
    /// Everything up to here is on disk.
    durable: Version,
    /// Batches on their way to the disk: each with the version up to which the log is durable after it.
    persisting: VecDeque<(PersistId, Version)>,
}

impl Log {
    pub(crate) fn recover(recovered: &Recovered) -> Self {
        let mut log = Self {
            base: recovered.base,
            runs: recovered.epochs.iter().copied().collect(),
            last: recovered.last.version,
            tail: VecDeque::new(),
            tail_bytes: 0,
            durable: recovered.last.version,
            persisting: VecDeque::new(),
        };
        for entry in &recovered.unapplied {
            log.tail_bytes += footprint(entry);
            log.tail.push_back(Arc::clone(entry));
        }
        assert_eq!(log.last_id(), recovered.last, "the epochs of a recovered log lead to its last entry");
        log
    }

    pub(crate) const fn base(&self) -> EntryId {
        self.base
    }

    pub(crate) const fn last(&self) -> Version {
        self.last
    }

    pub(crate) const fn durable(&self) -> Version {
        self.durable
    }

    pub(crate) fn last_id(&self) -> EntryId {
        self.id_at(self.last).expect("the last entry has an id")
    }

    /// The id of the entry at `version`; `None` before `base` and after `last`.
    pub(crate) fn id_at(&self, version: Version) -> Option<EntryId> {
        if version == self.base.version {
            return Some(self.base);
        }
        if version < self.base.version || version > self.last {
            return None;
        }
        let after = self.runs.partition_point(|&(_, first)| first <= version);
        let (epoch, _) = self.runs[after - 1];
        Some(EntryId::new(epoch, version))
    }

    /// Whether this log holds the entry.
    pub(crate) fn holds(&self, id: EntryId) -> bool {
        self.id_at(id.version) == Some(id)
    }

    /// The last entry of this log that may also stand in a log which has `id`: it lies at or before `id`'s version and
    /// in no later epoch, because along a log epochs never decrease. `None` if all that is known of this log lies after.
    pub(crate) fn last_possible_match(&self, id: EntryId) -> Option<EntryId> {
        // The first run that is too new ends the part in which to look.
        let runs = self.runs.partition_point(|&(epoch, _)| epoch <= id.epoch);
        let end = self.runs.get(runs).map_or(self.last, |&(_, first)| first.previous());
        self.id_at(end.min(id.version)).filter(|here| here.epoch <= id.epoch)
    }

    /// The entry at `version`, if it is in memory.
    pub(crate) fn entry(&self, version: Version) -> Option<&Arc<Entry>> {
        let start = self.last.get() - self.tail.len() as u64;
        let index = version.get().checked_sub(start + 1)?;
        self.tail.get(usize::try_from(index).ok()?)
    }

    /// The first version whose entry is in memory.
    pub(crate) fn first_in_memory(&self) -> Version {
        Version::new(self.last.get() - self.tail.len() as u64).next()
    }

    /// What the entries in memory take, roughly, in bytes.
    pub(crate) const fn memory_bytes(&self) -> usize {
        self.tail_bytes
    }

    pub(crate) fn append(&mut self, entry: Arc<Entry>) {
        assert_eq!(entry.id.version, self.last.next(), "entries are appended without gaps");
        let epoch = entry.id.epoch;
        assert!(epoch >= self.last_id().epoch, "epochs never decrease along a log");
        if self.runs.back().is_none_or(|&(newest, _)| newest != epoch) {
            self.runs.push_back((epoch, entry.id.version));
        }
        self.last = entry.id.version;
        self.tail_bytes += footprint(&entry);
        self.tail.push_back(entry);
    }

    /// Drops every entry after `version`; returns them, newest first.
    pub(crate) fn truncate_after(&mut self, version: Version) -> Vec<Arc<Entry>> {
        let mut dropped = Vec::new();
        while self.last > version {
            let entry =
                self.tail.pop_back().expect("entries that can be dropped are not applied, so in memory");
            self.tail_bytes -= footprint(&entry);
            self.last = self.last.previous();
            dropped.push(entry);
        }
        while self.runs.back().is_some_and(|&(_, first)| first > version) {
            self.runs.pop_back();
        }
        if Mutant::TruncationKeepsDurable.on() {
            return dropped;
        }
        self.durable = self.durable.min(version);
        for (_, upto) in &mut self.persisting {
            *upto = (*upto).min(version);
        }
        dropped
    }

    /// Starts anew after a snapshot: nothing is known but that everything up to `base` is durable in the state.
    pub(crate) fn reset(&mut self, base: EntryId) {
        self.base = base;
        self.last = base.version;
        self.durable = base.version;
        self.runs.clear();
        self.tail.clear();
        self.tail_bytes = 0;
        for (_, upto) in &mut self.persisting {
            *upto = base.version;
        }
    }

    /// Forgets ids up to `base`, which is no longer on disk.
    pub(crate) fn trim(&mut self, base: EntryId) {
        if base.version <= self.base.version || !self.holds(base) {
            return;
        }
        while self.runs.get(1).is_some_and(|&(_, first)| first <= base.version.next()) {
            self.runs.pop_front();
        }
        if base.version == self.last {
            self.runs.clear();
        } else if let Some(run) = self.runs.front_mut() {
            run.1 = run.1.max(base.version.next());
        }
        self.base = base;
        // What was trimmed is in the durable state, whether or not the log has reported its sync yet.
        self.durable = self.durable.max(base.version);
    }

    /// Releases entries from memory, oldest first, until the cache fits; never one after `applied`.
    pub(crate) fn release(&mut self, applied: Version, cache_bytes: usize) {
        while self.tail_bytes > cache_bytes && self.first_in_memory() <= applied {
            let Some(entry) = self.tail.pop_front() else { return };
            self.tail_bytes -= footprint(&entry);
        }
    }

    /// Everything appended so far goes to the disk with this batch.
    pub(crate) fn persisting(&mut self, id: PersistId) {
        self.persisting.push_back((id, self.last));
    }

    /// The batch, and all before it, are on disk.
    pub(crate) fn persisted(&mut self, id: PersistId) {
        while let Some(&(batch, upto)) = self.persisting.front() {
            if batch > id {
                return;
            }
            self.durable = self.durable.max(upto);
            self.persisting.pop_front();
        }
    }
}

/// What an entry takes in memory, roughly.
pub(crate) fn footprint(entry: &Entry) -> usize {
    let size = |effect: &Effect| effect.key().len() + effect.value().map_or(0, bytes::Bytes::len);
    ENTRY_OVERHEAD + entry.effects().iter().map(size).sum::<usize>()
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
