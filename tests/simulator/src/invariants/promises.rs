//! A promise never decreases, not over restarts either, and an epoch has one leader (DESIGN 2, 7).

use std::collections::BTreeMap;

use quorumkv_protocol::peer::{PeerMessage, Vote, VoteReply};
use quorumkv_protocol::{Epoch, NodeId};
use quorumkv_replica::Outgoing;

/// What the nodes have promised each other.
#[derive(Default)]
pub(crate) struct Promises {
    /// The highest epoch that each node has told others it would follow, or asked others to follow.
    given: BTreeMap<NodeId, Epoch>,
    /// The promise of each running node.
    current: BTreeMap<NodeId, Epoch>,
    leaders: BTreeMap<Epoch, NodeId>,
}

impl Promises {
    pub(super) fn sent(&mut self, id: NodeId, message: &Outgoing) {
        let epoch = match &message.envelope.body {
            PeerMessage::VoteReply(VoteReply::Granted { epoch, .. })
            | PeerMessage::Vote(Vote::Lead { epoch, .. }) => *epoch,
            PeerMessage::Vote(Vote::Write(append)) => append.epoch,
            _ => return,
        };
        let given = self.given.entry(id).or_insert(epoch);
        *given = (*given).max(epoch);
    }

    pub(super) fn started(&mut self, id: NodeId, promise: Epoch) {
        let given = self.given.get(&id).copied().unwrap_or(Epoch::ZERO);
        assert!(promise >= given, "{id} promised {given}, and starts with {promise}");
        self.current.insert(id, promise);
    }

    pub(super) fn look(&mut self, id: NodeId, promise: Epoch) {
        let before = self.current.insert(id, promise).unwrap_or(Epoch::ZERO);
        assert!(promise >= before, "the promise of {id} fell from {before} to {promise}");
    }

    pub(super) fn established(&mut self, id: NodeId, epoch: Epoch) {
        assert_eq!(epoch.node(), id, "{id} leads an epoch of another node");
        let before = self.leaders.insert(epoch, id);
        assert_eq!(before, None, "epoch {epoch} was established twice");
    }
}
