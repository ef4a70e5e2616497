//! The cluster as an operator keeps it: nodes that are to run are started again when they end, and what they say of
//! themselves is watched.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quorumkv_client::{Client, Members, NodeId, NodeRole, NodeStatus};
use rustix::process::Signal;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::ends::{self, Done};
use crate::testbed::{Killed, Node, Place, Testbed};

/// How often ended nodes are looked for, and statuses asked.
const LOOK: Duration = Duration::from_millis(100);

/// How long a node that has ended stays down.
const RESTART: Duration = Duration::from_millis(300);

/// How long one status may take: who does not answer is not waited for.
const STATUS_TIMEOUT: Duration = Duration::from_millis(400);

/// How long asking for the members may take.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a node may take to end in good order: it drains for 3 s, and connections get 2 s to end.
const ENDING: Duration = Duration::from_secs(15);

/// What a node logs just before it listens to SIGTERM.
const STARTS: &str = " starts node=";

/// Whether a node is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// It is, and is started again when it ends.
    Up,
    /// It is not, for now.
    Down,
    /// It is no part of the cluster.
    Spare,
}

#[derive(Debug)]
struct Slot {
    wanted: Wanted,
    /// The fault that has its hands on the process.
    claimed: bool,
    status: Option<NodeStatus>,
    /// Who it said last that it is.
    identity: Option<NodeId>,
    /// Whether it may be another from now on: its disk was wiped, or a byte of its log is not what it was.
    may_be_another: bool,
    /// What was done to it; of that, what ends with a process only as long as that runs.
    done: Done,
    /// When it may be started again.
    start_at: Instant,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    testbed: Testbed,
    size: usize,
    slots: Mutex<Vec<Slot>>,
    /// How nodes have ended by themselves, and how often.
    ends: Mutex<BTreeMap<String, u64>>,
    /// What is wrong with the nodes, and how often it was seen.
    problems: Mutex<BTreeMap<String, u64>>,
    /// Segments of which a byte is not what it was, and at which nodes.
    flipped: Mutex<Vec<(usize, String)>>,
    observer: Client,
}

impl Cluster {
    /// A cluster of the first `size` nodes of a test bed, none of which runs yet.
    ///
    /// # Errors
    /// There are no nodes.
    pub fn new(testbed: Testbed, size: usize) -> Result<Arc<Self>> {
        let slot = |number| Slot {
            wanted: if number < size { Wanted::Up } else { Wanted::Spare },
            claimed: false,
            status: None,
            identity: None,
            may_be_another: false,
            done: Done::default(),
            start_at: Instant::now(),
        };
        let observer = client(testbed.nodes(), "observer", STATUS_TIMEOUT)?;
        let slots = Mutex::new((0..testbed.nodes().len()).map(slot).collect());
        Ok(Arc::new(Self {
            testbed,
            size,
            slots,
            ends: Mutex::default(),
            problems: Mutex::default(),
            flipped: Mutex::default(),
            observer,
        }))
    }

    /// Where it runs.
    #[must_use]
    pub const fn testbed(&self) -> &Testbed {
        &self.testbed
    }

    /// How many nodes it began with.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// One of its nodes.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.testbed.nodes()[number]
    }

    /// A client of all nodes.
    ///
    /// # Errors
    /// Never, with nodes.
    pub fn client(&self, name: &str, timeout: Duration) -> Result<Client> {
        client(self.testbed.nodes(), name, timeout)
    }

    /// The nodes that belong to the cluster, running or not.
    #[must_use]
    pub fn members(&self) -> Vec<usize> {
        self.with(|slot| slot.wanted != Wanted::Spare)
    }

    /// The nodes that do not.
    #[must_use]
    pub fn spares(&self) -> Vec<usize> {
        self.with(|slot| slot.wanted == Wanted::Spare && !slot.claimed)
    }

    /// The node that leads the highest epoch, as they said last.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let slots = self.slots();
        let leads = |(number, slot): (usize, &Slot)| {
            let status = slot.status.as_ref().filter(|status| status.role == NodeRole::Leader)?;
            Some((status.epoch, number))
        };
        slots.iter().enumerate().filter_map(leads).max().map(|(_, number)| number)
    }

    /// Where nodes stand in the network.
    #[must_use]
    pub fn places(&self, nodes: &[usize]) -> Vec<Place> {
        nodes.iter().map(|&number| self.node(number).place()).collect()
    }

    /// Who belongs to the cluster, as its leader says.
    ///
    /// # Errors
    /// No leader says so in time.
    pub async fn ask_members(&self) -> Result<Members> {
        Ok(self.observer.with_timeout(MEMBERS_TIMEOUT).members().await?)
    }

    /// Asks a node how it is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, number: usize) -> Result<NodeStatus> {
        Ok(self.observer.status(self.node(number).endpoint()).await?)
    }

    /// Takes the process of a node into a fault's hands, unless another has it or it does not belong to the cluster.
    #[must_use]
    pub fn claim(self: &Arc<Self>, number: usize) -> Option<Claim> {
        let slot = &mut self.slots()[number];
        if slot.claimed {
            return None;
        }
        slot.claimed = true;
        Some(Claim { cluster: Arc::clone(self), number })
    }

    /// How nodes have ended by themselves, and how often.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<String, u64> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is wrong with the nodes: ends and changes of identity that nothing explains which was done to them.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let times = |count| if count > 1 { format!(" ({count} times)") } else { String::new() };
        problems.iter().map(|(problem, &count)| format!("{problem}{}", times(count))).collect()
    }

    /// Says that something is wrong.
    pub(crate) fn object(&self, problem: String) {
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner).entry(problem).or_default() += 1;
    }

    /// A fault is going to remove a node from the cluster: from now on it may end for that reason.
    pub fn let_go(&self, number: usize) {
        self.slots()[number].done.let_go = true;
    }

    /// A byte of a segment of a node's log is going to change: the node may give up who it is, and say that it is that segment.
    pub fn damage(&self, number: usize, segment: &str) {
        self.slots()[number].may_be_another = true;
        let mut flipped = self.flipped.lock().unwrap_or_else(PoisonError::into_inner);
        flipped.push((number, segment.to_owned()));
    }

    /// What was damaged at a node is gone, and the node is who it was: there is no reason any more to be another.
    pub fn is_whole(&self, number: usize) {
        self.slots()[number].may_be_another = false;
    }

    /// The segments of a node of which a byte was ever changed.
    pub(crate) fn damaged(&self, number: usize) -> Vec<String> {
        let flipped = self.flipped.lock().unwrap_or_else(PoisonError::into_inner);
        flipped.iter().filter(|(node, _)| *node == number).map(|(_, name)| name.clone()).collect()
    }

    /// Starts what is to run and does not, and keeps asking the nodes how they are, for ever.
    ///
    /// # Errors
    /// A process cannot be started.
    pub async fn keep_running(self: Arc<Self>) -> Result<()> {
        loop {
            let cluster = Arc::clone(&self);
            spawn_blocking(move || cluster.restart_ended()).await??;
            self.look().await;
            sleep(LOOK).await;
        }
    }

    fn restart_ended(&self) -> Result<()> {
        for (number, node) in self.testbed.nodes().iter().enumerate() {
            if let Some(status) = node.take_ended()? {
                self.note_end(number, status, false);
            }
            let due = {
                let slots = self.slots();
                slots[number].wanted == Wanted::Up && slots[number].start_at <= Instant::now()
            };
            if due {
                node.start()?;
            }
        }
        Ok(())
    }

    /// Judges how a process has ended.
    fn note_end(&self, number: usize, status: ExitStatus, killed: bool) {
        let done = {
            let slot = &mut self.slots()[number];
            slot.start_at = Instant::now() + RESTART;
            let done = Done { killed, troubled: self.node(number).was_troubled(), ..slot.done };
            // The next process has heard nothing.
            (slot.done.told_to_end, slot.done.told_early) = (false, false);
            if done.let_go && ends::was_removed(status) {
                slot.wanted = Wanted::Spare;
            }
            done
        };
        let is_explained = ends::is_explained(status, done);
        if is_explained && (killed || done.told_to_end) && !ends::was_removed(status) {
            return;
        }
        let how = match status.code() {
            Some(_) => format!("{}: {}", ends::named(status), self.last_words(number)),
            None => ends::named(status),
        };
        if !is_explained {
            self.object(format!("n{number} ended, which nothing explains that was done to it: {how}"));
        }
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner).entry(how).or_default() += 1;
    }

    /// What a node has said last, since it was started.
    fn last_words(&self, number: usize) -> String {
        let log = self.node(number).logged_since_start();
        let line = log.lines().rev().find(|line| line.starts_with("kvd: ")).unwrap_or("nothing was said");
        without_names(line.trim_start_matches("kvd: "))
    }

    /// Asks all nodes at once how they are.
    async fn look(&self) {
        let mut asked = JoinSet::new();
        for (number, node) in self.testbed.nodes().iter().enumerate() {
            let (observer, endpoint) = (self.observer.clone(), node.endpoint().to_owned());
            if node.is_running() {
                asked.spawn(async move { (number, observer.status(&endpoint).await.ok()) });
            } else {
                self.slots()[number].status = None;
            }
        }
        while let Some(answer) = asked.join_next().await {
            let Ok((number, status)) = answer else { continue };
            if let Some(status) = &status {
                self.note_identity(number, status.node);
            }
            self.slots()[number].status = status;
        }
    }

    /// A node that gives up who it was needs a reason, since with it goes what it had promised.
    fn note_identity(&self, number: usize, identity: NodeId) {
        let slot = &mut self.slots()[number];
        if slot.identity == Some(identity) {
            return;
        }
        if slot.identity.is_some() && !slot.may_be_another {
            self.object(format!(
                "n{number} is another now, although neither was its disk wiped nor a byte of its log flipped"
            ));
        }
        (slot.identity, slot.may_be_another) = (Some(identity), false);
    }

    fn with(&self, holds: impl Fn(&Slot) -> bool) -> Vec<usize> {
        let slots = self.slots();
        slots.iter().enumerate().filter(|(_, slot)| holds(slot)).map(|(number, _)| number).collect()
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right of one fault to start and stop a node's process, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    cluster: Arc<Cluster>,
    number: usize,
}

impl Claim {
    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.cluster.node(self.number)
    }

    /// Says whether the node is to run. Nothing happens to its process at once.
    pub fn want(&self, wanted: Wanted) {
        self.cluster.slots()[self.number].wanted = wanted;
    }

    /// Kills the node, which stays down until it is wanted again. Returns whether it ran.
    ///
    /// # Errors
    /// The system does not say how it ended.
    pub async fn kill(&self) -> Result<bool> {
        self.want(Wanted::Down);
        let Some(Killed { ran, status }) = self.blocking(|node| node.kill()).await?? else {
            return Ok(false);
        };
        // It may have come to an end of its own just before.
        self.cluster.note_end(self.number, status, ran);
        Ok(ran)
    }

    /// Has the node end in good order, and waits until it has; it stays down until it is wanted again. One that does not end in
    /// time is killed, and unless its disk was slow meanwhile, that is wrong. Returns whether it ran.
    ///
    /// # Errors
    /// The system does not say how it ended.
    pub async fn terminate(&self) -> Result<bool> {
        self.want(Wanted::Down);
        let node = self.node();
        let told_early = !node.logged_since_start().contains(STARTS);
        {
            let done = &mut self.cluster.slots()[self.number].done;
            (done.told_to_end, done.told_early) = (true, told_early);
        }
        if node.signal(Signal::TERM).is_err() {
            let done = &mut self.cluster.slots()[self.number].done;
            (done.told_to_end, done.told_early) = (false, false);
            return Ok(false);
        }
        let deadline = Instant::now() + ENDING;
        let mut was_slow = false;
        loop {
            was_slow |= node.disk().is_slow();
            if let Some(status) = node.take_ended()? {
                self.cluster.note_end(self.number, status, false);
                return Ok(true);
            }
            // Who keeps the cluster running may have seen it first.
            if !node.is_running() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        if !was_slow {
            let number = self.number;
            self.cluster.object(format!("n{number} did not end within {ENDING:?} after SIGTERM"));
        }
        self.kill().await?;
        Ok(true)
    }

    /// All that the node had is taken from it: it is not who it was, and nothing that was done to that one concerns it.
    pub fn begin_anew(&self) {
        self.node().disk().clear();
        let slot = &mut self.cluster.slots()[self.number];
        (slot.may_be_another, slot.done) = (true, Done::default());
    }

    /// Does something with the node that may block.
    ///
    /// # Errors
    /// It panics.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T> {
        let (cluster, number) = (Arc::clone(&self.cluster), self.number);
        spawn_blocking(move || work(cluster.node(number))).await.context("a task of a fault")
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let slot = &mut self.cluster.slots()[self.number];
        slot.claimed = false;
        if slot.wanted == Wanted::Down {
            slot.wanted = Wanted::Up;
        }
    }
}

/// What a node says, without what differs between nodes and times.
pub(crate) fn without_names(text: &str) -> String {
    let has_digits = |word: &str| word.bytes().any(|byte| byte.is_ascii_digit());
    let is_name = |word: &&str| word.contains('/') || (word.len() > 4 && has_digits(word));
    text.split_whitespace().map(|word| if is_name(&word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

fn client(nodes: &[Node], name: &str, timeout: Duration) -> Result<Client> {
    let builder = Client::builder(nodes.iter().map(Node::endpoint)).name(format!("chaos-{name}"));
    Ok(builder.timeout(timeout).connect_timeout(Duration::from_secs(1)).connect()?)
}
