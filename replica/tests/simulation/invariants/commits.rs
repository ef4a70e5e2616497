//! Committed prefixes are equal on all nodes at all times, and hold every request at most once (DESIGN 2, 5).

use std::collections::BTreeMap;
use std::sync::Arc;

use quorumkv_protocol::entry::{Answered, Entry};
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{EntryId, NodeId, RequestId, Version};

use crate::model::store::Store;

/// The one log that all nodes commit, as far as any of them has.
pub(crate) struct Commits {
    entries: Vec<Arc<Entry>>,
    requests: BTreeMap<RequestId, Version>,
    /// The state before the first entry.
    empty: Store,
}

impl Commits {
    pub(super) fn new(first: Configuration, results: usize) -> Self {
        Self { entries: Vec::new(), requests: BTreeMap::new(), empty: Store::new(first, results) }
    }

    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// A node committed this entry. True if it is the first to do so.
    pub(super) fn commit(&mut self, id: NodeId, entry: &Arc<Entry>) -> bool {
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
        self.entries.push(Arc::clone(entry));
        true
    }

    /// The state is what the committed entries up to its version come to.
    pub(super) fn check_state(&self, id: NodeId, store: &Store) {
        let mut expected = self.empty.clone();
        let applied = usize::try_from(store.applied.version.get()).expect("runs are short");
        for entry in &self.entries[..applied] {
            expected.apply(entry);
        }
        assert_eq!(*store, expected, "the state of {id} is not what was committed");
    }
}
