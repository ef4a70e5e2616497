//! What a node knows never becomes less: committed while it runs, and, over crashes too, the accepted epoch of its durable log,
//! unless it has promised a higher one (DESIGN 2, 5).

use std::collections::BTreeMap;

use quorumkv_protocol::{Epoch, NodeId, Version};

use crate::node::Node;

/// How far each node has come.
#[derive(Default)]
pub(crate) struct Progress {
    committed: BTreeMap<NodeId, Version>,
    applied: BTreeMap<NodeId, Version>,
    accepted: BTreeMap<NodeId, Epoch>,
}

impl Progress {
    /// A node has started: what it knew and had not saved, it must learn anew.
    pub(super) fn started(&mut self, id: NodeId, node: &Node) {
        self.committed.remove(&id);
        let saved = node.saved.applied.version;
        let before = self.applied.insert(id, saved).unwrap_or(Version::ZERO);
        assert!(saved >= before, "the saved state of {id} went back from {before} to {saved}");
        self.check_accepted(id, node);
    }

    pub(super) fn look(&mut self, id: NodeId, committed: Version, node: &Node) {
        let before = self.committed.insert(id, committed).unwrap_or(Version::ZERO);
        assert!(committed >= before, "what {id} knows to be committed fell from {before} to {committed}");
        self.check_accepted(id, node);
    }

    fn check_accepted(&mut self, id: NodeId, node: &Node) {
        let log = &node.disk.synced;
        let accepted = log.last().epoch;
        let before = self.accepted.insert(id, accepted).unwrap_or(Epoch::ZERO);
        let is_replaced = log.promise > before;
        assert!(
            accepted >= before || is_replaced,
            "the accepted epoch of {id} fell from {before} to {accepted}, and it promised {}",
            log.promise
        );
    }
}
