//! States at equal versions are equal, at every step (DESIGN 2): told by a sum over what they hold.

use quorumkv_protocol::NodeId;

use super::commits::Commits;
use crate::model::store::Store;

/// A node has applied another entry to its state, to which nothing has happened on the disk.
pub(super) fn check(id: NodeId, store: &Store, commits: &Commits) {
    let expected = commits.sum_at(store.applied.version);
    assert_eq!(store.sum(), expected, "the state of {id} at {} is not what others have", store.applied);
}
