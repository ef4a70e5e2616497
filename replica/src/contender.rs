//! Taking over: promise, gather promises, adopt the best log, open the epoch (DESIGN 7).

use std::collections::BTreeMap;
use std::sync::Arc;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::entry::{Body, Entry};
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::peer::{PeerMessage, Vote};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};

use crate::effects::{LogRecord, Notice, PersistId, StoodDown, Unwell};
use crate::leader::Leader;
use crate::pull::Pull;
use crate::replica::{Replica, Role};
use crate::state::StateView;
use crate::time::Timestamp;

/// A node that wants to open an epoch.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) epoch: Epoch,
    /// The batch that makes its own promise durable. Nobody is asked before.
    promised_by: PersistId,
    /// Who promised, with the last entry of its log and what it knew to be committed.
    grants: BTreeMap<NodeId, Grant>,
    phase: Phase,
    asked: Option<Timestamp>,
    /// When it last told those that have promised that it goes on.
    told: Timestamp,
    warned: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    last: EntryId,
    committed: Version,
}

#[derive(Debug)]
enum Phase {
    /// Waiting for a quorum of promises, in the newest configuration of its log.
    Gathering,
    /// Pulling the best log among those promised, up to this entry.
    Adopting { source: NodeId, best: EntryId },
    /// Its own log is the best; waiting until all of it is durable.
    Syncing,
}

impl<S: StateView> Replica<S> {
    /// The election chose this node.
    pub(crate) fn contend(&mut self, epoch: Epoch) {
        if !self.is_voter() {
            return self.out.notice(Notice::NotAVoter);
        }
        if self.integrity.is_damaged() {
            return self.out.notice(Notice::StoodDown { epoch, reason: StoodDown::Damaged });
        }
        if epoch <= self.promise || epoch <= self.highest_seen {
            let promise = self.promise.max(self.highest_seen);
            return self.out.notice(Notice::EpochTooLow { promise });
        }
        self.promise(epoch);
        debug_assert!(self.out.effects.log.contains(&LogRecord::Promise(epoch)));
        self.role = Role::Contender(Contender {
            epoch,
            promised_by: PersistId(self.persist.0 + 1),
            grants: BTreeMap::new(),
            phase: Phase::Gathering,
            asked: None,
            told: self.now,
            warned: self.now,
        });
        self.out.notice(Notice::Contending { epoch });
    }

    /// A member promised to follow, and said what its log holds.
    pub(crate) fn on_granted(&mut self, from: NodeId, epoch: Epoch, last: EntryId, committed: Version) {
        let Role::Contender(contender) = &mut self.role else { return };
        if contender.epoch != epoch {
            return;
        }
        if last.epoch >= epoch {
            return self.absurd(from, "its log holds entries of an epoch that was never opened");
        }
        contender.grants.insert(from, Grant { last, committed });
    }

    /// Takes every step of the takeover that is possible now.
    pub(crate) fn drive_contender(&mut self) {
        let me = self.me;
        let own = Grant { last: self.log.last_id(), committed: self.committed };
        if self.is_installing() && !Mutant::ContendsWhileInstalling.on() {
            // The log is about to be replaced: until it has been, there is nothing to compare with other logs.
            return;
        }
        let Role::Contender(contender) = &mut self.role else { return };
        if self.persisted < contender.promised_by && !Mutant::AsksBeforeOwnPromise.on() {
            return;
        }
        contender.grants.insert(me, own);
        if contender.asked.is_none() {
            self.ask_for_promises();
        }
        self.choose_log();
        self.adopted();
        self.open();
    }

    /// Adopts the best log among a quorum of those that promised, or takes its own if that is the best.
    fn choose_log(&mut self) {
        let (configuration, last) = (self.configurations.latest(), self.log.last_id());
        let Role::Contender(contender) = &mut self.role else { return };
        if !matches!(contender.phase, Phase::Gathering) || !contender.has_quorum(configuration) {
            return;
        }
        let (source, best) = contender.best();
        let is_better = if Mutant::BestLogByLength.on() { best.version > last.version } else { best > last };
        let is_better = is_better && !Mutant::BestLogNotAdopted.on();
        let behind = is_better.then(|| (source, best.version.since(last.version)));
        contender.phase = if behind.is_some() { Phase::Adopting { source, best } } else { Phase::Syncing };
        let (epoch, voters) = (contender.epoch, configuration.voters.len());
        let granted = configuration.count(|voter| contender.grants.contains_key(&voter));
        self.out.notice(Notice::Promises { epoch, granted, voters, behind });
        if behind.is_some() {
            self.pull = Some(Pull::new(source, epoch));
            self.fetch();
        }
    }

    /// Sends the request for a promise to every voter that has not given one.
    fn ask_for_promises(&mut self) {
        let configuration = self.configurations.latest();
        let Role::Contender(contender) = &mut self.role else { return };
        contender.asked = Some(self.now);
        let (epoch, configuration, voters) = (contender.epoch, configuration.id, &configuration.voters);
        for voter in voters.iter().filter(|voter| !contender.grants.contains_key(&voter.node)) {
            self.out.send(voter.node, PeerMessage::Vote(Vote::Lead { epoch, configuration }));
        }
    }

    /// A member can be reached that could not before: if its promise is missing, it need not wait for the next round.
    pub(crate) fn ask_again(&mut self, node: NodeId) {
        if let Role::Contender(contender) = &mut self.role
            && !contender.grants.contains_key(&node)
        {
            contender.asked = None;
        }
    }

    /// Ends the pull once the best log has been adopted. With it may have come another configuration, in which other
    /// promises count: the votes of a new leader are counted in the newest configuration of the log that it goes on from.
    fn adopted(&mut self) {
        let (configuration, last) = (self.configurations.latest(), self.log.last_id());
        let Role::Contender(contender) = &mut self.role else { return };
        if matches!(contender.phase, Phase::Adopting { best, .. } if last >= best) {
            let is_best = contender.has_quorum(configuration) && contender.best().1 <= last;
            contender.phase = if is_best { Phase::Syncing } else { Phase::Gathering };
            self.cancel_pull();
        }
    }

    /// Opens the epoch if nothing is missing any more.
    fn open(&mut self) {
        let Role::Contender(contender) = &self.role else { return };
        if !matches!(contender.phase, Phase::Syncing) || self.log.durable() < self.log.last() {
            return;
        }
        let epoch = contender.epoch;
        let grants: Vec<(NodeId, EntryId)> = contender
            .grants
            .iter()
            .filter(|(node, _)| **node != self.me)
            .map(|(&node, grant)| (node, grant.last))
            .collect();
        // What any of the quorum knew to be committed is in the log that was adopted from it.
        let committed = contender.grants.values().map(|grant| grant.committed).max().unwrap_or_default();
        let opening = EntryId::new(epoch, self.log.last().next());
        let (now, compared) = (self.now, self.now + self.settings.compare);
        let mut leader = Leader::new(epoch, opening.version, &self.peers(), opening.version, now, compared);
        for (node, last) in grants {
            leader.expect(node, self.log.last_possible_match(last));
        }
        if Mutant::OpeningSkipped.on() {
            leader.open_at_once();
        }
        self.role = Role::Leader(leader);
        self.commit(committed.min(self.log.last()));
        if !Mutant::OpeningSkipped.on() {
            self.append(Arc::new(Entry { id: opening, body: Body::Open }));
        }
    }

    /// The member whose log is being pulled does not answer: ask the others again.
    pub(crate) fn source_lost(&mut self) {
        let Role::Contender(contender) = &mut self.role else { return };
        if let Phase::Adopting { source, .. } = contender.phase {
            contender.grants.remove(&source);
            contender.phase = Phase::Gathering;
            contender.asked = None;
        }
    }

    pub(crate) fn tick_contender(&mut self) {
        let resend = self.settings.resend;
        let configuration = self.configurations.latest();
        let needed = configuration.quorum();
        let Role::Contender(contender) = &mut self.role else { return };
        let heard = configuration.count(|voter| contender.grants.contains_key(&voter));
        if heard < needed && self.now.since(contender.warned) >= self.settings.quorum_silence {
            contender.warned = self.now;
            self.out.notice(Notice::Unwell(Unwell::NoQuorum { heard, needed }));
        }
        let Role::Contender(contender) = &self.role else { return };
        if contender.asked.is_some_and(|asked| self.now.since(asked) >= resend) {
            self.ask_for_promises();
        }
        self.go_on();
    }

    /// Tells those that have promised, as often as a leader would, that this node is still at it: to catch up may take long, and
    /// who hears nothing takes it for gone. They answer with what they promised, or with what fences this node.
    fn go_on(&mut self) {
        let heartbeat = self.settings.heartbeat;
        let configuration = self.configurations.latest().id;
        let Role::Contender(contender) = &mut self.role else { return };
        if self.now.since(contender.told) < heartbeat {
            return;
        }
        contender.told = self.now;
        let epoch = contender.epoch;
        for &node in contender.grants.keys().filter(|&&node| node != self.me) {
            self.out.send(node, PeerMessage::Vote(Vote::Lead { epoch, configuration }));
        }
    }
}

impl Contender {
    /// The member whose log is being adopted.
    pub(crate) const fn source(&self) -> Option<NodeId> {
        match self.phase {
            Phase::Adopting { source, .. } => Some(source),
            Phase::Gathering | Phase::Syncing => None,
        }
    }

    /// The configuration changed with the log: there may be others to ask.
    pub(crate) const fn reconfigured(&mut self) {
        self.asked = None;
    }

    /// Whether a quorum of this configuration's voters has promised.
    fn has_quorum(&self, configuration: &Configuration) -> bool {
        configuration.is_quorum(|voter| self.grants.contains_key(&voter))
    }

    /// Where the best log among those that promised is, and its last entry.
    fn best(&self) -> (NodeId, EntryId) {
        let rank = |last: EntryId| {
            if Mutant::BestLogByLength.on() {
                (Epoch::ZERO, last.version)
            } else {
                (last.epoch, last.version)
            }
        };
        let best = self.grants.iter().max_by_key(|(node, grant)| (rank(grant.last), **node));
        let (&node, grant) = best.expect("a quorum is never empty");
        (node, grant.last)
    }
}
