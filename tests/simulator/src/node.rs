//! The shell around each replica: it carries out effects, in the order that they demand and no other.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::peer::{SnapshotChunk, SnapshotPosition};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};
use quorumkv_replica::{
    DigestTask, Effects, Input, LogRecord, Notice, PersistId, Recovered, Replica, StoodDown,
};

use crate::clock::Clock;
use crate::journal::Journal;
use crate::links::Requests;
use crate::model::disk::Disk;
use crate::model::render;
use crate::model::store::{Shared, Snapshot, Staged, Store};
use crate::world::{Event, World};

/// One node: what survives its crashes, and its process while it runs.
pub(crate) struct Node {
    /// What its log must hold.
    pub(crate) disk: Disk,
    /// What it does hold.
    pub(crate) journal: Journal,
    /// The state as it was last saved.
    pub(crate) saved: Store,
    pub(crate) process: Option<Process>,
    /// How often it has been started.
    incarnation: u64,
    /// Whether its disk is lost. It is kept to look at, and the node never starts again.
    pub(crate) gone: bool,
    pub(crate) clock: Clock,
    /// Whether its disk is slow for a while.
    pub(crate) slow: bool,
    /// Whether it has noted, for its next start, that its state is damaged.
    pub(crate) damaged: bool,
    last_sync: u64,
}

/// A running node.
pub(crate) struct Process {
    pub(crate) replica: Replica<Shared>,
    pub(crate) store: Rc<RefCell<Store>>,
    inbox: Vec<Input>,
    /// What came from its log on disk when it started, and is in memory until it is applied.
    pub(crate) recovered_bytes: usize,
    /// Whether it knew that its state is damaged when it was last woken.
    knew_damage: bool,
    /// Where the configuration came from that counted last.
    configured: Version,
    /// The configurations that votes and samples were counted in when it was last awake; at the end, the last of them.
    pub(crate) counted: Vec<Configuration>,
    /// Changes of the state, one after the other.
    pub(crate) jobs: VecDeque<Job>,
    /// When the replica hears of the last job that is done: it hears of the next no earlier.
    pub(crate) reported: u64,
    /// What is to be digested when the state is there.
    pub(crate) digest: Option<DigestTask>,
    pub(crate) staged: Option<Staged>,
    pub(crate) serving: BTreeMap<EntryId, Snapshot>,
    pub(crate) requests: Requests,
}

/// Something that takes a node a while.
pub(crate) enum Job {
    Digest(DigestTask),
    Apply(Vec<Arc<Entry>>),
    WriteChunk(SnapshotChunk),
    Install(EntryId),
}

/// Another node's request for a piece of this one's state.
#[derive(Debug)]
pub(crate) struct ChunkRequest {
    pub(crate) to: NodeId,
    pub(crate) correlation: u64,
    pub(crate) epoch: Epoch,
    pub(crate) resume: Option<SnapshotPosition>,
}

impl Process {
    /// Whether it has known that its state is damaged since before it was last woken.
    pub(crate) fn knows_damage(&self) -> bool {
        self.knew_damage && self.replica.status().damaged
    }

    pub(crate) fn digested(&mut self) -> Option<Input> {
        self.store.borrow().digested(&mut self.digest)
    }
}

impl Node {
    pub(crate) fn new(saved: Store) -> Self {
        Self {
            disk: Disk::new(),
            journal: Journal::new(),
            saved,
            process: None,
            incarnation: 0,
            gone: false,
            clock: Clock::right(),
            slow: false,
            damaged: false,
            last_sync: 0,
        }
    }

    /// Whether the process of this incarnation still runs.
    pub(crate) const fn lives(&self, incarnation: u64) -> bool {
        self.process.is_some() && self.incarnation == incarnation
    }

    pub(crate) const fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

impl World {
    /// Starts a node with what it has on disk.
    pub(crate) fn start(&mut self, id: NodeId) {
        let settings = self.plan.settings.clone();
        let node = self.node(id);
        if node.process.is_some() || node.gone {
            return;
        }
        node.incarnation += 1;
        let incarnation = node.incarnation;
        if node.incarnation == 1 {
            node.journal.open().expect("an empty disk has an empty log");
        }
        if !node.disk.synced.holds(node.saved.applied) {
            let is_written =
                node.journal.write(&[LogRecord::Base(node.saved.applied)]) && node.journal.sync();
            assert!(is_written, "no disk fails at a start");
        }
        let recovered = Recovered { damaged: node.damaged, ..node.disk.recover(node.saved.applied) };
        let store = Rc::new(RefCell::new(node.saved.clone()));
        let replica = Replica::new(id, &recovered, Shared(Rc::clone(&store)), settings);
        let promise = replica.status().promise;
        let recovered_bytes = replica.load().log_bytes;
        node.process = Some(Process {
            replica,
            store,
            inbox: Vec::new(),
            recovered_bytes,
            knew_damage: false,
            configured: Version::ZERO,
            counted: Vec::new(),
            jobs: VecDeque::new(),
            reported: 0,
            digest: None,
            staged: None,
            serving: BTreeMap::new(),
            requests: Requests::default(),
        });
        self.invariants.started(id, promise, &self.nodes);
        self.note(|_| {
            format!(
                "{id} starts: promise {promise}, log to {}, applied {}",
                recovered.last, recovered.applied
            )
        });
        self.schedule(0, Event::Tick(id, incarnation));
        for peer in self.all().into_iter().filter(|&peer| peer != id) {
            for pair in [(id, peer), (peer, id)] {
                let delay = self.rng.u64(100..20_000);
                self.schedule(delay, Event::Connect(pair));
            }
        }
    }

    /// Kills a node. What it had not synced is lost, but for what the disk happened to write.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let mut rng = self.rng.fork();
        let node = self.node(id);
        if node.process.take().is_none() {
            return;
        }
        let unsynced = node.disk.unsynced();
        loop {
            node.journal.crash(&mut rng);
            // Its disk may fail it while it recovers, and so it ends in the middle of that.
            let fails = rng.u8(0..8) == 0;
            if fails {
                node.journal.fail_syncs_after(rng.u32(0..4));
            }
            let found = match node.journal.open() {
                Ok(found) => found,
                Err(error) if fails && !error.is_loss() => continue,
                Err(error) => panic!("a crash has damaged the log of {id}: {error}: {:?}", error.source()),
            };
            assert!(
                node.disk.crash_to(&found),
                "{id} recovers what it never had, or not what was synced: {found:?}, where {:?} was synced",
                node.disk.synced
            );
            // It may crash again while it recovers, and must find the same.
            if !fails && rng.u8(0..8) > 0 {
                break;
            }
        }
        node.last_sync = 0;
        self.summary.crashes += 1;
        self.note(|_| format!("{id} crashes with {unsynced} unsynced records"));
        self.clients.node_died(id);
        self.members.node_died(id);
        for pair in self.network.pairs() {
            if pair.0 == id || pair.1 == id {
                self.sever(pair);
            }
        }
    }

    /// Tells a node something, soon.
    pub(crate) fn input(&mut self, id: NodeId, input: Input) {
        let pause = self.rng.u64(0..100);
        let node = self.node(id);
        let incarnation = node.incarnation;
        let Some(process) = &mut node.process else { return };
        process.inbox.push(input);
        if process.inbox.len() == 1 {
            self.schedule(pause, Event::Wake(id, incarnation));
        }
    }

    /// The node takes in everything that has come, and does what it comes to.
    pub(crate) fn wake(&mut self, id: NodeId, incarnation: u64) {
        let (now, entropy) = (self.time_at(id), self.rng.u64(..));
        let node = self.nodes.get_mut(&id).expect("a node that wakes is there");
        let Some(process) = node.process.as_mut().filter(|_| node.incarnation == incarnation) else { return };
        let inbox = std::mem::take(&mut process.inbox);
        process.knew_damage = process.replica.status().damaged;
        let last = process.counted.len().saturating_sub(1);
        process.counted.drain(..last);
        if process.counted.first() != Some(process.replica.configuration()) {
            process.counted = vec![process.replica.configuration().clone()];
        }
        for input in &inbox {
            if let Input::Message { envelope, .. } = input {
                self.invariants.hears(id, process.replica.status().promise, envelope);
            }
            process.replica.handle(now, input.clone());
            if process.replica.configuration().id != process.counted[process.counted.len() - 1].id {
                process.counted.push(process.replica.configuration().clone());
            }
        }
        let effects = process.replica.flush(entropy);
        self.note_step(id, &inbox, &effects);
        self.invariants.look(id, &self.nodes, &self.plan.settings);
        self.carry_out(id, effects);
    }

    fn note_step(&mut self, id: NodeId, inputs: &[Input], effects: &Effects) {
        self.note(|_| {
            let inputs = inputs.iter().filter(|input| !matches!(input, Input::Tick)).map(render::input);
            let mut lines: Vec<String> =
                inputs.map(|input| format!("{}: {input}", render::node(id))).collect();
            let effects = render::effects(effects);
            if lines.is_empty() && !effects.is_empty() {
                lines.push(format!("{}: tick", render::node(id)));
            }
            lines.extend(effects.into_iter().map(|effect| format!("    {effect}")));
            lines.join("\n          ")
        });
    }

    fn carry_out(&mut self, id: NodeId, effects: Effects) {
        let incarnation = self.nodes[&id].incarnation;
        for record in &effects.log {
            if let LogRecord::Entry(entry) = record
                && let Some(configuration) = entry.configuration()
            {
                self.members.logs(configuration);
            }
        }
        if let Some(batch) = effects.persist {
            let slowness = if self.nodes[&id].slow { 50 } else { 1 };
            let pause = self.rng.u64(50..=self.plan.sync) * slowness;
            let now = self.now;
            self.invariants.logged(id, &self.nodes[&id].disk.written, &effects.log);
            let node = self.node(id);
            let is_written = node.journal.write(&effects.log);
            node.disk.write(batch, effects.log, effects.when_durable);
            if !is_written {
                return self.log_failed(id);
            }
            let node = self.node(id);
            node.last_sync = node.last_sync.max(now + pause);
            let delay = node.last_sync - now;
            self.schedule(delay, Event::Synced(id, incarnation, batch));
        } else {
            assert!(effects.log.is_empty() && effects.when_durable.is_empty(), "a batch without a name");
        }
        for message in effects.sends {
            self.send(id, message);
        }
        if let Some(task) = effects.digest {
            self.begin(id, Job::Digest(task));
        }
        if !effects.apply.is_empty() {
            self.invariants.committed(id, &effects.apply, &self.nodes);
            self.begin(id, Job::Apply(effects.apply));
        }
        for (token, reply) in effects.replies {
            self.client_answered(token, reply);
        }
        for task in effects.tasks {
            self.perform(id, task);
        }
        for notice in &effects.notices {
            self.heed(id, notice);
        }
        if let Some(Notice::Removed { since }) =
            effects.notices.iter().find(|notice| matches!(notice, Notice::Removed { .. }))
        {
            self.retire(id, *since);
        }
    }

    fn heed(&mut self, id: NodeId, notice: &Notice) {
        match notice {
            Notice::EpochTooLow { promise } => {
                self.counter = self.counter.max(promise.counter());
                if self.rng.bool() && !self.healed {
                    self.elect(id);
                }
            }
            Notice::Established { epoch, .. } => {
                self.invariants.established(id, *epoch, &self.nodes);
                self.summary.epochs += 1;
            }
            Notice::Restored { .. } => self.summary.snapshots += 1,
            Notice::ReadConflict { .. } => self.summary.conflicts += 1,
            Notice::Diverged { .. } => self.summary.diverged += 1,
            Notice::Unwell(_) => {
                if self.healed || self.rng.bool() {
                    self.input(id, Input::StandDown);
                }
            }
            Notice::SampleVoid { .. } => self.summary.voids += 1,
            Notice::StoodDown { reason: StoodDown::Removed, .. } => self.summary.abdications += 1,
            Notice::Reconfigured { id: by } => {
                if let Some(process) = &mut self.node(id).process {
                    let before = std::mem::replace(&mut process.configured, by.version);
                    self.summary.dropped += u64::from(by.version < before);
                }
            }
            Notice::Promises { behind: Some(_), .. } => self.summary.adopted += 1,
            Notice::Promises { behind: None, .. } => self.wish_early(id),
            Notice::Absurd { node, what } => panic!("{id} says of {node}: {what}"),
            Notice::Corruption { .. }
            | Notice::Differs { .. }
            | Notice::Undecided { .. }
            | Notice::Damaged(_)
            | Notice::Restoring { .. }
            | Notice::Repaired { .. } => self.heed_damage(id, notice),
            Notice::Impeach { .. } => {
                self.summary.impeachments += 1;
                if !self.healed && self.rng.bool() {
                    self.elect(id);
                }
            }
            Notice::Promised { .. }
            | Notice::Following { .. }
            | Notice::Contending { .. }
            | Notice::StoodDown {
                reason: StoodDown::Fenced { .. } | StoodDown::Told | StoodDown::Damaged,
                ..
            }
            | Notice::TooFarBehind { .. }
            | Notice::NotAVoter
            | Notice::ConfigurationCommitted { .. }
            | Notice::Removed { .. } => {}
        }
    }

    fn heed_damage(&mut self, id: NodeId, notice: &Notice) {
        let process = self.nodes[&id].process.as_ref().expect("it just said so");
        match notice {
            Notice::Restoring { .. } => self.invariants.restoring(id, process),
            _ if self.plan.damages.is_none() => {
                panic!("{id} finds damage where there is none: {}", render::notice(notice))
            }
            Notice::Corruption { .. } => self.summary.corruptions += 1,
            Notice::Damaged(_) => {
                assert!(process.store.borrow().is_spoiled, "{id} takes its state for damaged, and it is not");
                self.summary.quarantines += 1;
                self.node(id).damaged = true;
            }
            Notice::Repaired { .. } => {
                self.summary.repairs += 1;
                self.invariants.repaired(id);
                self.node(id).damaged = false;
            }
            _ => {}
        }
    }

    /// A write or sync of the log has failed: the process ends, and somebody starts it again.
    fn log_failed(&mut self, id: NodeId) {
        self.note(|_| format!("{id}: the log fails"));
        self.summary.failed_syncs += 1;
        self.crash(id);
        let downtime = self.rng.u64(1_000..500_000);
        self.schedule(downtime, Event::Restart(id));
    }

    /// Everything up to this batch is synced: its messages may go.
    pub(crate) fn synced(&mut self, id: NodeId, incarnation: u64, upto: PersistId) {
        let node = self.node(id);
        if !node.lives(incarnation) {
            return;
        }
        if !node.journal.sync() {
            return self.log_failed(id);
        }
        loop {
            let node = self.node(id);
            if !node.lives(incarnation) {
                return;
            }
            let Some((batch, messages)) = node.disk.sync() else { break };
            if Mutant::SyncToldLate.on() {
                let late = self.rng.u64(0..self.plan.sync);
                self.schedule(late, Event::Report(id, incarnation, Input::Persisted(batch)));
            }
            for message in messages {
                self.send(id, message);
            }
            if batch == upto {
                break;
            }
        }
        if !Mutant::SyncToldLate.on() {
            self.input(id, Input::Persisted(upto));
        }
    }
}
