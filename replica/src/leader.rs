//! Leading an epoch: evaluate, replicate, commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::client::WriteRequest;
use quorumkv_protocol::entry::{Body, Entry, EvaluatedWrite};
use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::peer::{Append, AppendReply, Heartbeat, HeartbeatReply, PeerMessage, Propagate, Vote};
use quorumkv_protocol::{EntryId, Epoch, ErrorCode, NodeId, RequestId, Version};

use crate::comparison::Comparison;
use crate::effects::{Damage, LogPurpose, LogRead, Notice, Reply, Task, Unwell};
use crate::input::Token;
use crate::log::footprint;
use crate::progress::{Phase, Progress};
use crate::replica::{Replica, Role};
use crate::requests::{Done, Known};
use crate::state::StateView;
use crate::time::Timestamp;
use crate::waiting::written;

/// The leader of an epoch.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) epoch: Epoch,
    /// The version of the epoch's opening entry.
    pub(crate) opening: Version,
    established: bool,
    /// All other members, and those that are being removed.
    pub(crate) progress: BTreeMap<NodeId, Progress>,
    heartbeat_due: Timestamp,
    warned: Timestamp,
    pub(crate) comparison: Comparison,
}

impl Leader {
    pub(crate) fn new(
        epoch: Epoch,
        opening: Version,
        peers: &[NodeId],
        next: Version,
        now: Timestamp,
        compared: Timestamp,
    ) -> Self {
        let progress = peers.iter().map(|&peer| (peer, Progress::new(next, now))).collect();
        let comparison = Comparison::new(compared);
        Self { epoch, opening, established: false, progress, heartbeat_due: now, warned: now, comparison }
    }

    /// A replica's log probably meets the leader's at `here`; `None`: before all that the leader's log still holds.
    pub(crate) fn expect(&mut self, node: NodeId, here: Option<EntryId>) {
        if let Some(progress) = self.progress.get_mut(&node) {
            progress.probe_after(here.unwrap_or(EntryId::ZERO));
        }
    }

    /// Another configuration counts from its entry on, which is the last of the log.
    pub(crate) fn reconfigured(
        &mut self,
        configuration: &Configuration,
        me: NodeId,
        last: Version,
        now: Timestamp,
    ) {
        for (&node, progress) in &mut self.progress {
            let is_member = configuration.member(node).is_some();
            progress.leaving = (!is_member).then(|| progress.leaving.unwrap_or(last));
        }
        for member in configuration.members().filter(|member| member.node != me) {
            self.progress.entry(member.node).or_insert_with(|| Progress::new(last, now));
        }
    }

    /// Leads without an opening entry.
    pub(crate) const fn open_at_once(&mut self) {
        self.established = true;
    }

    /// Whether the opening entry is committed.
    pub(crate) const fn is_established(&self) -> bool {
        self.established
    }
}

impl<S: StateView> Replica<S> {
    /// A client wants to change something.
    pub(crate) fn write(&mut self, token: Token, request: WriteRequest, deadline: Timestamp) {
        match &self.role {
            _ if self.removed.is_some() => self.refuse(token, ErrorCode::NotMember),
            Role::Follower => self.out.answer(token, Reply::NotLeader { leader: self.following.leader }),
            Role::Leader(leader) if leader.established => self.propose(token, request, deadline),
            Role::Contender(_) | Role::Leader(_) if self.queued.len() >= self.settings.reads => {
                self.refuse(token, ErrorCode::Overloaded);
            }
            Role::Contender(_) | Role::Leader(_) => self.queued.push((token, request, deadline)),
        }
    }

    /// Gives up writes for which the epoch was not established in time: nothing of them was logged.
    pub(crate) fn expire_queued(&mut self) {
        for (token, ..) in self.queued.extract_if(.., |&mut (_, _, deadline)| deadline <= self.now) {
            let failed = Reply::Failed { code: ErrorCode::NoQuorum, differing: None, evidence: None };
            self.out.answer(token, failed);
        }
    }

    /// Gives a request its place in the log, unless it has one already.
    fn propose(&mut self, token: Token, request: WriteRequest, deadline: Timestamp) {
        if self.is_known(token, request.request, request.since, deadline) {
            return;
        }
        if self.is_full() {
            return self.refuse(token, ErrorCode::Overloaded);
        }
        if request.write.value().is_some() && self.is_disk_full() {
            return self.refuse(token, ErrorCode::DiskFull);
        }
        let Ok((effects, outcome)) = self.evaluate(request.write) else {
            return self.cannot_evaluate(token);
        };
        let id = EntryId::new(self.promise, self.log.last().next());
        let write = EvaluatedWrite {
            request: request.request,
            floor: request.floor.min(request.request.sequence),
            effects,
            outcome,
        };
        let entry = Arc::new(Entry { id, body: Body::Write(write) });
        if Mutant::AnsweredBeforeCommit.on() {
            self.out.answer(token, written(&entry));
        } else {
            self.waiting.add(token, id, request.request, deadline);
        }
        self.append(entry);
    }

    /// The state is damaged where a request needs to see it. Where there are others, one of them is about to lead.
    fn cannot_evaluate(&mut self, token: Token) {
        self.integrity.found(Damage::Unreadable);
        if self.is_alone() {
            self.refuse(token, ErrorCode::Corruption);
        } else {
            self.out.answer(token, Reply::NotLeader { leader: None });
        }
    }

    /// Whether the request has its place in the log, or had it: then it is answered with what it came to, as soon as that
    /// is committed.
    pub(crate) fn is_known(
        &mut self,
        token: Token,
        request: RequestId,
        since: Version,
        deadline: Timestamp,
    ) -> bool {
        let under_way = self.overlay.request(request).filter(|_| !Mutant::UnderWayNotLookedUp.on());
        if let Some(version) = under_way {
            let entry = self.log.entry(version).expect("the overlay speaks of entries in memory");
            if version <= self.committed || Mutant::RetryAnsweredEarly.on() {
                self.out.answer(token, written(entry));
            } else {
                self.waiting.add(token, entry.id, request, deadline);
            }
            return true;
        }
        match self.state.lookup(request, since) {
            _ if Mutant::ResultsNotLookedUp.on() => return false,
            Known::Done(Done { version, outcome }) => {
                self.out.answer(token, Reply::Written { outcome, version });
            }
            Known::Expired => self.refuse(token, ErrorCode::RequestExpired),
            Known::Fresh => return false,
        }
        true
    }

    /// Whether the disk of this node, or of a voter that was heard lately, is nearly full. One is enough: a node whose
    /// log cannot grow ends, and the cluster would lose its nodes one by one.
    fn is_disk_full(&self) -> bool {
        let silence = self.settings.quorum_silence;
        let Role::Leader(leader) = &self.role else { return self.disk_full };
        let is_full = |(&node, peer): (&NodeId, &Progress)| {
            peer.disk_full && self.now.since(peer.heard) < silence && self.configuration().is_voter(node)
        };
        self.disk_full || leader.progress.iter().any(is_full)
    }

    pub(crate) fn refuse(&mut self, token: Token, code: ErrorCode) {
        self.out.answer(token, Reply::Failed { code, differing: None, evidence: None });
    }

    /// Commits what enough replicas hold, and sends everybody what they miss.
    pub(crate) fn drive_leader(&mut self) {
        self.advance_commit();
        self.drive_replacements();
        self.judge_comparison();
        let Role::Leader(leader) = &self.role else { return };
        let peers: Vec<NodeId> =
            leader.progress.keys().copied().filter(|node| self.links.contains(node)).collect();
        for peer in peers {
            self.replicate(peer);
        }
        // Who was removed for certain has been told so now, if it could be. If not, it will ask.
        let Role::Leader(leader) = &mut self.role else { return };
        leader.progress.retain(|_, progress| progress.leaving.is_none_or(|removed| removed > self.committed));
    }

    /// The commit rule: an entry of this epoch that is durable on a quorum commits everything up to it. Votes count in the
    /// newest configuration of the log, committed or not. The leader's own log counts when it is durable, and is not
    /// needed; if the leader has removed itself, it does not count.
    fn advance_commit(&mut self) {
        let configuration = if Mutant::CountsInCommitted.on() {
            self.configurations.committed()
        } else {
            self.configurations.latest()
        };
        let Role::Leader(leader) = &mut self.role else { return };
        let durable_at = |voter: &Member| match leader.progress.get(&voter.node) {
            Some(progress) => progress.matched,
            None if voter.node == self.me && Mutant::LeaderCountsUnsynced.on() => self.log.last(),
            None if voter.node == self.me => self.log.durable(),
            None => Version::ZERO,
        };
        let learners = configuration.learners.iter().filter(|_| Mutant::LearnersCount.on());
        let mut durable: Vec<Version> = configuration.voters.iter().chain(learners).map(durable_at).collect();
        durable.sort_unstable_by(|a, b| b.cmp(a));
        let version = durable[configuration.quorum() - 1];
        let is_own = version >= leader.opening || Mutant::CommitsOldEpochByCounting.on();
        if version <= self.committed || !is_own {
            return;
        }
        let (epoch, opening) = (leader.epoch, leader.opening);
        let newly_established = !leader.established;
        leader.established = true;
        self.commit(version);
        if newly_established {
            self.out.notice(Notice::Established { epoch, opening });
        }
        // Who leads only until its own removal was committed takes nothing more.
        if newly_established && self.removed.is_none() {
            for (token, request, deadline) in std::mem::take(&mut self.queued) {
                if deadline > self.now {
                    self.propose(token, request, deadline);
                } else {
                    self.refuse(token, ErrorCode::NoQuorum);
                }
            }
        }
    }

    /// Sends one replica what it misses, as far as its pipeline permits.
    fn replicate(&mut self, to: NodeId) {
        let base = self.log.base();
        loop {
            let Role::Leader(leader) = &mut self.role else { return };
            let Some(progress) = leader.progress.get_mut(&to) else { return };
            if !progress.may_send(self.log.last(), self.settings.pipeline, self.now, self.settings.resend) {
                break;
            }
            let next = progress.next;
            if next <= base.version {
                progress.phase = Phase::Restoring { told: self.now };
                self.out.notice(Notice::TooFarBehind { node: to });
                return self.out.send(to, PeerMessage::Propagate(Propagate::Restore { epoch: leader.epoch }));
            }
            if next <= self.log.last() && next < self.log.first_in_memory() {
                if !progress.reading {
                    progress.reading = true;
                    let purpose = LogPurpose::Stream { epoch: leader.epoch };
                    let max_bytes = self.settings.append_bytes;
                    self.out.effects.tasks.push(Task::ReadLog(LogRead {
                        from: next,
                        max_bytes,
                        to,
                        purpose,
                    }));
                }
                break;
            }
            let entries = self.entries_from(next, self.settings.append_bytes);
            self.send_entries(to, entries);
        }
        self.tell_commit(to);
    }

    /// Sends `entries`, which begin with the next that the replica misses.
    fn send_entries(&mut self, to: NodeId, entries: Vec<Arc<Entry>>) {
        let committed = self.committed;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let previous =
            self.log.id_at(progress.next.previous()).expect("the log reaches back to what is sent");
        let upto = entries.last().map_or(previous.version, |entry| entry.id.version);
        progress.sent(upto, committed, self.now);
        let append = Append { epoch: leader.epoch, previous, entries, committed };
        // Nothing is left to vote on if all of it is committed already.
        let message = if upto <= committed && !append.entries.is_empty() {
            PeerMessage::Propagate(Propagate::Entries(append))
        } else {
            PeerMessage::Vote(Vote::Write(append))
        };
        self.out.send(to, message);
    }

    /// Tells a replica that keeps up what is committed, if no append has.
    fn tell_commit(&mut self, to: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        if progress.phase == Phase::Streaming && progress.told < self.committed {
            progress.told = self.committed;
            let told = Propagate::Committed { epoch: leader.epoch, committed: self.committed };
            self.out.send(to, PeerMessage::Propagate(told));
        }
    }

    /// Entries in memory from `first` on, about `max_bytes` of them, and at least one if there is one.
    pub(crate) fn entries_from(&self, first: Version, max_bytes: usize) -> Vec<Arc<Entry>> {
        let (mut entries, mut bytes, mut version) = (Vec::new(), 0, first);
        while let Some(entry) = self.log.entry(version) {
            bytes += footprint(entry);
            if !entries.is_empty()
                && (bytes > max_bytes || entries.len() == quorumkv_protocol::peer::MAX_ENTRIES)
            {
                break;
            }
            entries.push(Arc::clone(entry));
            version = version.next();
        }
        entries
    }

    /// Entries came from the disk.
    pub(crate) fn log_read(&mut self, read: &LogRead, entries: Vec<Arc<Entry>>) {
        match read.purpose {
            LogPurpose::Fetch { correlation, epoch } => {
                self.serve_fetched(read.to, correlation, epoch, entries);
            }
            LogPurpose::Stream { epoch } => {
                let Role::Leader(leader) = &mut self.role else { return };
                if leader.epoch != epoch {
                    return;
                }
                let Some(progress) = leader.progress.get_mut(&read.to) else { return };
                progress.reading = false;
                // The log may have been trimmed since: then the replica needs a snapshot.
                let reaches = read.from > self.log.base().version || Mutant::SendsWhatWasTrimmed.on();
                let wanted = progress.next == read.from && self.links.contains(&read.to);
                if reaches && wanted {
                    if entries.is_empty() {
                        // The log cannot be read there: look again after a while.
                        progress.phase = Phase::Probing { sent: Some(self.now) };
                    } else {
                        self.send_entries(read.to, entries);
                    }
                }
            }
        }
    }

    /// A replica answered an append.
    pub(crate) fn on_append_reply(&mut self, from: NodeId, reply: &AppendReply) {
        let last = self.log.last();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        match *reply {
            AppendReply::Accepted { epoch, durable } if epoch == leader.epoch => {
                if durable > last {
                    return self.absurd(from, "it holds more than the leader ever sent");
                }
                progress.heard = self.now;
                progress.accepted(durable, self.now);
            }
            AppendReply::Diverged { epoch, at, hint } if epoch == leader.epoch => {
                progress.heard = self.now;
                // Where the logs meet before all that this one still holds, only a snapshot helps.
                let here = self.log.last_possible_match(hint).unwrap_or(EntryId::ZERO);
                if here.version < at && progress.diverged(at, here) {
                    self.out.notice(Notice::Diverged { node: from, from: here.version });
                }
            }
            AppendReply::Accepted { .. } | AppendReply::Diverged { .. } => {}
        }
    }

    /// A replica answered a heartbeat.
    pub(crate) fn on_heartbeat_reply(&mut self, from: NodeId, reply: &HeartbeatReply) {
        let resend = self.settings.resend;
        self.on_promise_seen(from, reply.epoch, reply.promise);
        let Role::Leader(leader) = &mut self.role else { return };
        if reply.epoch != leader.epoch {
            return;
        }
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.heard = self.now;
        progress.disk_full = reply.disk_full;
        progress.damaged = reply.damaged;
        if let Some(compared) = reply.compared {
            leader.comparison.answered(from, compared);
        }
        let Phase::Restoring { told } = &mut progress.phase else { return };
        if reply.durable.version >= self.log.base().version && self.log.holds(reply.durable) {
            progress.probe_after(reply.durable);
        } else if !reply.restoring && self.now.since(*told) >= resend {
            *told = self.now;
            self.out.send(from, PeerMessage::Propagate(Propagate::Restore { epoch: leader.epoch }));
        }
    }

    /// The link to a replica broke.
    pub(crate) fn leader_lost_link(&mut self, node: NodeId) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&node)
        {
            progress.disconnected();
            leader.comparison.forget(node);
        }
    }

    pub(crate) fn tick_leader(&mut self) {
        let (now, resend) = (self.now, self.settings.resend);
        let Role::Leader(leader) = &mut self.role else { return };
        for progress in leader.progress.values_mut().filter(|progress| progress.is_stuck(now, resend)) {
            progress.disconnected();
        }
        if now >= leader.heartbeat_due {
            leader.heartbeat_due = now + self.settings.heartbeat;
            self.begin_comparison();
            self.send_heartbeats();
        }
        self.check_own_health();
    }

    fn send_heartbeats(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let heartbeat = Heartbeat {
            epoch: leader.epoch,
            committed: self.committed,
            last: self.log.last(),
            compare: leader.comparison.ask(),
        };
        for &node in leader.progress.keys() {
            self.out.send(node, PeerMessage::Heartbeat(heartbeat.clone()));
        }
    }

    /// Says so if another node would serve better.
    fn check_own_health(&mut self) {
        let (silence, stall) = (self.settings.quorum_silence, self.settings.sync_stall);
        let configuration = self.configurations.latest();
        let needed = configuration.quorum();
        let Role::Leader(leader) = &self.role else { return };
        if self.now.since(leader.warned) < silence {
            return;
        }
        let is_heard = |peer: &Progress| self.now.since(peer.heard) < silence;
        let heard = configuration
            .count(|voter| voter == self.me || leader.progress.get(&voter).is_some_and(is_heard));
        let stalled = self.persist_started.front().map(|&started| self.now.since(started));
        let unwell = match stalled {
            _ if heard < needed => Unwell::NoQuorum { heard, needed },
            Some(stalled) if stalled >= stall => Unwell::LogStalled(stalled),
            _ if self.disk_full && self.has_roomier_voter() => Unwell::DiskFull,
            _ => return,
        };
        if let Role::Leader(leader) = &mut self.role {
            leader.warned = self.now;
        }
        self.out.notice(Notice::Unwell(unwell));
    }

    /// Whether another voter keeps up, and has room on its disk.
    fn has_roomier_voter(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let has_room = |peer: &Progress| {
            !peer.disk_full
                && self.now.since(peer.heard) < self.settings.quorum_silence
                && self.log.last().since(peer.matched) <= self.settings.catch_up
        };
        self.configuration().count(|voter| leader.progress.get(&voter).is_some_and(has_room)) > 0
    }
}
