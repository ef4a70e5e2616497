//! Nobody accepts entries of a lower epoch than it has promised (DESIGN 5).

use std::collections::BTreeSet;

use quorumkv_protocol::peer::{
    AppendReply, PeerEnvelope, PeerMessage, Propagate, PropagateReply, Vote, VoteReply,
};
use quorumkv_protocol::{Epoch, NodeId};

/// Appends that came too late: who got each, and under which correlation.
#[derive(Default)]
pub(crate) struct Accepts(BTreeSet<(NodeId, u64)>);

impl Accepts {
    /// A node with this promise is about to hear a message.
    pub(super) fn hears(&mut self, id: NodeId, promise: Epoch, envelope: &PeerEnvelope) {
        let append = match &envelope.body {
            PeerMessage::Vote(Vote::Write(append)) | PeerMessage::Propagate(Propagate::Entries(append)) => {
                append
            }
            _ => return,
        };
        if append.epoch < promise {
            self.0.insert((id, envelope.correlation));
        }
    }

    pub(super) fn sent(&mut self, id: NodeId, envelope: &PeerEnvelope) {
        let is_accepted = matches!(
            envelope.body,
            PeerMessage::VoteReply(VoteReply::Write(AppendReply::Accepted { .. }))
                | PeerMessage::PropagateReply(PropagateReply::Entries(AppendReply::Accepted { .. }))
        );
        let is_late = envelope.body.is_reply() && self.0.remove(&(id, envelope.correlation));
        assert!(!(is_late && is_accepted), "{id} accepts below its promise: {:?}", envelope.body);
    }

    /// Correlations begin anew.
    pub(super) fn started(&mut self, id: NodeId) {
        self.0.retain(|(node, _)| *node != id);
    }
}
