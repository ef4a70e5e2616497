//! Committed prefixes are equal on all nodes at all times, and hold every request at most once (DESIGN 2, 5).

use std::collections::BTreeMap;
use std::sync::Arc;

use quorumkv_protocol::entry::{Answered, Entry};
use quorumkv_protocol::membership::{Configuration, Replacement};
use quorumkv_protocol::{EntryId, Epoch, NodeId, RequestId, Version};

use crate::model::store::Store;

/// The one log that all nodes commit, as far as any of them has.
pub(crate) struct Commits {
    entries: Vec<Arc<Entry>>,
    /// The epoch in which each of them was committed first.
    epochs: Vec<Epoch>,
    requests: BTreeMap<RequestId, Version>,
    /// The newest configuration among them, or the first.
    configuration: Configuration,
    /// The state after every so manieth entry, from before the first on; and after the last.
    checkpoints: Vec<Store>,
    newest: Store,
    /// The sum of the state after each entry, and before the first.
    sums: Vec<u64>,
}

/// Entries between two checkpoints.
const CHECKPOINT: usize = 64;

impl Commits {
    pub(super) fn new(first: Configuration, results: usize) -> Self {
        let empty = Store::new(first.clone(), results);
        let sums = vec![empty.sum()];
        let checkpoints = vec![empty.clone()];
        let (entries, epochs, requests) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { entries, epochs, requests, configuration: first, checkpoints, newest: empty, sums }
    }

    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    pub(super) fn entry(&self, version: Version) -> &Entry {
        &self.entries[usize::try_from(version.get() - 1).expect("runs are short")]
    }

    pub(super) const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The configuration that this entry, which must be committed, has brought.
    pub(super) fn configuration_of(&self, id: EntryId) -> &Configuration {
        let entry = self.entry(id.version);
        assert_eq!(entry.id, id, "it is not committed");
        entry.configuration().expect("it has brought a configuration")
    }

    /// In which epoch the entry at this version was committed first. Whoever voted for that has promised it.
    pub(super) fn epoch_of(&self, version: Version) -> Epoch {
        self.epochs[usize::try_from(version.get() - 1).expect("runs are short")]
    }

    /// A node committed this entry, in the epoch that it has promised. True if it is the first to do so.
    pub(super) fn commit(&mut self, id: NodeId, promise: Epoch, entry: &Arc<Entry>) -> bool {
        let index = usize::try_from(entry.id.version.get() - 1).expect("runs are short");
        if let Some(known) = self.entries.get(index) {
            assert_eq!(known, entry, "{id} commits something else than another node has");
            return false;
        }
        assert_eq!(index, self.entries.len(), "{id} commits {} and leaves a gap", entry.id);
        let last = self.entries.last().map_or(EntryId::ZERO, |last| last.id);
        assert!(entry.id.epoch >= last.epoch, "{id} commits {} after {last}", entry.id);
        if let Some(Answered { request, .. }) = entry.answered() {
            let before = self.requests.insert(request, entry.id.version);
            assert_eq!(before, None, "request {request} is committed again as {}", entry.id);
        }
        if let Some(configuration) = entry.configuration() {
            self.configuration = configuration.clone();
        }
        self.entries.push(Arc::clone(entry));
        self.epochs.push(promise);
        self.newest.apply(entry);
        self.sums.push(self.newest.sum());
        if self.entries.len().is_multiple_of(CHECKPOINT) {
            self.checkpoints.push(self.newest.clone());
        }
        true
    }

    /// How many voters have taken the place of others.
    pub(super) fn replacements(&self) -> u64 {
        let configurations: Vec<&Configuration> =
            self.entries.iter().filter_map(|entry| entry.configuration()).collect();
        let finished = |before: &Configuration, after: &Configuration| {
            let is_done = |one: &&Replacement| after.is_voter(one.new) && !after.is_voter(one.old);
            before.replacements.iter().filter(is_done).count() as u64
        };
        configurations.windows(2).map(|pair| finished(pair[0], pair[1])).sum()
    }

    /// The state is what the committed entries up to its version come to.
    pub(super) fn check_state(&self, id: NodeId, store: &Store) {
        assert_eq!(*store, self.state_at(store), "the state of {id} is not what was committed");
    }

    /// Whether the state is what it should be.
    pub(super) fn is_whole(&self, store: &Store) -> bool {
        *store == self.state_at(store)
    }

    /// What the committed entries come to, as far as this state has them.
    pub(super) fn state_at(&self, store: &Store) -> Store {
        let applied = usize::try_from(store.applied.version.get()).expect("runs are short");
        let from = applied / CHECKPOINT;
        let mut expected = self.checkpoints[from].clone();
        for entry in &self.entries[from * CHECKPOINT..applied] {
            expected.apply(entry);
        }
        expected
    }

    /// The sum of the state after this entry.
    pub(super) fn sum_at(&self, version: Version) -> u64 {
        self.sums[usize::try_from(version.get()).expect("runs are short")]
    }
}
