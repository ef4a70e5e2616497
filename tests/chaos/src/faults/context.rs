//! What a fault is given, and what it says of itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::{Kind, Plan};
use crate::cluster::Cluster;
use crate::recorder::Recorder;

/// How long a fault waits for what it needs before it is skipped.
const SOON: Duration = Duration::from_secs(6);

/// Whether all faults are to come to their ends.
pub type Calm = watch::Receiver<bool>;

/// One fault that has happened.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Which one of the schedule.
    pub number: u64,
    /// The name of its kind.
    pub kind: &'static str,
    /// Whom it hit, and how.
    pub what: String,
    /// When it began, in milliseconds since the run did.
    pub from_ms: u64,
    /// When it was over.
    pub to_ms: u64,
    /// The longest time without an acknowledged write of which a part lies within it.
    pub longest_without_write_ms: u64,
    #[serde(skip)]
    begun: Option<Instant>,
}

/// All faults that have happened.
#[derive(Debug, Default)]
pub struct Log {
    records: Mutex<Vec<Record>>,
}

impl Log {
    /// How many have happened, or are happening.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.records().len() as u64
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Record> {
        self.records().clone()
    }

    /// Whether a kind has happened, or is happening.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.records().iter().any(|record| record.kind == kind.name())
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What faults share.
#[derive(Clone, Debug)]
pub struct Context {
    /// Whom to harm.
    pub cluster: Arc<Cluster>,
    /// The fault.
    pub plan: Plan,
    pub(super) log: Arc<Log>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) calm: Calm,
    /// Held by whoever changes the members, or takes from a node what it had synced: of these there is one at a time.
    structure: Arc<AsyncMutex<()>>,
    /// Held by whoever stops ZooKeepers.
    pub(super) zookeepers: Arc<AsyncMutex<()>>,
}

impl Context {
    /// A context of faults that share a log and a cluster.
    #[must_use]
    pub fn new(
        cluster: &Arc<Cluster>,
        recorder: &Arc<Recorder>,
        log: &Arc<Log>,
        calm: Calm,
        plan: Plan,
    ) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            plan,
            log: Arc::clone(log),
            recorder: Arc::clone(recorder),
            calm,
            structure: Arc::default(),
            zookeepers: Arc::default(),
        }
    }

    /// The same for another fault.
    #[must_use]
    pub fn with_plan(&self, plan: Plan) -> Self {
        Self { plan, ..self.clone() }
    }

    /// The fault's own random numbers.
    #[must_use]
    pub fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.plan.seed)
    }

    /// Says that the harm is done, from which moment the fault counts. It is over when what this returns is dropped.
    #[must_use]
    pub fn begins(&self, what: impl Into<String>) -> Ongoing {
        let what = what.into();
        let from_ms = self.recorder.now() / 1_000_000;
        eprintln!(
            "{:>9.3}  {:<22} {what}",
            Duration::from_millis(from_ms).as_secs_f64(),
            self.plan.kind.name()
        );
        let mut records = self.log.records();
        records.push(Record {
            number: self.plan.number,
            kind: self.plan.kind.name(),
            what,
            from_ms,
            to_ms: from_ms,
            longest_without_write_ms: 0,
            begun: Some(Instant::now()),
        });
        Ongoing { log: Arc::clone(&self.log), recorder: Arc::clone(&self.recorder), index: records.len() - 1 }
    }

    /// Waits as long as the fault is to last, or until there is to be calm.
    pub async fn last(&self) {
        self.wait(self.plan.length).await;
    }

    /// Waits, or until there is to be calm.
    pub(super) async fn wait(&self, length: Duration) {
        let mut calm = self.calm.clone();
        // An error is the end of the run, which is calm as well.
        let _ = timeout(length, calm.wait_for(|calm| *calm)).await;
    }

    /// Waits until something is there that a fault needs, for a while.
    pub(super) async fn soon<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + SOON;
        loop {
            let found = look();
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            self.before_the_next_look().await;
        }
    }

    /// The leader, waiting for one for a while.
    pub(super) async fn leader(&self) -> Vec<usize> {
        self.soon(|| self.cluster.leader()).await.into_iter().collect()
    }

    /// The right to change the members, or to take from a node what it had synced, if nobody has it soon.
    pub(super) async fn structure(&self) -> Option<MutexGuard<'_, ()>> {
        timeout(SOON, self.structure.lock()).await.ok()
    }

    /// Waits until it is time to look again whether something is so. There is no end to that: who waits for calm has one.
    pub(super) async fn before_the_next_look(&self) {
        sleep(Duration::from_millis(200)).await;
    }

    /// Does something that blocks.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cluster) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = Arc::clone(&self.cluster);
        spawn_blocking(move || work(&cluster)).await.context("a task of a fault")?
    }

    /// The name of the fault's kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.plan.kind
    }
}

/// A fault that is there.
#[derive(Debug)]
pub struct Ongoing {
    log: Arc<Log>,
    recorder: Arc<Recorder>,
    index: usize,
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let record = &mut self.log.records()[self.index];
        record.to_ms = self.recorder.now() / 1_000_000;
        let gap = record.begun.map_or(Duration::ZERO, |begun| self.recorder.longest_gap(begun));
        record.longest_without_write_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
    }
}
