//! The leader's account of the members, for whoever asks.

use quorumkv_protocol::ClusterId;
use quorumkv_protocol::client::{MemberStatus, Members, NodeRole};
use quorumkv_protocol::membership::Member;
use quorumkv_replica::{PeerProgress, Replica};

use crate::storage::{SnapshotServer, StateHandle};

/// Who belongs to the cluster, and how far everybody is; `None` if this node does not lead.
pub(super) fn account(
    cluster: ClusterId,
    replica: &Replica<StateHandle>,
    snapshots: &SnapshotServer,
) -> Option<Members> {
    let status = replica.status();
    let leader = status.leader.filter(|_| status.role == NodeRole::Leader)?;
    let configuration = replica.configuration();
    let progress = replica.progress();
    let describe = |member: &Member| {
        let replaces = configuration.replacements.iter().find(|replacement| replacement.new == member.node);
        let known = MemberStatus {
            member: member.clone(),
            votes: configuration.is_voter(member.node),
            replaces: replaces.map(|replacement| replacement.old),
            live: true,
            caught_up: true,
            behind: 0,
            snapshot: None,
        };
        match progress.iter().find(|progress| progress.node == member.node) {
            None => known,
            Some(&PeerProgress { live, caught_up, behind, restoring, .. }) => {
                let snapshot = if restoring { snapshots.progress(member.node) } else { None };
                MemberStatus { live, caught_up, behind, snapshot, ..known }
            }
        }
    };
    Some(Members {
        cluster,
        leader,
        epoch: status.promise,
        configuration: configuration.id,
        committed: configuration.id == replica.committed_configuration().id,
        last: status.last.version,
        members: configuration.members().map(describe).collect(),
    })
}
