//! What goes wrong, and an election that cannot be relied on.

use bytes::Bytes;
use fastrand::Rng;
use quorumkv_protocol::NodeId;
use quorumkv_replica::Input;

use crate::model::store::DAMAGED;
use crate::network::Pair;
use crate::world::{Event, World};

/// Something that goes wrong now and then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    Election,
    Crash,
    Partition,
    Break,
    SlowDisk,
    /// Everything takes longer in one direction between two nodes.
    SlowLink,
    /// The clock of a node jumps ahead, and runs too fast or too slow.
    Clock,
    Resignation,
    /// A disk is lost for good.
    Amnesia,
    /// From now on no sync of a log succeeds: its process ends.
    FailedSync,
    /// Something happens to a log on the disk.
    LogDamage,
    /// Something happens to a value on the disk.
    Damage,
    /// Not a fault either: somebody wants to change the members.
    Change,
    /// Not a fault, but as rare: the state is saved, and the log trimmed below it.
    Save,
}

/// One of the faults of a run. What it is like depends on the seed, its kind and its number, and on nothing that happened
/// before, so that it stays what it is when others are left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Occurrence {
    fault: Fault,
    number: u32,
}

impl Occurrence {
    fn rng(self, seed: u64) -> Rng {
        let mut rng = Rng::with_seed(seed);
        Rng::with_seed(rng.u64(..) ^ (self.fault as u64) << 32 ^ u64::from(self.number))
    }
}

const ALL: [Fault; 14] = [
    Fault::Election,
    Fault::Crash,
    Fault::Partition,
    Fault::Break,
    Fault::SlowDisk,
    Fault::SlowLink,
    Fault::Clock,
    Fault::Resignation,
    Fault::Amnesia,
    Fault::FailedSync,
    Fault::LogDamage,
    Fault::Damage,
    Fault::Change,
    Fault::Save,
];

impl World {
    pub(crate) fn schedule_faults(&mut self) {
        for fault in ALL {
            self.schedule_fault(fault);
        }
    }

    fn schedule_fault(&mut self, fault: Fault) {
        let plan = &self.plan;
        let every = match fault {
            Fault::Election => Some(plan.elections),
            Fault::Crash => plan.crashes,
            Fault::Partition => plan.partitions,
            Fault::Break => plan.breaks,
            Fault::SlowDisk => plan.slow_disks,
            Fault::SlowLink => plan.slow_links,
            Fault::Clock => plan.clocks,
            Fault::Resignation => plan.resignations,
            Fault::Amnesia => plan.amnesias,
            Fault::FailedSync => plan.failed_syncs,
            Fault::LogDamage => plan.log_damages,
            Fault::Damage => plan.damages,
            Fault::Change => plan.changes,
            Fault::Save => Some(plan.saves),
        };
        if let Some(every) = every {
            let number = self.occurred.entry(fault).or_default();
            *number += 1;
            let occurrence = Occurrence { fault, number: *number };
            let delay = occurrence.rng(self.seed).u64(1_000..every * 2);
            self.schedule(delay, Event::Fault(occurrence));
        }
    }

    pub(crate) fn fault(&mut self, occurrence: Occurrence) {
        if self.healed {
            return;
        }
        if !self.reduction.without.contains(&occurrence) {
            self.happened.push(occurrence);
            let rng = std::mem::replace(&mut self.rng, occurrence.rng(self.seed).fork());
            self.happen_to_some(occurrence.fault);
            self.rng = rng;
        }
        self.schedule_fault(occurrence.fault);
    }

    fn happen_to_some(&mut self, fault: Fault) {
        match fault {
            Fault::Election => self.hold_election(),
            Fault::Crash => self.crash_some(),
            Fault::Partition => self.partition(),
            Fault::Break => {
                let pairs = self.network.pairs();
                if let Some(pair) = self.pick(&pairs) {
                    self.sever(pair);
                }
            }
            Fault::SlowDisk => {
                let members = self.all();
                if let Some(id) = self.pick(&members) {
                    self.node(id).slow = true;
                    let end = self.rng.u64(10_000..1_000_000);
                    self.schedule(end, Event::QuickDisk(id));
                }
            }
            Fault::SlowLink => self.slow_a_link(),
            Fault::Clock => self.disturb_a_clock(),
            Fault::Resignation => {
                let running = self.running();
                if let Some(id) = self.pick(&running) {
                    self.input(id, Input::StandDown);
                }
            }
            Fault::Amnesia => self.lose_a_disk(),
            Fault::FailedSync => {
                let running = self.running();
                if let Some(id) = self.pick(&running) {
                    let more = self.rng.u32(0..4);
                    self.node(id).journal.fail_syncs_after(more);
                }
            }
            Fault::LogDamage => self.damage_a_log(),
            Fault::Damage => self.damage_some(),
            Fault::Change => self.wish(),
            Fault::Save => {
                let running = self.running();
                if let Some(id) = self.pick(&running) {
                    self.save(id);
                }
            }
        }
    }

    /// Names one leader; sometimes the one with the shortest log; sometimes a rival to it at the same time.
    fn hold_election(&mut self) {
        let running = self.running();
        let by_log = |id: &&NodeId| self.nodes[id].disk.written.last();
        let worst = running.iter().min_by_key(by_log).copied();
        let chosen = if self.chance(1, 4) { worst } else { self.pick(&running) };
        if let Some(id) = chosen {
            self.elect(id);
        }
        if self.chance(self.plan.rivals, 100)
            && let Some(rival) = self.pick(&running)
        {
            self.elect(rival);
        }
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        self.rng.choice(among).copied()
    }

    /// Tells a node to lead, sometimes so late that another was named since. Sometimes two nodes are given one counter, as
    /// after a ZooKeeper was wiped.
    pub(crate) fn elect(&mut self, id: NodeId) {
        if !self.chance(1, 10) {
            self.counter += 1;
        }
        let counter = self.counter.max(1);
        let late = if self.chance(1, 10) { self.rng.u64(0..1_000_000) } else { 0 };
        self.schedule(late, Event::Elected(id, counter));
    }

    pub(crate) fn elected(&mut self, id: NodeId, counter: u64) {
        if self.healed {
            return;
        }
        self.note(|_| format!("the election names {id} for epoch {counter}"));
        self.input(id, Input::Lead { counter });
    }

    fn crash_some(&mut self) {
        let together = if self.chance(1, 6) { self.nodes.len() } else { 1 };
        for _ in 0..together {
            let running = self.running();
            let Some(id) = self.pick(&running) else { return };
            self.crash(id);
            let downtime =
                if self.rng.bool() { self.rng.u64(1_000..50_000) } else { self.rng.u64(50_000..1_500_000) };
            self.schedule(downtime, Event::Restart(id));
        }
    }

    /// Cuts the network in two, or cuts off one node, or the leader, or leaves only one node that reaches both sides; in both
    /// directions or in one.
    fn partition(&mut self) {
        let members = self.all();
        let kind = self.rng.u8(0..4);
        let alone = match kind {
            0 => self.leader(),
            1 => self.pick(&members),
            _ => None,
        };
        let bridge = if kind == 2 { self.pick(&members) } else { None };
        let side: Vec<NodeId> = match alone {
            Some(alone) => vec![alone],
            None => members.iter().copied().filter(|_| self.rng.bool()).collect(),
        };
        let one_way = self.rng.bool();
        let mut cut: Vec<Pair> = Vec::new();
        for &one in side.iter().filter(|&&one| Some(one) != bridge) {
            for &other in members.iter().filter(|other| !side.contains(other) && Some(**other) != bridge) {
                cut.push((one, other));
                if !one_way {
                    cut.push((other, one));
                }
            }
        }
        self.note(|_| format!("nothing gets through from, to: {cut:?}"));
        self.summary.partitions += 1;
        self.summary.bridges += u64::from(bridge.is_some());
        self.network.blocked.extend(cut.iter().copied());
        let end =
            if self.rng.bool() { self.rng.u64(2_000..100_000) } else { self.rng.u64(100_000..1_500_000) };
        self.schedule(end, Event::Unblock(cut));
    }

    fn slow_a_link(&mut self) {
        let members = self.all();
        let (Some(from), Some(to)) = (self.pick(&members), self.pick(&members)) else { return };
        let by = self.rng.u64(1_000..400_000);
        self.note(|_| format!("everything from {from} to {to} takes {by} longer"));
        self.summary.slow_links += 1;
        self.network.slow.insert((from, to), by);
        let end = self.rng.u64(50_000..3_000_000);
        self.schedule(end, Event::QuickLink((from, to)));
    }

    fn disturb_a_clock(&mut self) {
        let members = self.all();
        let Some(id) = self.pick(&members) else { return };
        let jump = if self.rng.bool() { self.rng.u64(0..3_000_000) } else { 0 };
        let rate = *self.rng.choice(&[200, 900, 1000, 1100, 3000]).expect("there are choices");
        self.note(|_| format!("the clock of {id} jumps by {jump} and runs at {rate} of 1000"));
        self.summary.clocks += 1;
        let now = self.now;
        self.node(id).clock.change(now, jump, rate);
        let end = self.rng.u64(50_000..5_000_000);
        self.schedule(end, Event::RightClock(id));
    }

    /// Something happens to a value of one node, if all nodes are well. If one had a changed value, and a write went over it, that
    /// node only: it may yet be found out by a comparison of what it held then, and two damaged nodes may be too many.
    pub(crate) fn damage_some(&mut self) {
        let is_well = |id: &NodeId| self.invariants.is_whole(&self.nodes[id]);
        let running = self.running();
        if !self.all().iter().all(is_well) {
            return;
        }
        let was_hit = |id: &NodeId| {
            let process = self.nodes[id].process.as_ref();
            process.map_or(self.nodes[id].saved.is_spoiled, |process| process.store.borrow().is_spoiled)
        };
        let hit: Vec<NodeId> = self.all().into_iter().filter(was_hit).collect();
        let Some(id) = self.pick(if hit.is_empty() { &running } else { &hit }) else { return };
        let Some(process) = &self.nodes[&id].process else { return };
        let keys: Vec<Bytes> = process.store.borrow().keys.keys().cloned().collect();
        let is_readable = self.plan.flips && self.rng.bool();
        let Some(key) = self.rng.choice(&keys) else { return };
        // No two nodes are damaged in the same way.
        let value = [DAMAGED, id.to_string().as_bytes()].concat().into();
        if let Some(process) = &self.nodes[&id].process
            && process.store.borrow_mut().damage(key, is_readable.then_some(value))
        {
            self.summary.damages += 1;
            self.note(|_| {
                format!("{id}: {key:?} is damaged, {}", if is_readable { "changed" } else { "lost" })
            });
        }
    }

    /// Saves a node's state as it is now, and trims its log to somewhere below it.
    fn save(&mut self, id: NodeId) {
        let outruns = self.plan.state_outruns_log;
        let (trims, keep, delay) =
            (self.chance(self.plan.trims, 100), self.rng.u64(0..4), self.rng.u64(0..20_000));
        let node = self.node(id);
        let incarnation = node.incarnation();
        let Some(process) = &node.process else { return };
        let applied = process.store.borrow().applied;
        if !node.disk.synced.holds(applied) && !outruns {
            return;
        }
        node.saved = process.store.borrow().clone();
        let version = quorumkv_protocol::Version::new(applied.version.get().saturating_sub(keep));
        if trims
            && let Some(base) = node.disk.written.id_at(version)
            && node.disk.trim(base)
        {
            node.journal.trim(base);
            self.note(|_| format!("{id} saves its state at {applied} and trims its log to {base}"));
            self.schedule(delay, Event::Report(id, incarnation, Input::Trimmed(base)));
        }
    }
}
