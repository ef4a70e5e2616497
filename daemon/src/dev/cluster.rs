//! The task that owns the nodes: it starts them, tells what happens, and stops them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal as ProcessSignal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval_at, sleep, sleep_until, timeout};

use super::DevError;
use super::coordination::Coordination;
use super::home::Home;
use super::process::{Process, next_end, stop_all};
use super::register::Register;
use super::restarts::{self, Restarts};
use super::story::{Afterwards, Ending, Reminder, Story};
use super::text::{Greeting, Teller};
use super::watch::{self, Sighting};

/// Nodes that are to stop have this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// While the cluster does not serve yet, why not is looked at this often.
const REMINDER: Duration = Duration::from_secs(5);

/// How often it is looked whether nodes that were started by hand have ended.
const POLL: Duration = Duration::from_millis(100);

/// How often it is looked whether somebody pauses and kills nodes on purpose.
const FAULTS: Duration = Duration::from_millis(100);

/// What may wait to be told, for each node.
const SIGHTINGS: usize = 16;

/// The signals that end everything. They are caught as long as this process lives: a second one changes nothing.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Something that has happened.
enum Event {
    Seen(Sighting),
    Ended(usize, Ending),
    RestartDue(usize),
    KeeperFailed(String),
    KeeperDue,
    Reminder,
    LookForFaults,
    Stop(&'static str),
}

/// Nodes, and all that belongs to them.
pub(super) struct Cluster<'a> {
    home: &'a Home,
    coordination: &'a mut Coordination,
    binary: &'a Path,
    restart: bool,
    processes: Vec<Process>,
    /// When nodes that have ended are started again.
    due: BTreeMap<usize, Instant>,
    keeper_restarts: Restarts,
    /// When a keeper that has failed is started again.
    keeper_due: Option<Instant>,
    sightings: Receiver<Sighting>,
    /// The tasks that look at the nodes; they end with this.
    _watchers: JoinSet<()>,
    turns: Interval,
    looks: Interval,
    /// Whether somebody pauses and kills nodes on purpose: then they are started again whatever was said.
    has_faults: bool,
    register: Register,
    reminder: Reminder,
    story: Story,
    teller: Teller,
}

impl<'a> Cluster<'a> {
    /// A cluster whose nodes are not started.
    pub(super) fn new(
        home: &'a Home,
        coordination: &'a mut Coordination,
        binary: &'a Path,
        restart: bool,
    ) -> Self {
        let shape = home.shape();
        let nodes = 0..shape.nodes;
        let zookeeper = coordination.connect_string();
        let (told, sightings) = mpsc::channel(SIGHTINGS * shape.nodes);
        let mut watchers = JoinSet::new();
        for i in nodes.clone() {
            watchers.spawn(watch::watch(i, shape.endpoint(i), told.clone()));
        }
        let mut keeper_restarts = Restarts::new();
        keeper_restarts.started(Instant::now());
        Self {
            home,
            coordination,
            binary,
            restart,
            processes: nodes.clone().map(|i| Process::new(i, shape, home, &zookeeper, binary)).collect(),
            due: BTreeMap::new(),
            keeper_restarts,
            keeper_due: None,
            sightings,
            _watchers: watchers,
            turns: interval_at(Instant::now() + REMINDER, REMINDER),
            looks: interval_at(Instant::now() + FAULTS, FAULTS),
            has_faults: false,
            register: Register::new(home),
            reminder: Reminder::new(),
            story: Story::new(nodes.map(|i| shape.endpoint(i))),
            teller: Teller::new(),
        }
    }

    /// Starts the nodes and tells what happens, until a signal comes or it cannot go on.
    pub(super) async fn run(&mut self, mut signals: Signals) -> Result<(), DevError> {
        let [what, address, ..] = self.coordination.describe(self.home);
        self.teller.tell(&format!("starting {} nodes; the {what} is at {address}", self.processes.len()));
        for process in &mut self.processes {
            process.start()?;
        }
        self.tell_who_runs();
        loop {
            match self.next(&mut signals).await {
                Event::Seen(sighting) => self.seen(&sighting),
                Event::Ended(node, ending) => self.ended(node, &ending)?,
                Event::RestartDue(node) => self.start_again(node),
                Event::KeeperFailed(reason) => self.keeper_failed(reason).await?,
                Event::KeeperDue => self.start_keeper_again().await,
                Event::Reminder => self.teller.tell_all(&self.reminder.turn(self.story.waits())),
                Event::LookForFaults => self.look_for_faults(),
                Event::Stop(name) => {
                    self.teller.tell(&format!("{name}: stopping the nodes"));
                    return Ok(());
                }
            }
        }
    }

    async fn next(&mut self, signals: &mut Signals) -> Event {
        let restart = self.due.iter().min_by_key(|(_, due)| **due).map(|(&node, &due)| (node, due));
        let restart_due = async {
            match restart {
                Some((node, due)) => {
                    sleep_until(due).await;
                    node
                }
                None => std::future::pending().await,
            }
        };
        let keeper_due = self.keeper_due;
        let keeper_due = async {
            match keeper_due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            name = signals.next() => Event::Stop(name),
            reason = self.coordination.failed() => Event::KeeperFailed(reason),
            (node, ending) = next_end(&mut self.processes) => Event::Ended(node, ending),
            node = restart_due => Event::RestartDue(node),
            () = keeper_due => Event::KeeperDue,
            Some(sighting) = self.sightings.recv() => Event::Seen(sighting),
            _ = self.looks.tick() => Event::LookForFaults,
            _ = self.turns.tick(), if !self.story.has_begun() => Event::Reminder,
        }
    }

    fn seen(&mut self, sighting: &Sighting) {
        let had_begun = self.story.has_begun();
        let lines = self.story.seen(sighting);
        if self.story.has_begun() && !had_begun {
            self.teller.tell("all nodes serve");
            let coordination = self.coordination.describe(self.home);
            let greeting =
                Greeting { home: self.home, coordination, binary: self.binary, restart: self.restart };
            super::text::say(&greeting.text());
        }
        self.teller.tell_all(&lines);
    }

    fn ended(&mut self, node: usize, ending: &Ending) -> Result<(), DevError> {
        if !self.story.has_begun() {
            let ending = match ending {
                Ending::Failed { reason, .. } if self.home.is_temporary() => {
                    format!("has ended by itself: {reason} (--data-dir DIR keeps its log)")
                }
                other => other.describe(),
            };
            return Err(DevError::Start { node, ending });
        }
        self.tell_who_runs();
        // It may have been killed at once after the lock was taken.
        self.look_for_faults();
        let afterwards = if self.restart || self.has_faults {
            let mut pause = self.processes[node].next_pause();
            if self.has_faults {
                // It ends so often because somebody wants it to.
                pause = restarts::SHORTEST;
            }
            self.due.insert(node, Instant::now() + pause);
            Afterwards::Restart(pause)
        } else {
            Afterwards::ByHand(self.processes[node].command())
        };
        let lines = self.story.ended(node, ending, &afterwards);
        self.teller.tell_all(&lines);
        Ok(())
    }

    fn start_again(&mut self, node: usize) {
        // Somebody was quicker. When that one ends as well, it is this one's turn.
        if self.home.is_in_use(node) {
            self.due.insert(node, Instant::now() + restarts::SHORTEST);
            return;
        }
        self.due.remove(&node);
        match self.processes[node].start() {
            Ok(()) => {
                self.story.started(node);
                self.tell_who_runs();
            }
            Err(error) => {
                let pause = self.processes[node].next_pause();
                self.due.insert(node, Instant::now() + pause);
                self.teller.tell(&format!(
                    "node {node} cannot be started, and is tried again in {pause:?}: {error}"
                ));
            }
        }
    }

    /// Says where others find it which processes the nodes are.
    fn tell_who_runs(&self) {
        let processes: Vec<_> = self.processes.iter().map(Process::id).collect();
        if let Err(error) = self.register.write(self.home, &processes) {
            self.teller.tell(&format!("kvctl verify --chaos cannot find the nodes: {error}"));
        }
    }

    /// When somebody begins or ceases to pause and kill nodes on purpose. Those still paused then are woken up.
    fn look_for_faults(&mut self) {
        let has_faults = self.home.has_faults();
        if has_faults == self.has_faults {
            return;
        }
        self.has_faults = has_faults;
        if has_faults {
            self.teller.tell("kvctl verify pauses and kills nodes from here on");
        } else {
            self.processes.iter().for_each(|process| process.signal(ProcessSignal::CONT));
            self.teller.tell("kvctl verify has ceased to pause and kill nodes");
        }
    }

    /// Reads and writes need no keeper, so the cluster goes on while it is started again.
    async fn keeper_failed(&mut self, reason: String) -> Result<(), DevError> {
        if !self.story.has_begun() {
            return Err(DevError::KeeperFailed(reason));
        }
        self.coordination.clear().await;
        let pause = self.keeper_restarts.ended(Instant::now());
        self.keeper_due = Some(Instant::now() + pause);
        self.teller.tell(&format!("the keeper has failed: {reason}"));
        self.teller.tell("  reads and writes go on; no other leader can be elected until it is back");
        self.teller.tell(&format!("  it is started again in {pause:?}"));
        Ok(())
    }

    async fn start_keeper_again(&mut self) {
        self.keeper_due = None;
        match self.coordination.start_again(self.home).await {
            Ok(()) => {
                self.keeper_restarts.started(Instant::now());
                self.teller.tell("the keeper runs again");
            }
            Err(error) => {
                let pause = self.keeper_restarts.ended(Instant::now());
                self.keeper_due = Some(Instant::now() + pause);
                self.teller.tell(&format!("{error}; it is tried again in {pause:?}"));
            }
        }
    }

    /// Stops everything that belongs to the cluster. Returns who was started by hand and could not be stopped.
    pub(super) async fn stop(mut self) -> Option<String> {
        let mut asked = BTreeSet::new();
        self.ask_by_hand(&mut asked).await;
        for node in stop_all(&mut self.processes, PATIENCE).await {
            self.teller
                .tell(&format!("node {node} did not stop within {} s and was killed", PATIENCE.as_secs()));
        }
        let all_gone = async {
            while !self.by_hand().is_empty() {
                // One that is just starting could not hear it before.
                self.ask_by_hand(&mut asked).await;
                sleep(POLL).await;
            }
        };
        if timeout(PATIENCE, all_gone).await.is_ok() {
            return None;
        }
        let shape = self.home.shape();
        let name = |&node: &usize| format!("node {node} ({})", shape.endpoint(node));
        let left: Vec<String> = self.by_hand().iter().map(name).collect();
        for name in &left {
            self.teller.tell(&format!("{name}, which was started by hand, does not stop, and still runs"));
        }
        self.teller.tell(&format!("the data stays in {}", self.home.path().display()));
        Some(left.join(", "))
    }

    /// The nodes whose data a process uses that is none of ours.
    fn by_hand(&self) -> Vec<usize> {
        let is_by_hand = |node: &usize| !self.processes[*node].is_running() && self.home.is_in_use(*node);
        (0..self.processes.len()).filter(is_by_hand).collect()
    }

    /// Asks nodes that were started by hand to stop, each until it says that it will.
    async fn ask_by_hand(&self, asked: &mut BTreeSet<usize>) {
        for node in self.by_hand() {
            if !asked.contains(&node) && watch::ask_to_stop(&self.home.shape().endpoint(node)).await {
                asked.insert(node);
                self.teller.tell(&format!("node {node}, which was started by hand, stops as well"));
            }
        }
    }
}
