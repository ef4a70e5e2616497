//! This node's own state: compared when the leader asks, and not used while it is damaged (DESIGN 8).
//!
//! What a node has voted for and promised is in its log, so a node whose state is damaged goes on voting. It shows nothing of the
//! state to anybody, does not lead, and applies nothing, until it has pulled the leader's state as a whole.

use std::mem;

use bytes::Bytes;
use quorumkv_mutants::Mutant;
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::peer::{Compare, Compared, Digest, MAX_COMPARED_BYTES};
use quorumkv_protocol::{EntryId, Epoch, ErrorCode, NodeId, Version};

use crate::effects::{Damage, DigestTask, Notice, StoodDown};
use crate::input::Recovered;
use crate::pull::Pull;
use crate::replica::{Replica, Role};
use crate::state::StateView;

/// What is known of this node's own state.
#[derive(Debug, Default)]
pub(crate) struct Integrity {
    /// While the state is damaged: what was committed here when that was found, and so all that may be on its way to the state.
    damaged: Option<Version>,
    /// In which way, if that is known: it was found since this node started.
    damage: Option<Damage>,
    /// What was found out and not acted upon yet.
    found: Option<Damage>,
    /// Whether it was said, by a node that has to go on with what it has.
    told: bool,
    /// The comparison that was asked for last, and this node's answer once it is there.
    asked: Option<(Epoch, u64)>,
    digest: Option<Digest>,
}

impl Integrity {
    /// Of a node that has just started. If it is the only one that votes, nobody could repair it.
    pub(crate) fn recover(recovered: &Recovered, is_alone: bool) -> Self {
        let damaged = (recovered.damaged && !is_alone).then_some(recovered.applied.version);
        let found = (recovered.damaged && is_alone).then_some(Damage::Unreadable);
        Self { damaged, found, ..Self::default() }
    }

    /// The state turned out to be damaged. That is acted upon at the end of the round.
    pub(crate) fn found(&mut self, damage: Damage) {
        self.found.get_or_insert(damage);
    }

    pub(crate) const fn is_damaged(&self) -> bool {
        self.damaged.is_some()
    }

    /// Whether the state is not what it should be, or not known not to be: a copy of it could not be told from a right one.
    pub(crate) fn misleads(&self) -> bool {
        self.is_damaged() && self.damage != Some(Damage::Unreadable)
    }

    /// Whether a snapshot of this version would replace everything of the damaged state.
    pub(crate) fn is_mended_by(&self, snapshot: Version) -> bool {
        self.damaged.is_some_and(|floor| snapshot >= floor)
    }
}

impl<S: StateView> Replica<S> {
    /// Whether what this node holds may be shown, and counts.
    pub(crate) fn shows_state(&self) -> bool {
        self.is_voter() && (!self.integrity.is_damaged() || Mutant::DamagedShowsState.on())
    }

    /// The leader wants a part of all states compared.
    pub(crate) fn compare(&mut self, epoch: Epoch, compare: &Compare) {
        let asked = Some((epoch, compare.round));
        if self.integrity.asked == asked {
            return;
        }
        (self.integrity.asked, self.integrity.digest) = (asked, None);
        let is_past = self.committed > compare.version;
        if !is_past && !self.integrity.is_damaged() && compare.bytes <= MAX_COMPARED_BYTES {
            self.out.effects.digest = Some(DigestTask { epoch, compare: compare.clone() });
        }
    }

    /// The answer to a comparison, if it is there.
    pub(crate) fn compared(&self, epoch: Epoch, compare: &Compare) -> Option<Compared> {
        let is_asked = self.integrity.asked == Some((epoch, compare.round));
        let digest = self.integrity.digest.filter(|_| is_asked)?;
        Some(Compared { round: compare.round, digest })
    }

    /// A part of this node's state was digested.
    pub(crate) fn digested(&mut self, epoch: Epoch, round: u64, digest: Digest, next: Option<Bytes>) {
        if self.integrity.is_damaged() {
            return;
        }
        match &mut self.role {
            Role::Leader(leader) if leader.epoch == epoch => {
                leader.comparison.digested(self.me, Compared { round, digest }, next);
            }
            _ if self.integrity.asked == Some((epoch, round)) => self.integrity.digest = Some(digest),
            _ => {}
        }
    }

    /// The leader says that a quorum holds another state than this node. That may be about a state which this node had before it
    /// was started again or repaired: so what counts is its answer as it is now.
    pub(crate) fn on_differs(&mut self, from: NodeId, epoch: Epoch, round: u64, right: Digest) {
        let is_current = epoch == self.promise && epoch.node() == from && matches!(self.role, Role::Follower);
        let is_wrong = self.integrity.digest.is_some_and(|mine| mine != right);
        if is_current && self.integrity.asked == Some((epoch, round)) && is_wrong {
            self.integrity.found(Damage::Differs);
        }
    }

    /// Sets the state aside if it was found to be damaged. Without other voters there is none to replace it by: then what can
    /// still be read of it is better than nothing.
    pub(crate) fn heed_damage(&mut self) {
        let Some(damage) = self.integrity.found.take() else { return };
        let is_alone = self.is_alone();
        if self.integrity.is_damaged() || (is_alone && self.integrity.told) {
            return;
        }
        self.integrity.told = is_alone;
        self.out.notice(Notice::Damaged(damage));
        if is_alone {
            return;
        }
        self.stand_down(StoodDown::Damaged);
        self.integrity.damaged = Some(if Mutant::RepairTooOld.on() { self.applied } else { self.committed });
        self.integrity.damage = Some(damage);
        self.integrity.digest = None;
        self.parked.clear();
        self.restart_reads();
        self.fail_barriers(ErrorCode::NotReady);
    }

    /// Whether no other node votes, by a configuration that may count.
    pub(crate) fn is_alone(&self) -> bool {
        let others = |known: &Configuration| known.count(|voter| voter != self.me);
        self.configurations.iter().any(|known| others(known) == 0)
    }

    /// Pulls the leader's state in the place of a damaged one, if that is not under way.
    pub(crate) fn begin_repair(&mut self) {
        if !self.integrity.is_damaged() || self.pull.is_some() || !matches!(self.role, Role::Follower) {
            return;
        }
        let Some(leader) = self.following.leader else { return };
        self.pull = Some(Pull::whole(leader, self.promise));
        self.out.notice(Notice::Restoring { source: leader });
        self.fetch();
    }

    /// A snapshot took the place of the state. If that was damaged, what was committed since follows.
    pub(crate) fn mended(&mut self, snapshot: EntryId) {
        // What was found in the state before, or answered about it, is not true of this one.
        let before = mem::take(&mut self.integrity);
        if !before.is_damaged() {
            return;
        }
        self.mark_applied(snapshot.version);
        if !Mutant::RepairAppliesNothing.on() {
            self.hand_to_state(snapshot.version.next());
        }
        self.out.notice(Notice::Repaired { snapshot });
    }
}
