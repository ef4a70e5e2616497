//! Who counts, counts by right: a leader was promised its epoch by a majority of the voters of its own configuration, and
//! nobody but a member grants or answers samples; voters come and go one at a time (DESIGN 8).

use std::collections::{BTreeMap, BTreeSet};

use quorumkv_protocol::membership::{Change, ChangeRequest, Configuration};
use quorumkv_protocol::peer::{PeerMessage, VoteReply};
use quorumkv_protocol::{Epoch, NodeId};
use quorumkv_replica::Outgoing;

use crate::node::Node;

/// A leader's opening entry is committed: a majority of its voters would remember their promise after a crash.
pub(super) fn check_leader(epoch: Epoch, configuration: &Configuration, nodes: &BTreeMap<NodeId, Node>) {
    let promised = configuration.count(|voter| nodes[&voter].disk.synced.promise >= epoch);
    assert!(
        promised >= configuration.quorum(),
        "{epoch} is established, and only {promised} of {configuration:?} promised"
    );
}

/// Nodes that have found themselves members. A node that begins with an empty disk is none of them for a long time.
#[derive(Default)]
pub(super) struct Known(BTreeSet<NodeId>);

impl Known {
    pub(super) fn look(&mut self, id: NodeId, configuration: &Configuration) {
        if configuration.member(id).is_some() {
            self.0.insert(id);
        }
    }

    /// Who has never been a member grants nothing and answers no samples.
    pub(super) fn sent(&self, id: NodeId, message: &Outgoing) {
        let body = &message.envelope.body;
        let counts = matches!(
            body,
            PeerMessage::VoteReply(VoteReply::Granted { .. }) | PeerMessage::ReadSampleReply(_)
        );
        assert!(!counts || self.0.contains(&id), "{id} was never a member, and says {body:?}");
    }
}

/// One committed configuration follows another: majorities of the two overlap.
pub(super) fn check_step(before: &Configuration, after: &Configuration) {
    let come = after.voters.iter().filter(|voter| !before.is_voter(voter.node)).count();
    let go = before.voters.iter().filter(|voter| !after.is_voter(voter.node)).count();
    assert!(come + go <= 1, "more than one voter changes from {before:?} to {after:?}");
    assert!(after.is_sound(), "{after:?} is committed");
}

/// A change that was acknowledged is made by the configuration of its entry.
pub(super) fn check_acknowledged(request: &ChangeRequest, configuration: &Configuration) {
    let is_made = match &request.change {
        Change::AddLearner(new) => configuration.is_learner(new.node),
        Change::Promote(node) => configuration.is_voter(*node),
        Change::Remove(node) => configuration.member(*node).is_none(),
        Change::Replace { new, .. } => configuration.is_learner(new.node),
    };
    assert!(is_made, "{request:?} was acknowledged, and came to {configuration:?}");
}
