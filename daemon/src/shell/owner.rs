//! The owner of the replica: the only task that touches it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorumkv_protocol::client::{Failure, NodeRole, Request, Response};
use quorumkv_protocol::membership::Member;
use quorumkv_protocol::peer::{PeerEnvelope, PropagateReply};
use quorumkv_protocol::{ClusterId, EntryId, ErrorCode, NodeId};
use quorumkv_replica::{
    Effects, Input, LogPurpose, LogRead, Notice, Outgoing, Replica, Status, Task, Timestamp,
};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::election::{Election, Order};
use super::members;
use super::mirror::Mirror;
use super::node::Configurations;
use super::pending::Pending;
use super::takeover::Stopwatch;
use super::upkeep::Upkeep;
use super::{Done, Event, Node};
use crate::coordination;
use crate::fatal::die;
use crate::net::{Links, ReplyTo};
use crate::storage::{Applier, Job, Journal, SnapshotServer, StateHandle, read_entries};

/// How often the replica is told that time has passed.
const TICK: Duration = Duration::from_millis(10);

/// Most events that are handled before their effects go out.
const BATCH: usize = 1024;

/// A node that stops waits this long for its requests to be answered.
const DRAIN: Duration = Duration::from_secs(3);

/// The owner, with everything that carries out what the replica says.
pub(super) struct Owner {
    pub(super) node: Arc<Node>,
    pub(super) replica: Replica<StateHandle>,
    pub(super) journal: Journal,
    pub(super) applier: Applier,
    pub(super) snapshots: SnapshotServer,
    pub(super) pending: Pending,
    pub(super) election: Election,
    pub(super) takeover: Stopwatch,
    pub(super) cluster: ClusterId,
    pub(super) links: Links,
    /// Members that this node has heard of while its own log names none: it needs to reach them to be restored.
    pub(super) acquainted: Vec<Member>,
    pub(super) mirror: Mirror,
    pub(super) done: mpsc::UnboundedSender<Done>,
    /// The moment that timestamps count from.
    pub(super) origin: Instant,
    pub(super) upkeep: Upkeep,
    /// Why nothing can be applied any more, until it is clear whether the state is replaced.
    pub(super) broken: Option<String>,
    /// The configuration that this node was removed with.
    pub(super) removed: Option<EntryId>,
}

/// What is left when the owner has ended.
pub(super) struct Ended {
    pub(super) journal: Journal,
    pub(super) applier: Applier,
    /// Set if the node was removed from the cluster.
    pub(super) removed: Option<EntryId>,
}

/// Where what happens comes from.
pub(super) struct Sources {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) done: mpsc::UnboundedReceiver<Done>,
    pub(super) election: mpsc::Receiver<coordination::Event>,
}

impl Owner {
    /// Runs until the node has been told to stop, or was removed, and has finished what it was doing.
    pub(super) async fn run(mut self, mut sources: Sources) -> Ended {
        self.reconfigured();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut events, mut finished) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        let stopping = self.node.stopping.clone();
        let mut drain_until: Option<Instant> = None;
        loop {
            tokio::select! {
                count = sources.done.recv_many(&mut finished, BATCH) => {
                    assert!(count > 0, "the owner itself holds a sender");
                }
                count = sources.events.recv_many(&mut events, BATCH), if self.journal.keeps_up() => {
                    assert!(count > 0, "the node itself holds a sender");
                }
                event = sources.election.recv() => match event {
                    Some(event) => self.on_election(event),
                    None if drain_until.is_some() => break,
                    None => die("the task that speaks with ZooKeeper has ended"),
                },
                _ = tick.tick() => self.tick(),
                () = stopping.cancelled(), if drain_until.is_none() => {
                    drain_until = Some(Instant::now() + DRAIN);
                    tracing::info!("stopping: leaves the election and finishes what is under way");
                    self.node.tasks.spawn(Election::withdraw(self.election.coordinator().clone()));
                }
            }
            self.take_in(finished.drain(..), &mut sources.done, events.drain(..));
            self.carry_out();
            if drain_until.is_some_and(|until| until <= Instant::now()) {
                break;
            }
        }
        let unanswered = |owner: &Self| !owner.pending.is_empty() || !owner.node.forwarded.is_empty();
        while unanswered(&self) && drain_until.is_some_and(|until| until > Instant::now()) {
            self.finish(&mut sources).await;
        }
        Ended { journal: self.journal, applier: self.applier, removed: self.removed }
    }

    /// One round after the node has left the election: nothing new is begun, what is under way goes on.
    async fn finish(&mut self, sources: &mut Sources) {
        tokio::select! {
            done = sources.done.recv() => self.take_in(done, &mut sources.done, None),
            event = sources.events.recv() => self.take_in(None, &mut sources.done, event),
            () = tokio::time::sleep(TICK) => self.tick(),
        }
        self.carry_out();
    }

    /// Handles what was finished, with all that is in `done` by now, and then `events`.
    ///
    /// The order is what makes reads linearizable: a vote leaves as soon as it is durable, so an event may have come
    /// because of a write that was acknowledged with this node's vote, and has to find that write durable here.
    fn take_in(
        &mut self,
        finished: impl IntoIterator<Item = Done>,
        done: &mut mpsc::UnboundedReceiver<Done>,
        events: impl IntoIterator<Item = Event>,
    ) {
        for finished in finished {
            self.on_done(finished);
        }
        while let Ok(finished) = done.try_recv() {
            self.on_done(finished);
        }
        for event in events {
            self.on_event(event);
        }
    }

    fn now(&self) -> Timestamp {
        self.timestamp(Instant::now())
    }

    fn timestamp(&self, instant: Instant) -> Timestamp {
        let micros = instant.saturating_duration_since(self.origin).as_micros();
        Timestamp::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    pub(super) fn tell(&mut self, input: Input) {
        let now = self.now();
        self.replica.handle(now, input);
    }

    fn tick(&mut self) {
        self.tell(Input::Tick);
        self.election.tick(&self.replica.status(), self.now());
        self.keep_house();
    }

    /// ZooKeeper says something.
    fn on_election(&mut self, event: coordination::Event) {
        let status = self.replica.status();
        if event == coordination::Event::Elected
            && !self.node.is_drained()
            && status.role == NodeRole::Follower
        {
            self.takeover.elected(status.leader_heard, self.now());
        }
        let order = self.election.on_event(event, &status);
        self.obey(order);
    }

    /// The link to a member broke. If that is the leader, this may be the beginning of a takeover.
    fn on_link_lost(&mut self, node: NodeId) {
        let status = self.replica.status();
        if status.leader == Some(node) {
            self.takeover.noticed(status.leader_heard, self.now());
        }
    }

    fn on_event(&mut self, event: Event) {
        if let Event::PeerDown(node) | Event::PeerRefused(node) = event {
            self.on_link_lost(node);
        }
        let input = match event {
            Event::Peer { from, envelope } => Input::Message { from, envelope },
            // It may be of a link that was closed meanwhile.
            Event::PeerUp(node) if !self.links.include(node) => return,
            Event::PeerUp(node) => Input::PeerUp(node),
            Event::Acquainted(members) => {
                self.acquainted = members;
                return self.reconfigured();
            }
            Event::Drain { undo } => return self.election.drain(!undo),
            Event::StateDamaged { database, what } => return self.state_damaged(database, &what),
            Event::PeerDown(node) => Input::PeerDown(node),
            Event::PeerRefused(node) => Input::PeerRefused(node),
            Event::ToLead { request, deadline, reply, retried } => {
                return self.lead(request, deadline, reply, retried);
            }
            Event::Read { key, evidence, deadline, reply } => {
                let token = self.pending.add_read(reply);
                Input::Read { token, key, evidence, deadline: self.timestamp(deadline) }
            }
            Event::Scan { scan, deadline, reply } => {
                let token = self.pending.add_scan(reply, scan);
                Input::Barrier { token, deadline: self.timestamp(deadline) }
            }
        };
        self.tell(input);
    }

    /// A client's request that the leader is to answer.
    fn lead(&mut self, request: Request, deadline: Instant, reply: ReplyTo, retried: bool) {
        let deadline = self.timestamp(deadline);
        match request {
            Request::Write(request) => {
                let token = self.pending.add_write(reply, retried);
                self.tell(Input::Write { token, request, deadline });
            }
            Request::Change { request, dry_run } => {
                let token = self.pending.add_write(reply, retried);
                self.tell(Input::Change { token, request, dry_run, deadline });
            }
            Request::Members => match members::account(self.cluster, &self.replica, &self.snapshots) {
                Some(members) => reply.send(Response::Members(Box::new(members))),
                None => reply.send(Response::Failed(Failure {
                    code: ErrorCode::NotLeader,
                    message: "this node does not lead".to_owned(),
                    leader: self.replica.status().leader.and_then(|leader| self.node.address_of(leader)),
                    evidence: None,
                })),
            },
            Request::Get { .. }
            | Request::Scan { .. }
            | Request::Status
            | Request::Stop { .. }
            | Request::Drain { .. } => unreachable!("any node answers these"),
        }
    }

    fn on_done(&mut self, done: Done) {
        let input = match done {
            Done::Persisted(id) => {
                self.journal.push();
                Input::Persisted(id)
            }
            Done::Applied(version) => Input::Applied(version),
            Done::StatePersisted(persisted) => return self.persisted(persisted),
            Done::StateAt { task, view } => return self.digest(task, view),
            // Another state has taken the place of the one that was digested.
            Done::Digested { database, .. } if database != self.node.state().database() => return,
            Done::Digested { epoch, round, digest, next, .. } => {
                Input::Digested { epoch, round, digest, next }
            }
            Done::StateDamaged { database, what } => return self.state_damaged(database, &what),
            Done::StateBroken { database, what } => {
                self.state_damaged(database, &what);
                self.broken = Some(what);
                return;
            }
            Done::Looked(looked) => return self.looked(*looked),
            Done::LogRead { read, entries } => Input::LogRead { read, entries },
            Done::ChunkWritten { snapshot, next } => Input::ChunkWritten { snapshot, next },
            Done::ChunkRejected { snapshot } => Input::ChunkRejected { snapshot },
            Done::Installed { snapshot } => Input::Installed { snapshot },
            Done::Epoch(counter) => {
                let order = self.election.on_epoch(counter, &self.replica.status());
                return self.obey(order);
            }
            Done::Impeached => return self.election.on_impeached(),
            Done::Resigned(is_done) => return self.election.on_resigned(is_done, &self.replica.status()),
            Done::DiskFull(full) => {
                self.note_disk(full);
                Input::DiskFull(full)
            }
        };
        self.tell(input);
    }

    fn obey(&mut self, order: Option<Order>) {
        match order {
            Some(Order::Lead(counter)) => self.tell(Input::Lead { counter }),
            Some(Order::StandDown) => self.tell(Input::StandDown),
            None => {}
        }
    }

    /// Carries out what the replica has to say, until it has no more.
    fn carry_out(&mut self) {
        loop {
            let effects = self.replica.flush(rand::random());
            let status = self.replica.status();
            let orders = self.carry_out_once(effects, &status);
            if let Some(what) = self.broken.take().filter(|_| !status.damaged) {
                die(&format!("entries cannot be applied, and no other node could repair the state: {what}"));
            }
            if orders.is_empty() {
                return self.node.publish(status, self.now());
            }
            for order in orders {
                self.obey(Some(order));
            }
        }
    }

    fn carry_out_once(&mut self, effects: Effects, status: &Status) -> Vec<Order> {
        for message in effects.sends {
            self.node.routes.send(message);
        }
        if effects.persist.is_some() {
            self.journal.submit(&effects.log, effects.persist, effects.when_durable);
        }
        if let Some(task) = effects.digest {
            self.applier.submit(Job::Digest(task));
        }
        if !effects.apply.is_empty() {
            self.applier.submit(Job::Apply(effects.apply));
        }
        for (token, reply) in effects.replies {
            self.pending.answer(token, reply);
        }
        for task in effects.tasks {
            self.start(task);
        }
        if status.role == NodeRole::Contender && status.last.epoch == status.promise {
            self.takeover.opened(self.now());
        }
        let mut orders = Vec::new();
        for notice in effects.notices {
            self.heed(&notice);
            self.heed_damage(&notice);
            self.report(&notice);
            if let Some(takeover) = self.takeover.on_notice(&notice, status.leader_heard, self.now()) {
                self.node.set_takeover(takeover);
            }
            orders.extend(self.election.on_notice(&notice, status));
        }
        orders
    }

    /// Does what a change of the members asks of the shell.
    fn heed(&mut self, notice: &Notice) {
        match notice {
            Notice::Reconfigured { .. } => self.reconfigured(),
            Notice::ConfigurationCommitted { .. } | Notice::Established { .. } => {
                self.reconfigured();
                if self.replica.status().role == NodeRole::Leader {
                    self.mirror.show(self.replica.committed_configuration());
                }
            }
            Notice::Removed { since } => {
                self.removed = Some(*since);
                self.node.stopping.cancel();
            }
            _ => {}
        }
    }

    /// Other configurations count from now on, or the same are known better.
    fn reconfigured(&mut self) {
        let latest = self.replica.configuration().clone();
        let committed = self.replica.committed_configuration().clone();
        // Those that are about to go are still spoken with: they have to hear of it.
        if latest.member(self.node.id).is_some() {
            self.acquainted.clear();
        }
        let members = committed.members().chain(latest.members()).chain(&self.acquainted);
        let members: BTreeMap<NodeId, Member> = members.map(|member| (member.node, member.clone())).collect();
        for gone in self.links.keep(self.cluster, &members) {
            self.tell(Input::PeerDown(gone));
        }
        self.node.set_configurations(Configurations { latest, committed });
    }

    fn start(&self, task: Task) {
        match task {
            Task::ReadLog(read) => self.read_log(read),
            Task::WriteChunk(chunk) => self.applier.submit(Job::WriteChunk(chunk)),
            Task::Install { snapshot } => self.applier.submit(Job::Install(snapshot)),
            Task::ServeChunk { to, correlation, epoch, resume } => {
                let (snapshots, routes) = (self.snapshots.clone(), Arc::clone(&self.node.routes));
                let (done, database) = (self.done.clone(), self.node.state().database());
                self.node.tasks.spawn_blocking(move || {
                    let reply = match snapshots.chunk(to, resume.as_ref()) {
                        Ok(chunk) => PropagateReply::Chunk { epoch, chunk },
                        Err(error) => {
                            tracing::warn!(%to, "cannot serve a snapshot: {error}");
                            if error.is_damage() {
                                let _ = done.send(Done::StateDamaged { database, what: error.to_string() });
                            }
                            PropagateReply::Unavailable { epoch }
                        }
                    };
                    routes.send(Outgoing { to, envelope: PeerEnvelope { correlation, body: reply.into() } });
                });
            }
        }
    }

    fn read_log(&self, read: LogRead) {
        let (reader, done) = (self.journal.reader(), self.done.clone());
        self.node.tasks.spawn_blocking(move || {
            let entries = read_entries(&reader, read.from, read.max_bytes as u64).unwrap_or_else(|error| {
                let purpose = match read.purpose {
                    LogPurpose::Stream { .. } => "stream",
                    LogPurpose::Fetch { .. } => "serve",
                };
                tracing::debug!(to = %read.to, "cannot {purpose} entries from the log: {error}");
                Vec::new()
            });
            let _ = done.send(Done::LogRead { read, entries });
        });
    }
}
