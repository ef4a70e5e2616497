//! The task that owns the nodes: it starts them, tells what happens, and stops them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval_at, sleep_until};

use super::DevError;
use super::coordination::Coordination;
use super::home::Home;
use super::process::{Process, next_end, stop_all};
use super::story::{Afterwards, Ending, Story};
use super::text::{Greeting, Teller};
use super::watch::{self, Sighting};

/// Nodes that are to stop have this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// While the cluster does not serve yet, why not is told this often.
const REMINDER: Duration = Duration::from_secs(5);

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
    Reminder,
    Stop(&'static str),
}

/// Nodes, and all that belongs to them.
pub(super) struct Cluster<'a> {
    home: &'a Home,
    coordination: &'a Coordination,
    binary: &'a Path,
    restart: bool,
    processes: Vec<Process>,
    /// When nodes that have ended are started again.
    due: BTreeMap<usize, Instant>,
    sightings: Receiver<Sighting>,
    /// The tasks that look at the nodes; they end with this.
    _watchers: JoinSet<()>,
    reminder: Interval,
    story: Story,
    teller: Teller,
}

impl<'a> Cluster<'a> {
    /// A cluster whose nodes are not started.
    pub(super) fn new(
        home: &'a Home,
        coordination: &'a Coordination,
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
        Self {
            home,
            coordination,
            binary,
            restart,
            processes: nodes.clone().map(|i| Process::new(i, shape, home, &zookeeper, binary)).collect(),
            due: BTreeMap::new(),
            sightings,
            _watchers: watchers,
            reminder: interval_at(Instant::now() + REMINDER, REMINDER),
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
        loop {
            match self.next(&mut signals).await {
                Event::Seen(sighting) => self.seen(&sighting),
                Event::Ended(node, ending) => self.ended(node, &ending)?,
                Event::RestartDue(node) => self.start_again(node),
                Event::KeeperFailed(reason) => return Err(DevError::KeeperFailed(reason)),
                Event::Reminder => self.teller.tell_all(&self.story.waits()),
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
        tokio::select! {
            name = signals.next() => Event::Stop(name),
            reason = self.coordination.failed() => Event::KeeperFailed(reason),
            (node, ending) = next_end(&mut self.processes) => Event::Ended(node, ending),
            node = restart_due => Event::RestartDue(node),
            Some(sighting) = self.sightings.recv() => Event::Seen(sighting),
            _ = self.reminder.tick(), if !self.story.has_begun() => Event::Reminder,
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
            return Err(DevError::Start { node, ending: ending.describe() });
        }
        let afterwards = if self.restart {
            let pause = self.processes[node].next_pause();
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
        self.due.remove(&node);
        // Somebody may have been quicker.
        if self.story.is_by_hand(node) {
            return;
        }
        match self.processes[node].start() {
            Ok(()) => self.story.started(node),
            Err(error) => {
                self.teller.tell(&format!("node {node} cannot be started: {error}"));
                self.due.insert(node, Instant::now() + self.processes[node].next_pause());
            }
        }
    }

    /// Stops everything that belongs to the cluster.
    pub(super) async fn stop(mut self) {
        let by_hand: Vec<usize> =
            (0..self.processes.len()).filter(|&node| self.story.is_by_hand(node)).collect();
        for node in by_hand {
            if watch::ask_to_stop(&self.home.shape().endpoint(node)).await {
                self.teller.tell(&format!("node {node}, which was started by hand, stops as well"));
            }
        }
        for node in stop_all(&mut self.processes, PATIENCE).await {
            self.teller
                .tell(&format!("node {node} did not stop within {} s and was killed", PATIENCE.as_secs()));
        }
    }
}
