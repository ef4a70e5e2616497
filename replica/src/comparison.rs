//! The leader's comparison of all states, part by part (DESIGN 8).
//!
//! In each round all replicas digest one part of their state after one entry: the leader's last, which nobody has committed yet
//! when it asks, so that nobody has gone past it. What a quorum of voters holds is right; who holds something else is told so,
//! and has its state replaced (see `integrity`). The next round takes the next part, or the same once more if something was
//! found.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorumkv_mutants::Mutant;
use quorumkv_protocol::NodeId;
use quorumkv_protocol::peer::{Compare, Compared, Digest, PeerMessage, Propagate};

use crate::effects::{Damage, DigestTask, Notice};
use crate::replica::{Replica, Role};
use crate::state::StateView;
use crate::time::Timestamp;

/// A round ends after this many of the pauses between rounds, or of heartbeats, which carry the answers, even if not all
/// have answered.
const PATIENCE: u32 = 5;

/// After the last part, this many pauses pass before the first is compared again.
const REST: u32 = 10;

/// How far the comparison of the states has come.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Rounds so far.
    rounds: u64,
    /// Where the part begins that comes next.
    begin: Bytes,
    under_way: Option<Round>,
    /// When the next round may begin.
    due: Timestamp,
}

#[derive(Debug)]
struct Round {
    ask: Compare,
    started: Timestamp,
    /// Where the part after this one begins, once the leader's own digest is there.
    next: Option<Bytes>,
    digests: BTreeMap<NodeId, Digest>,
}

impl Comparison {
    pub(crate) const fn new(due: Timestamp) -> Self {
        Self { rounds: 0, begin: Bytes::new(), under_way: None, due }
    }

    /// What all replicas are to compare now.
    pub(crate) fn ask(&self) -> Option<Compare> {
        self.under_way.as_ref().map(|round| round.ask.clone())
    }

    /// A replica answered.
    pub(crate) fn answered(&mut self, node: NodeId, compared: Compared) {
        if let Some(round) = self.under_way.as_mut().filter(|round| round.ask.round == compared.round) {
            round.digests.insert(node, compared.digest);
        }
    }

    /// A replica may have been started anew, from another state than it spoke of.
    pub(crate) fn forget(&mut self, node: NodeId) {
        if let Some(round) = &mut self.under_way {
            round.digests.remove(&node);
        }
    }

    /// The leader's own state was digested.
    pub(crate) fn digested(&mut self, me: NodeId, compared: Compared, next: Option<Bytes>) {
        self.answered(me, compared);
        if let Some(round) = self.under_way.as_mut().filter(|round| round.ask.round == compared.round) {
            // After the last part comes the first.
            round.next = Some(next.unwrap_or_default());
        }
    }
}

impl<S: StateView> Replica<S> {
    /// Begins a round if it is time for one. Called when heartbeats are about to be sent, so that they carry it.
    pub(crate) fn begin_comparison(&mut self) {
        let (now, version) = (self.now, self.log.last());
        let Role::Leader(leader) = &mut self.role else { return };
        let is_alone = leader.progress.is_empty();
        let epoch = leader.epoch;
        let is_established = leader.is_established();
        let comparison = &mut leader.comparison;
        if is_alone || !is_established || comparison.under_way.is_some() || now < comparison.due {
            return;
        }
        comparison.rounds += 1;
        let (round, begin) = (comparison.rounds, comparison.begin.clone());
        let ask = Compare { round, version, begin, bytes: self.settings.compare_bytes };
        self.out.effects.digest = Some(DigestTask { epoch, compare: ask.clone() });
        comparison.under_way = Some(Round { ask, started: now, next: None, digests: BTreeMap::new() });
    }

    /// Ends the round if all that can have answered, or if it has taken too long.
    pub(crate) fn judge_comparison(&mut self) {
        let (now, period, me) = (self.now, self.settings.compare, self.me);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(round) = &leader.comparison.under_way else { return };
        let mut asked = leader.progress.keys().filter(|node| self.links.contains(node)).chain([&me]);
        let is_complete = asked.all(|node| round.digests.contains_key(node));
        let patience = period.max(self.settings.heartbeat) * PATIENCE;
        if !is_complete && now.since(round.started) < patience {
            return;
        }
        leader.comparison.due = now + period;
        let Some(round) = leader.comparison.under_way.take() else { return };
        let (epoch, version) = (leader.epoch, round.ask.version);
        let groups = agreeing(&round.digests);
        let configuration = self.configurations.latest();
        let is_right = |group: &Vec<NodeId>| {
            let is_leaders = Mutant::LeaderIsRight.on() && group.contains(&me);
            is_leaders
                || (!Mutant::LeaderIsRight.on() && configuration.is_quorum(|voter| group.contains(&voter)))
        };
        let right = groups.iter().find(|(_, group)| is_right(group)).map(|(&digest, _)| digest);
        // What a quorum agrees on is compared again if somebody differs; what nobody can decide is not, so that the rest is.
        if let (true, Some(next)) = (right.is_some() == (groups.len() == 1), round.next) {
            if next.is_empty() {
                leader.comparison.due = now + period * REST;
            }
            leader.comparison.begin = next;
        }
        let Some(right) = right else {
            if groups.len() > 1 {
                self.out.notice(Notice::Undecided { groups: groups.into_values().collect(), version });
            }
            return;
        };
        for node in groups.into_iter().filter(|(digest, _)| *digest != right).flat_map(|(_, group)| group) {
            self.out.notice(Notice::Differs { node, version });
            if node == me {
                self.integrity.found(Damage::Differs);
            } else {
                let differs = Propagate::Differs { epoch, round: round.ask.round, right };
                self.out.send(node, PeerMessage::Propagate(differs));
            }
        }
    }
}

/// The replicas, with those that agree side by side.
fn agreeing(digests: &BTreeMap<NodeId, Digest>) -> BTreeMap<Digest, Vec<NodeId>> {
    let mut groups: BTreeMap<Digest, Vec<NodeId>> = BTreeMap::new();
    for (&node, &digest) in digests {
        groups.entry(digest).or_default().push(node);
    }
    groups
}
