//! What this node is to the cluster: how its place changes with the log, and how a node learns that it has none.
//!
//! A node takes its part from the newest configuration of its own log, and yet must not shut itself off from others
//! because of it: that configuration may be dropped again, or be outdated (Ongaro 2014, §4.2). So everybody follows
//! whoever leads, and who votes in any configuration that may yet count, from the committed one on, grants to whoever
//! asks. Votes are counted by who asked for them, in its own newest configuration. Only what is committed is certain: a
//! node that is no member of the committed configuration, and names one that cannot count any more, is told so and comes
//! to rest, or it would fence leaders for ever.

use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::peer::{PeerMessage, ReadSample};
use quorumkv_protocol::{EntryId, NodeId};

use crate::effects::Notice;
use crate::replica::{Replica, Role};
use crate::state::StateView;

impl<S: StateView> Replica<S> {
    /// The other members.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.configuration().members().map(|member| member.node).filter(|&node| node != self.me).collect()
    }

    /// Whether this node's own log and answers count.
    pub(crate) fn is_voter(&self) -> bool {
        self.removed.is_none() && !self.disowned && self.configuration().is_voter(self.me)
    }

    /// Whether this node belongs to the cluster by any configuration that may yet count.
    pub(crate) fn is_member(&self) -> bool {
        let mut known = self.configurations.iter();
        self.removed.is_none() && !self.disowned && known.any(|known| known.member(self.me).is_some())
    }

    /// Another configuration counts from now on: the newest was appended, or dropped.
    pub(crate) fn reconfigured(&mut self) {
        self.disowned = false;
        let id = self.configuration().id;
        self.out.notice(Notice::Reconfigured { id });
        match &mut self.role {
            Role::Follower => {}
            Role::Contender(contender) => contender.reconfigured(),
            Role::Leader(leader) => {
                leader.reconfigured(self.configurations.latest(), self.me, self.log.last(), self.now);
            }
        }
        self.restart_reads();
    }

    /// More of the log is committed, and perhaps configurations with it.
    pub(crate) fn commit_configurations(&mut self) {
        let past = self.configurations.commit(self.committed);
        if !past.is_empty() {
            self.configuration_committed(&past);
        }
    }

    /// A snapshot took the place of the log.
    pub(crate) fn reset_configurations(&mut self) {
        let (latest, committed) = (self.configuration().id, self.configurations.committed().id);
        self.configurations.reset(self.state.configuration());
        let id = self.configuration().id;
        if id != latest {
            self.reconfigured();
        }
        if id != committed {
            self.configuration_committed(&[]);
        }
    }

    fn configuration_committed(&mut self, past: &[Configuration]) {
        let committed = self.configurations.committed();
        let mut known = past.iter().chain([committed]);
        self.was_member |= known.any(|known| known.member(self.me).is_some());
        self.out.notice(Notice::ConfigurationCommitted { id: committed.id });
    }

    /// Leaves if this node's own log says that it was removed. A log that lacks something of the leader's does not: the node
    /// may have been added again since.
    pub(crate) fn leave_if_removed(&mut self) {
        let is_news = self.removed.is_none() && !self.disowned && self.was_member && !self.is_member();
        let holds_all = self.committed >= self.following.committed && self.log.last() >= self.following.last;
        if is_news && (holds_all || matches!(self.role, Role::Leader(_))) {
            self.leave(self.configurations.committed().id);
        }
    }

    /// Whether to promise to a contender that counts votes in this configuration.
    ///
    /// A learner has no vote to give, but a contender with a newer configuration may know that it is a voter by now.
    pub(crate) fn may_promise(&self, configuration: EntryId) -> bool {
        let mut known = self.configurations.iter();
        let votes = known.any(|known| known.is_voter(self.me));
        let may_vote = self.is_member() && configuration > self.configurations.committed().id;
        self.removed.is_none() && (votes || may_vote)
    }

    /// The committed configuration that does not have the asker, if the one that it names cannot count any more: its place in
    /// the log is decided, or it is of an epoch that is over there, as epochs in a log never decrease.
    pub(crate) fn excluding(&self, asker: NodeId, its: EntryId) -> Option<EntryId> {
        let committed = self.configurations.committed();
        let is_past = its.version <= self.committed || its <= self.committed_id();
        (is_past && committed.member(asker).is_none()).then_some(committed.id)
    }

    /// Somebody knows that this node is no member by this committed configuration, and that the one that it named cannot count.
    pub(crate) fn on_not_member(&mut self, since: EntryId, named: EntryId) {
        let latest = self.configuration();
        let hears_leader =
            matches!(self.role, Role::Follower) && self.following.heard > self.following.inquired;
        if !self.is_member() || named != latest.id || hears_leader {
            // It may have been added again since it asked. A leader tells it by its log what it is.
            return;
        }
        if since > latest.id || (since == latest.id && latest.member(self.me).is_none()) {
            self.leave(since);
        } else if matches!(self.role, Role::Follower) {
            // Its addition was dropped, and nobody will tell it to drop its own entry: it is as new as it was before.
            self.disowned = true;
            self.restart_reads();
        }
    }

    /// This node belongs to the cluster no longer. Nothing that it does counts from now on.
    fn leave(&mut self, since: EntryId) {
        self.removed = Some(since);
        self.parked.clear();
        self.out.notice(Notice::Removed { since });
        self.restart_reads();
    }

    /// A member that has not heard from a leader for long asks whom it reaches whether it still is one.
    pub(crate) fn tick_membership(&mut self) {
        let silence = self.settings.quorum_silence;
        let last = self.following.heard.max(self.following.inquired);
        if matches!(self.role, Role::Leader(_)) || !self.is_member() || self.now.since(last) < silence {
            return;
        }
        self.following.inquired = self.now;
        let configuration = self.configuration().id;
        for &peer in &self.links {
            let ask = ReadSample { configuration, pass: None, keys: Vec::new() };
            self.out.send(peer, PeerMessage::ReadSample(ask));
        }
    }
}
