//! One run: nodes, network, clients and faults, in the order in which things happen.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use fastrand::Rng;
use quorumkv_protocol::NodeId;
use quorumkv_protocol::membership::ChangeRequest;
use quorumkv_protocol::peer::PeerEnvelope;
use quorumkv_replica::{Input, LogRead, PersistId, Timestamp, Token};

use crate::clients::Clients;
use crate::faults::{Fault, Occurrence};
use crate::invariants::Invariants;
use crate::members::Members;
use crate::model::configuration;
use crate::model::store::Store;
use crate::network::{ConnectionId, Network, Pair, Way};
use crate::node::{ChunkRequest, Node};
use crate::plan::Plan;
use crate::queue::Queue;
use crate::shrink::Reduction;
use crate::summary::Summary;

/// What is kept of what happens in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// Nothing.
    Off,
    /// A hash of all of it.
    Hash,
    /// Every line is printed.
    Print,
}

/// Something that will happen. What a node had begun before it crashed carries the node's incarnation, and comes to
/// nothing.
#[derive(Debug)]
pub(crate) enum Event {
    Tick(NodeId, u64),
    /// The node looks at what has come in.
    Wake(NodeId, u64),
    Arrival {
        pair: Pair,
        id: ConnectionId,
        way: Way,
        envelope: PeerEnvelope,
    },
    /// The maker of a connection notices that it is broken.
    Break(Pair, ConnectionId),
    Connect(Pair),
    Synced(NodeId, u64, PersistId),
    /// The oldest of the node's jobs is done.
    JobDone(NodeId, u64),
    LogRead(NodeId, u64, LogRead),
    ServeChunk(NodeId, u64, ChunkRequest),
    Report(NodeId, u64, Input),
    ClientStep(u64),
    ClientArrives(Token),
    ClientTimeout(Token),
    Fault(Occurrence),
    Restart(NodeId),
    /// A new node starts where one has lost its disk.
    ComeBack(NodeId),
    /// A node that has no place may ask for one.
    Rejoin(NodeId),
    RetryChange(ChangeRequest),
    Unblock(Vec<Pair>),
    QuickDisk(NodeId),
    QuickLink(Pair),
    RightClock(NodeId),
    /// A node hears that the election named it, with this counter.
    Elected(NodeId, u64),
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) members: Members,
    pub(crate) invariants: Invariants,
    pub(crate) summary: Summary,
    /// The highest epoch counter that the election has given away.
    pub(crate) counter: u64,
    /// Whether the time of faults is over.
    pub(crate) healed: bool,
    /// Whether clients ask nothing more by themselves.
    pub(crate) clients_rest: bool,
    events: Queue<Event>,
    /// Nodes that stay away when all else heals.
    pub(crate) away: BTreeSet<NodeId>,
    trace: Trace,
    hash: u64,
    pub(crate) seed: u64,
    /// What is left out of this run.
    pub(crate) reduction: Reduction,
    /// How many faults of each kind have come up.
    pub(crate) occurred: BTreeMap<Fault, u32>,
    /// Those that were not left out.
    pub(crate) happened: Vec<Occurrence>,
}

impl World {
    pub(crate) fn new(seed: u64, trace: Trace, reduction: &Reduction) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng).reduced(reduction);
        let configuration = configuration(plan.nodes);
        let mut world = Self {
            now: 0,
            nodes: configuration
                .voters
                .iter()
                .map(|member| (member.node, Node::new(Store::new(configuration.clone(), plan.results))))
                .collect(),
            network: Network::default(),
            clients: Clients::new(plan.clients),
            members: Members::new(configuration.clone()),
            invariants: Invariants::new(&configuration, plan.results),
            summary: Summary::default(),
            counter: 0,
            healed: false,
            clients_rest: false,
            events: Queue::new(),
            away: BTreeSet::new(),
            trace,
            hash: 0xcbf2_9ce4_8422_2325,
            rng,
            plan,
            seed,
            reduction: reduction.clone(),
            occurred: BTreeMap::new(),
            happened: Vec::new(),
        };
        world.note(|world| format!("{:?}", world.plan));
        world
    }

    /// Runs to the end; returns what happened, and the hash of it if it was traced.
    pub(crate) fn run(&mut self) -> (Summary, u64) {
        for node in self.all() {
            self.start(node);
        }
        for client in 0..self.plan.clients {
            self.schedule(1000, Event::ClientStep(client));
        }
        self.schedule_faults();
        let end = self.plan.chaos;
        self.run_until(end);
        self.heal_and_demand_progress();
        self.invariants.check_history(&self.clients.history);
        self.summary.undecided += self.clients.operations.check();
        self.summary.commits = self.invariants.committed_entries();
        self.summary.replacements = self.invariants.replacements();
        self.summary.micros = self.now;
        (self.summary.clone(), self.hash)
    }

    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some((time, event)) = self.events.pop_until(end) {
            self.now = time;
            self.summary.events += 1;
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(node, incarnation) => {
                if self.nodes[&node].lives(incarnation) {
                    self.input(node, Input::Tick);
                    self.schedule(self.plan.tick, Event::Tick(node, incarnation));
                }
            }
            Event::Wake(node, incarnation) => self.wake(node, incarnation),
            Event::Arrival { pair, id, way, envelope } => self.arrive(pair, id, way, envelope),
            Event::Break(pair, id) => {
                if self.network.connection(pair) == Some(id) {
                    self.sever(pair);
                }
            }
            Event::Connect(pair) => self.connect(pair),
            Event::Synced(node, incarnation, batch) => self.synced(node, incarnation, batch),
            Event::JobDone(node, incarnation) => self.job_done(node, incarnation),
            Event::LogRead(node, incarnation, read) => self.log_read(node, incarnation, read),
            Event::ServeChunk(node, incarnation, request) => self.serve_chunk(node, incarnation, request),
            Event::Report(node, incarnation, input) => {
                if self.nodes[&node].lives(incarnation) {
                    self.input(node, input);
                }
            }
            Event::ClientStep(client) => self.client_step(client),
            Event::ClientArrives(token) => self.client_arrives(token),
            Event::ClientTimeout(token) => self.client_timeout(token),
            Event::Fault(fault) => self.fault(fault),
            Event::Restart(node) => self.start(node),
            Event::ComeBack(gone) => self.come_back(gone),
            Event::Rejoin(node) => self.rejoin(node),
            Event::RetryChange(request) => self.retry_change(request),
            Event::Unblock(pairs) => {
                let stays = |node: &NodeId| self.away.contains(node);
                for pair in pairs.iter().filter(|pair| !stays(&pair.0) && !stays(&pair.1)) {
                    self.network.blocked.remove(pair);
                }
            }
            Event::QuickDisk(node) => self.node(node).slow = false,
            Event::QuickLink(pair) => {
                self.network.slow.remove(&pair);
            }
            Event::RightClock(node) => {
                let now = self.now;
                self.node(node).clock.mend(now);
            }
            Event::Elected(node, counter) => self.elected(node, counter),
        }
    }

    pub(crate) fn schedule(&mut self, delay: u64, event: Event) {
        self.events.push(self.now + delay, event);
    }

    /// What the clock of a node shows.
    pub(crate) fn time_at(&self, node: NodeId) -> Timestamp {
        self.nodes[&node].clock.read(self.now)
    }

    /// Every node that there ever was.
    pub(crate) fn all(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&mut self, node: NodeId) -> &mut Node {
        self.nodes.get_mut(&node).expect("only nodes that there are are spoken of")
    }

    /// Nodes that run.
    pub(crate) fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.process.is_some()).map(|(&id, _)| id).collect()
    }

    /// Whether something that happens `times` in `of` happens now.
    pub(crate) fn chance(&mut self, times: u64, of: u64) -> bool {
        self.rng.u64(0..of) < times
    }

    /// Notes a line of the trace, if there is one.
    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if matches!(self.trace, Trace::Off) {
            return;
        }
        let line = line(self);
        if line.is_empty() {
            return;
        }
        let text = format!("{:>9} {line}", self.now);
        if matches!(self.trace, Trace::Print) {
            // Whoever reads it may have seen enough.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
