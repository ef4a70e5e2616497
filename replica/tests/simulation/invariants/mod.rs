//! What must hold at every moment of a run, and what must hold of its history.

mod commits;
mod durability;
pub(crate) mod history;
mod promises;

use std::collections::BTreeMap;
use std::sync::Arc;

use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{Epoch, NodeId};
use quorumkv_replica::Outgoing;

use crate::model::store::Store;
use crate::node::Node;
use commits::Commits;
use history::History;
use promises::Promises;

/// All invariants.
pub(crate) struct Invariants {
    configuration: Configuration,
    commits: Commits,
    promises: Promises,
}

impl Invariants {
    pub(crate) fn new(first: &Configuration, results: usize) -> Self {
        let commits = Commits::new(first.clone(), results);
        Self { configuration: first.clone(), commits, promises: Promises::default() }
    }

    /// A node decided that these entries are committed.
    pub(crate) fn committed(&mut self, id: NodeId, entries: &[Arc<Entry>], nodes: &BTreeMap<NodeId, Node>) {
        for entry in entries {
            if self.commits.commit(id, entry) {
                durability::check_quorum(entry.id, self.configuration.quorum(), nodes);
            }
        }
    }

    /// A node put a snapshot in the place of its state.
    pub(crate) fn installed(&self, id: NodeId, store: &Store) {
        self.commits.check_state(id, store);
    }

    /// A node sends a message.
    pub(crate) fn sent(&mut self, id: NodeId, message: &Outgoing, nodes: &BTreeMap<NodeId, Node>) {
        self.promises.sent(id, message);
        durability::check_message(id, message, nodes);
    }

    /// A node has started, with this promise.
    pub(crate) fn started(&mut self, id: NodeId, promise: Epoch) {
        self.promises.started(id, promise);
    }

    /// A node's epoch is established.
    pub(crate) fn established(&mut self, id: NodeId, epoch: Epoch) {
        self.promises.established(id, epoch);
    }

    /// A node has taken in something.
    pub(crate) fn look(&mut self, id: NodeId, nodes: &BTreeMap<NodeId, Node>) {
        let Some(process) = &nodes[&id].process else { return };
        let status = process.replica.status();
        self.promises.look(id, status.promise);
        assert!(status.applied <= status.committed, "{id} applied more than is committed");
        assert!(status.committed <= status.last.version, "{id} committed more than it has");
    }

    /// All nodes have the same state now: that of everything that was ever committed.
    pub(crate) fn check_agreement(&self, nodes: &BTreeMap<NodeId, Node>) {
        for (&id, node) in nodes {
            let process = node.process.as_ref().expect("all nodes run");
            let store = process.store.borrow();
            assert_eq!(
                usize::try_from(store.applied.version.get()).ok(),
                Some(self.commits.entries().len()),
                "{id} is not up to date"
            );
            self.commits.check_state(id, &store);
        }
    }

    pub(crate) fn check_history(&self, history: &History) {
        history.check(self.commits.entries());
    }

    pub(crate) fn committed_entries(&self) -> u64 {
        self.commits.entries().len() as u64
    }
}
