//! One replica: what all roles share, and who handles what.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::client::WriteRequest;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::peer::{PeerEnvelope, PeerMessage, Propagate, PropagateReply, Vote, VoteReply};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};

use crate::configurations::Configurations;
use crate::contender::Contender;
use crate::effects::{Damage, Effects, LogRecord, Notice, PersistId, Reply, StoodDown};
use crate::input::{Input, Recovered, Settings, Token};
use crate::integrity::Integrity;
use crate::leader::Leader;
use crate::log::Log;
use crate::outbox::Outbox;
use crate::overlay::Overlay;
use crate::pull::{Chunks, Pull};
use crate::reads::Reader;
use crate::samples::Parked;
use crate::state::StateView;
use crate::suspicion::Suspicion;
use crate::time::Timestamp;
use crate::waiting::Waiting;

/// A replica of the store: told what happened, it says what to do.
///
/// The shell calls [`handle`](Self::handle) for everything that has happened and then [`flush`](Self::flush) once, so
/// that all that came together goes out together: one append for many writes, one sample for many reads.
pub struct Replica<S> {
    pub(crate) me: NodeId,
    pub(crate) configurations: Configurations,
    /// The configuration that no longer has this node, once it is certain that it was removed.
    pub(crate) removed: Option<EntryId>,
    /// Whether the configuration that made this node a member was dropped, as others know; until a leader speaks to it.
    pub(crate) disowned: bool,
    /// Whether a committed configuration that this process has seen had this node.
    pub(crate) was_member: bool,
    pub(crate) settings: Settings,
    pub(crate) state: S,
    pub(crate) now: Timestamp,
    /// The highest epoch that this replica follows or leads; it accepts nothing from lower ones.
    pub(crate) promise: Epoch,
    /// The highest epoch that anybody has mentioned: the election must allocate a higher one.
    pub(crate) highest_seen: Epoch,
    pub(crate) log: Log,
    pub(crate) overlay: Overlay,
    pub(crate) committed: Version,
    pub(crate) applied: Version,
    pub(crate) role: Role,
    pub(crate) following: Following,
    pub(crate) suspicion: Suspicion,
    pub(crate) pull: Option<Pull>,
    pub(crate) chunks: Chunks,
    pub(crate) integrity: Integrity,
    /// Peers that requests reach.
    pub(crate) links: BTreeSet<NodeId>,
    /// Whether the disk of this node is nearly full.
    pub(crate) disk_full: bool,
    pub(crate) waiting: Waiting,
    /// Writes that came while this node was about to lead.
    pub(crate) queued: Vec<(Token, WriteRequest, Timestamp)>,
    pub(crate) reader: Reader,
    pub(crate) parked: Vec<Parked>,
    /// The last batch that went to the disk, and when those that are not back yet went.
    pub(crate) persist: PersistId,
    pub(crate) persisted: PersistId,
    pub(crate) persist_started: VecDeque<Timestamp>,
    pub(crate) out: Outbox,
}

/// What the replica is doing about the epoch in `promise`.
#[derive(Debug)]
pub(crate) enum Role {
    Follower,
    Contender(Contender),
    Leader(Leader),
}

/// What a follower knows of the leader of the epoch that it promised.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// The leader, once it has been heard.
    pub(crate) leader: Option<NodeId>,
    /// When it was last heard.
    pub(crate) heard: Timestamp,
    /// When this node last asked whether it still is a member, because it had not heard the leader for long.
    pub(crate) inquired: Timestamp,
    /// Its last version, as it last said.
    pub(crate) last: Version,
    /// What it, or a leader before it, has said to be committed.
    pub(crate) committed: Version,
    /// Up to here the log is known to equal the leader's.
    pub(crate) matched: Version,
    /// When the state last held everything that the leader had said to be committed.
    pub(crate) fresh: Option<Timestamp>,
}

impl<S: StateView> Replica<S> {
    /// A replica that was just started. It is a member if the configuration of its log says so; else it waits, promises
    /// nothing and answers no samples until a leader has made it one. A node that lost what it had on disk is a new node:
    /// it must not start with its old identity, whose promises and votes it has forgotten.
    ///
    /// # Panics
    /// If `recovered` contradicts itself or the state.
    pub fn new(me: NodeId, recovered: &Recovered, state: S, settings: Settings) -> Self {
        let log = Log::recover(recovered);
        let applied = state.configuration();
        assert!(
            applied.id.version <= recovered.applied.version,
            "the state has no configuration from after it"
        );
        let mut overlay = Overlay::default();
        for entry in &recovered.unapplied {
            overlay.add(entry);
        }
        let promised = if Mutant::PromiseForgotten.on() { Epoch::ZERO } else { recovered.promise };
        let promise = promised.max(recovered.last.epoch);
        let was_member = applied.member(me).is_some();
        let configurations = Configurations::recover(applied, &recovered.unapplied);
        let is_alone = configurations.latest().count(|voter| voter != me) == 0;
        Self {
            me,
            configurations,
            removed: None,
            disowned: false,
            was_member,
            settings,
            state,
            now: Timestamp::ZERO,
            promise,
            highest_seen: promise,
            log,
            overlay,
            committed: recovered.applied.version,
            applied: recovered.applied.version,
            role: Role::Follower,
            following: Following::default(),
            suspicion: Suspicion::default(),
            pull: None,
            chunks: Chunks::default(),
            integrity: Integrity::recover(recovered, is_alone),
            links: BTreeSet::new(),
            disk_full: false,
            waiting: Waiting::default(),
            queued: Vec::new(),
            reader: Reader::default(),
            parked: Vec::new(),
            persist: PersistId::default(),
            persisted: PersistId::default(),
            persist_started: VecDeque::new(),
            out: Outbox::default(),
        }
    }

    /// Takes in something that happened at `now`.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Tick => self.tick(),
            Input::Message { from, envelope } => self.receive(from, envelope),
            Input::PeerUp(node) => {
                self.links.insert(node);
                self.ask_again(node);
            }
            Input::PeerDown(node) => self.peer_down(node),
            Input::PeerRefused(node) => self.peer_refused(node),
            Input::Persisted(id) => {
                self.log.persisted(id);
                while self.persisted < id {
                    self.persisted.0 += 1;
                    self.persist_started.pop_front();
                }
            }
            Input::Applied(version) => self.mark_applied(version),
            Input::Trimmed(base) => self.log.trim(base),
            Input::Lead { counter } => self.contend(Epoch::new(counter, self.me)),
            Input::StandDown => self.stand_down(StoodDown::Told),
            Input::DiskFull(full) => self.disk_full = full,
            Input::Write { token, request, deadline } => self.write(token, request, deadline),
            Input::Change { token, request, dry_run, deadline } => {
                self.change(token, &request, dry_run, deadline);
            }
            Input::Read { token, key, evidence, deadline } => self.read(token, key, evidence, deadline),
            Input::Barrier { token, deadline } => self.barrier(token, deadline),
            Input::LogRead { read, entries } => self.log_read(&read, entries),
            Input::ChunkWritten { snapshot, next } => self.chunk_written(snapshot, next),
            Input::ChunkRejected { .. } => self.chunk_rejected(),
            Input::Installed { snapshot } => self.installed(snapshot),
            Input::Digested { epoch, round, digest, next } => self.digested(epoch, round, digest, next),
            Input::StateDamaged => self.integrity.found(Damage::Unreadable),
        }
    }

    /// What everything handled since the last call comes to. `entropy` is a random number.
    pub fn flush(&mut self, entropy: u64) -> Effects {
        self.drive_contender();
        self.drive_leader();
        self.leave_if_removed();
        if self.removed.is_some() {
            self.stand_down(StoodDown::Removed);
        }
        self.drive_reads(entropy);
        self.answer_parked();
        self.heed_damage();
        let mut effects = mem::take(&mut self.out.effects);
        if !effects.log.is_empty() || !effects.when_durable.is_empty() {
            self.persist.0 += 1;
            self.log.persisting(self.persist);
            self.persist_started.push_back(self.now);
            effects.persist = Some(self.persist);
        }
        effects
    }

    /// The state that this replica looks at.
    pub const fn state(&self) -> &S {
        &self.state
    }

    fn receive(&mut self, from: NodeId, envelope: PeerEnvelope) {
        // Who is no member here may be one in a configuration that this log does not have yet.
        if from == self.me {
            return self.absurd(from, "it has this node's identity");
        }
        let correlation = envelope.correlation;
        match envelope.body {
            PeerMessage::Vote(Vote::Lead { epoch, configuration }) => {
                self.on_lead(from, correlation, epoch, configuration);
            }
            PeerMessage::Vote(Vote::Write(append)) => {
                self.on_append(from, correlation, append, VoteReply::Write);
            }
            PeerMessage::VoteReply(VoteReply::Granted { epoch, last, committed }) => {
                self.on_granted(from, epoch, last, committed);
            }
            PeerMessage::VoteReply(VoteReply::Write(reply)) => self.on_append_reply(from, &reply),
            PeerMessage::VoteReply(VoteReply::Refused { epoch, promise })
            | PeerMessage::PropagateReply(PropagateReply::Refused { epoch, promise }) => {
                self.on_promise_seen(from, epoch, promise);
            }
            PeerMessage::Propagate(Propagate::Committed { epoch, committed }) => {
                self.on_committed(from, epoch, committed);
            }
            PeerMessage::Propagate(Propagate::Entries(append)) => {
                self.on_append(from, correlation, append, PropagateReply::Entries);
            }
            PeerMessage::Propagate(Propagate::Restore { epoch }) => self.on_restore(from, epoch),
            PeerMessage::Propagate(Propagate::Fetch { epoch, after, resume, whole }) => {
                self.on_fetch(from, correlation, epoch, after, resume, whole);
            }
            PeerMessage::Propagate(Propagate::Differs { epoch, round, right }) => {
                self.on_differs(from, epoch, round, right);
            }
            PeerMessage::PropagateReply(PropagateReply::Entries(reply)) => self.on_append_reply(from, &reply),
            PeerMessage::PropagateReply(PropagateReply::Fetched { epoch, previous, entries }) => {
                self.on_fetched(from, epoch, previous, entries);
            }
            PeerMessage::PropagateReply(PropagateReply::Chunk { epoch, chunk }) => {
                self.on_chunk(from, epoch, chunk);
            }
            PeerMessage::PropagateReply(PropagateReply::Unavailable { epoch }) => {
                self.on_unavailable(from, epoch);
            }
            PeerMessage::ReadSample(sample) => self.on_sample(from, correlation, sample),
            PeerMessage::ReadSampleReply(reply) => self.on_sample_reply(from, correlation, reply),
            PeerMessage::Heartbeat(heartbeat) => self.on_heartbeat(from, correlation, &heartbeat),
            PeerMessage::HeartbeatReply(reply) => self.on_heartbeat_reply(from, &reply),
            PeerMessage::NotMember { since, named } => self.on_not_member(since, named),
            PeerMessage::Doubt { epoch } => self.on_doubt(from, epoch),
        }
    }

    fn tick(&mut self) {
        self.waiting.expire(self.now, &mut self.out);
        self.expire_queued();
        self.tick_contender();
        self.tick_leader();
        self.tick_membership();
        self.tick_suspicion();
        self.tick_pull();
        self.tick_reads();
    }

    fn peer_down(&mut self, node: NodeId) {
        self.links.remove(&node);
        self.leader_lost_link(node);
        self.reader_lost_link(node);
    }

    /// Appends an entry to the log, in memory and on its way to the disk.
    pub(crate) fn append(&mut self, entry: Arc<Entry>) {
        self.overlay.add(&entry);
        self.log.append(Arc::clone(&entry));
        let reconfigured = self.configurations.append(&entry);
        self.out.log(LogRecord::Entry(entry));
        if reconfigured {
            self.reconfigured();
        }
    }

    /// Puts `entries`, which follow `previous`, into the log: what is there already stays, what differs is replaced.
    /// `previous` must be in the log. Returns the last version that is now known to equal the sender's log.
    pub(crate) fn splice(&mut self, previous: EntryId, entries: Vec<Arc<Entry>>) -> Version {
        let mut matched = previous.version;
        for entry in entries {
            matched = entry.id.version;
            if matched <= self.log.base().version || self.log.holds(entry.id) {
                continue;
            }
            if matched <= self.log.last() {
                if Mutant::ConflictNotTruncated.on() {
                    continue;
                }
                assert!(
                    matched > self.committed,
                    "a committed version never changes, but {} differs",
                    entry.id
                );
                for dropped in self.log.truncate_after(matched.previous()) {
                    self.overlay.remove(&dropped);
                }
                if !Mutant::DroppedConfigurationCounts.on()
                    && self.configurations.truncate_after(matched.previous())
                {
                    self.reconfigured();
                }
            }
            self.append(entry);
        }
        if Mutant::TruncatesAfterEveryAppend.on() {
            for dropped in self.log.truncate_after(matched.max(self.committed)) {
                self.overlay.remove(&dropped);
            }
            self.configurations.truncate_after(matched.max(self.committed));
        }
        matched
    }

    /// Everything up to `version` is committed: apply it and answer who waits for it.
    pub(crate) fn commit(&mut self, version: Version) {
        if version <= self.committed {
            return;
        }
        assert!(version <= self.log.last(), "only what is in the log can be committed");
        let first = self.committed.next();
        self.committed = version;
        if !self.integrity.is_damaged() || Mutant::DamagedApplies.on() {
            self.hand_to_state(first);
        }
        self.waiting.committed(version, &self.log, &mut self.out);
        self.commit_configurations();
    }

    /// Has what is committed from `first` on applied.
    pub(crate) fn hand_to_state(&mut self, first: Version) {
        let mut next = first;
        while next <= self.committed {
            let entry = self.log.entry(next).expect("entries that are not applied are in memory");
            self.out.effects.apply.push(Arc::clone(entry));
            next = next.next();
        }
    }

    pub(crate) fn mark_applied(&mut self, version: Version) {
        let version = version.min(self.committed);
        while self.applied < version {
            self.applied = self.applied.next();
            if let Some(entry) = self.log.entry(self.applied) {
                self.overlay.remove(entry);
            }
        }
        self.log.release(self.applied, self.settings.cache_bytes);
    }

    /// Promises to follow `epoch`, durably before anything that is answered from now on, and leads no more.
    pub(crate) fn promise(&mut self, epoch: Epoch) {
        assert!(epoch > self.promise, "a promise never decreases");
        self.stand_down(StoodDown::Fenced { by: epoch });
        self.promise = epoch;
        self.highest_seen = self.highest_seen.max(epoch);
        let Following { fresh, last, committed, .. } = self.following;
        self.following = Following { fresh, last, committed, inquired: self.now, ..Following::default() };
        self.suspicion.begin(self.now);
        self.cancel_pull();
        self.out.log(LogRecord::Promise(epoch));
    }

    /// Leads and contends no more. Writes that were logged go on waiting: a later leader may yet commit them.
    pub(crate) fn stand_down(&mut self, reason: StoodDown) {
        let epoch = match mem::replace(&mut self.role, Role::Follower) {
            Role::Follower => return,
            Role::Contender(contender) => contender.epoch,
            Role::Leader(leader) => leader.epoch,
        };
        self.cancel_pull();
        self.following.leader = None;
        if Mutant::SupersededAtStandDown.on() {
            self.waiting.give_up(&mut self.out);
        }
        for (token, ..) in self.queued.drain(..) {
            self.out.answer(token, Reply::NotLeader { leader: None });
        }
        self.out.notice(Notice::StoodDown { epoch, reason });
    }

    /// A peer has promised `promise`, which fences whoever asked it with a lower epoch. What a node that is no member has
    /// promised concerns nobody: it would fence one leader after the other.
    pub(crate) fn on_promise_seen(&mut self, from: NodeId, epoch: Epoch, promise: Epoch) {
        if promise.is_plausible_after(self.highest_seen) {
            self.highest_seen = self.highest_seen.max(promise);
        }
        let leading = match &self.role {
            Role::Follower => return,
            Role::Contender(contender) => contender.epoch,
            Role::Leader(leader) => leader.epoch,
        };
        if epoch == leading && promise > leading && self.configuration().member(from).is_some() {
            self.stand_down(StoodDown::Fenced { by: promise });
        }
    }

    pub(crate) fn absurd(&mut self, node: NodeId, what: &'static str) {
        self.out.notice(Notice::Absurd { node, what });
    }
}
