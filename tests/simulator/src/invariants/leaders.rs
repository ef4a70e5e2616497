//! A leader whose epoch is established holds everything that was committed in earlier epochs (DESIGN 7; Raft's leader
//! completeness).

use quorumkv_protocol::{Epoch, NodeId};

use super::commits::Commits;
use crate::node::Node;

/// The opening entry of this node's epoch is committed.
pub(super) fn check_holds_all(id: NodeId, epoch: Epoch, node: &Node, commits: &Commits) {
    let before = commits.entries().iter().rev().find(|entry| entry.id.epoch < epoch);
    let Some(last) = before.map(|entry| entry.id) else { return };
    // Logs with one entry in common are equal up to it.
    let log = &node.disk.written;
    let holds = log.holds(last) || last.version <= log.base.version;
    assert!(holds, "{id} leads {epoch} and lacks {last}, which is committed");
}
