//! The cluster as an operator keeps it: nodes that are to run are started again when they end, and what they say of
//! themselves is watched.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quorumkv_client::{Client, Members, NodeRole, NodeStatus};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::testbed::{Node, Place, Testbed};

/// How often ended nodes are looked for, and statuses asked.
const LOOK: Duration = Duration::from_millis(100);

/// How long a node that has ended stays down.
const RESTART: Duration = Duration::from_millis(300);

/// How long one status may take: who does not answer is not waited for.
const STATUS_TIMEOUT: Duration = Duration::from_millis(400);

/// How long asking for the members may take.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(3);

/// What a node ends with that was removed.
const REMOVED: i32 = 3;

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
            start_at: Instant::now(),
        };
        let observer = client(testbed.nodes(), "observer", STATUS_TIMEOUT)?;
        let slots = Mutex::new((0..testbed.nodes().len()).map(slot).collect());
        Ok(Arc::new(Self { testbed, size, slots, ends: Mutex::default(), observer }))
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
                self.note_end(number, status);
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

    fn note_end(&self, number: usize, status: ExitStatus) {
        let slot = &mut self.slots()[number];
        slot.start_at = Instant::now() + RESTART;
        if status.code() == Some(REMOVED) {
            slot.wanted = Wanted::Spare;
        }
        // Where a fault stops it, it ends as it is told.
        if slot.wanted == Wanted::Down && status.success() {
            return;
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}: {}", self.last_words(number)),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
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
            self.slots()[number].status = status;
        }
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
        self.blocking(|node| node.kill()).await?
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
