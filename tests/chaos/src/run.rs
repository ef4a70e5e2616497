//! A run: faults in bursts, calm after each, and a look at everything in the end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quorumkv_client::Client;
use quorumkv_tests::cluster::wait_until;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::clients::Clients;
use crate::cluster::Cluster;
use crate::faults::{Context, Done, Kind, Log, Plan, Schedule};
use crate::recorder::Recorder;
use crate::report::{Report, Skipped};
use crate::testbed::Testbed;
use crate::verdict;

/// Nodes that stand ready to become members.
const SPARES: usize = 2;

/// Faults that go on at once, at most.
const AT_ONCE: usize = 5;

/// Faults between two times of calm.
const BURST: std::ops::Range<u64> = 8..24;

/// How long the cluster may take to form on a busy machine.
const FORMING: Duration = Duration::from_secs(120);

/// How long faults may take to end that have to run their course: a member that is to be replaced has to be, and a node that has
/// lost its disk is to vote again.
const ENDING: Duration = Duration::from_secs(180);

/// How long a cluster that nothing is wrong with any more may take until every node serves.
const SERVING: Duration = Duration::from_secs(60);

/// How long one answer may take there until it is asked for again.
const ANSWER: Duration = Duration::from_secs(5);

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes form the cluster.
    pub nodes: usize,
    /// Decides which faults happen when, and what clients choose.
    pub seed: u64,
    /// Ends after so many faults.
    pub faults: Option<u64>,
    /// Ends after this time.
    pub duration: Option<Duration>,
    /// Writes the history there, an operation a line.
    pub history: Option<PathBuf>,
    /// Where an HTML page is written that shows a violation.
    pub page: PathBuf,
}

/// Runs, and looks at what came of it.
///
/// # Errors
/// The test bed does not do as told. What is wrong with the cluster is in the report.
pub async fn run(options: &Options) -> Result<Report> {
    let size = options.nodes;
    eprintln!("seed {}: {size} nodes and {SPARES} to spare, three ZooKeepers", options.seed);
    eprintln!("kvd and kvctl are built if they have changed, which takes minutes then");
    let testbed = spawn_blocking(move || Testbed::new(size, size + SPARES)).await??;
    let cluster = Cluster::new(testbed, size)?;
    let keeper = tokio::spawn(Arc::clone(&cluster).keep_running());
    let result = run_with(options, &cluster).await;
    if keeper.is_finished() {
        // It only ends with an error, which says more than what followed from it.
        keeper.await??;
    } else {
        keeper.abort();
    }
    let report = result?;
    if !report.is_good() {
        eprintln!("the nodes' logs are kept in {}", cluster.testbed().keep_logs().display());
    }
    // Its end takes a while: containers, namespaces, mounts.
    spawn_blocking(move || drop(cluster)).await?;
    Ok(report)
}

async fn run_with(options: &Options, cluster: &Arc<Cluster>) -> Result<Report> {
    serves(cluster, FORMING).await.context("the cluster does not form")?;
    let recorder = Arc::new(Recorder::new(options.history.as_deref())?);
    let clients = Clients::start(cluster, &recorder, options.seed)?;
    let mut storm = Storm::new(options, cluster, &recorder);
    let begun = Instant::now();
    let interrupted = storm.rage(options).await?;
    let keys = clients.stop().await?;
    let mut problems = std::mem::take(&mut storm.problems);
    problems.extend(verdict::read_everything(cluster, &recorder, &keys).await?);
    problems.extend(verdict::panics(cluster));
    let losses = verdict::losses(cluster);
    problems.extend(losses.problems);
    problems.extend(cluster.problems());
    let operations = recorder.take()?;
    let took = begun.elapsed();
    eprintln!("{} operations are being checked", operations.len());
    let page = options.page.clone();
    let (operations, checked) = spawn_blocking(move || {
        let checked = verdict::check(&operations, &page);
        (operations, checked)
    })
    .await?;
    let mut report = Report::new(options.seed, options.nodes, took, interrupted);
    report.count_faults(&storm.log.all(), &storm.skipped);
    report.problems = problems;
    report.count_operations(&operations, checked?);
    report.recoveries(&storm.recoveries);
    report.ends = cluster.ends();
    report.losses = losses.reasons;
    Ok(report)
}

/// Faults that go on, and what came of those that are over.
struct Storm {
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    log: Arc<Log>,
    context: Context,
    schedule: Schedule,
    rng: fastrand::Rng,
    calm: watch::Sender<bool>,
    ongoing: JoinSet<(Kind, Result<Done>)>,
    skipped: Skipped,
    /// Kinds that have not happened yet because they made no sense when it was their turn: they get another.
    owed: BTreeSet<Kind>,
    recoveries: Vec<Duration>,
    problems: Vec<String>,
}

impl Storm {
    fn new(options: &Options, cluster: &Arc<Cluster>, recorder: &Arc<Recorder>) -> Self {
        let (calm, is_calm) = watch::channel(false);
        let log = Arc::new(Log::default());
        let mut schedule = Schedule::new(options.seed);
        let first = schedule.next().expect("it has no end");
        Self {
            cluster: Arc::clone(cluster),
            recorder: Arc::clone(recorder),
            context: Context::new(cluster, recorder, &log, is_calm, first),
            log,
            // From its beginning again.
            schedule: Schedule::new(options.seed),
            rng: fastrand::Rng::with_seed(options.seed),
            calm,
            ongoing: JoinSet::new(),
            skipped: Skipped::new(),
            owed: BTreeSet::new(),
            recoveries: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Lets faults happen until there were enough; returns whether it was told to end before (Ctrl-C, SIGTERM).
    async fn rage(&mut self, options: &Options) -> Result<bool> {
        let begun = Instant::now();
        let mut interrupted = interrupted()?;
        loop {
            let burst = self.rng.u64(BURST);
            for _ in 0..burst {
                let enough = options.faults.is_some_and(|faults| self.log.count() >= faults)
                    || options.duration.is_some_and(|duration| begun.elapsed() >= duration);
                if enough {
                    self.quiet().await?;
                    return Ok(false);
                }
                let plan = self.plan();
                tokio::select! {
                    next = self.next_fault(plan) => next?,
                    _ = interrupted.wait_for(|told| *told) => {
                        self.quiet().await?;
                        return Ok(true);
                    }
                }
            }
            self.quiet().await?;
            if !self.problems.is_empty() || !self.cluster.problems().is_empty() {
                return Ok(false);
            }
        }
    }

    /// The next fault: of the kind whose turn it is, or of one that is owed a turn once every kind has had one.
    fn plan(&mut self) -> Plan {
        let plan = self.schedule.next().expect("it has no end");
        let is_second = plan.number > Kind::ALL.len() as u64;
        let owed = if is_second { self.owed.pop_first() } else { None };
        Plan { kind: owed.unwrap_or(plan.kind), ..plan }
    }

    async fn next_fault(&mut self, plan: Plan) -> Result<()> {
        sleep(plan.gap).await;
        while self.ongoing.len() >= AT_ONCE {
            self.one_over().await?;
        }
        let context = self.context.with_plan(plan);
        self.ongoing.spawn(async move { (plan.kind, plan.kind.happen(&context).await) });
        Ok(())
    }

    async fn one_over(&mut self) -> Result<()> {
        let Some(ended) = self.ongoing.join_next().await else { return Ok(()) };
        let (kind, done) = ended?;
        match done.with_context(|| format!("{} went wrong", kind.name()))? {
            Done::Over => {}
            Done::Skipped(why) => {
                *self.skipped.entry((kind, why)).or_default() += 1;
                if !self.log.has(kind) {
                    self.owed.insert(kind);
                }
            }
        }
        Ok(())
    }

    /// Ends all faults, and sees whether the cluster is well again.
    async fn quiet(&mut self) -> Result<()> {
        self.calm.send_replace(true);
        let ending = async {
            while !self.ongoing.is_empty() {
                self.one_over().await?;
            }
            anyhow::Ok(())
        };
        match timeout(ENDING, ending).await {
            Ok(ended) => ended?,
            Err(_) => {
                let left = self.unfinished();
                self.problems.push(format!("after {ENDING:?} without further faults, {left} is not over"));
                self.ongoing.shutdown().await;
                return Ok(());
            }
        }
        self.heal().await?;
        let begun = Instant::now();
        match serves(&self.cluster, SERVING).await {
            Ok(()) => {
                let took = begun.elapsed();
                let (faults, operations) = (self.log.count(), self.recorder.count());
                eprintln!(
                    "calm: {faults} faults, {operations} operations; all served {took:.1?} after the last fault"
                );
                self.recoveries.push(took);
            }
            Err(error) => self.problems.push(format!("the cluster does not serve without faults: {error:#}")),
        }
        self.calm.send_replace(false);
        Ok(())
    }

    /// What the faults say that are not over.
    fn unfinished(&self) -> String {
        let open = self.log.all().into_iter().filter(|record| record.to_ms == record.from_ms);
        open.map(|record| format!("{} ({})", record.kind, record.what)).collect::<Vec<_>>().join(", ")
    }

    async fn heal(&self) -> Result<()> {
        let cluster = Arc::clone(&self.cluster);
        spawn_blocking(move || {
            if !cluster.testbed().network().is_whole() {
                bail!("a fault has left the network cut");
            }
            cluster.testbed().nodes().iter().for_each(|node| node.disk().heal());
            cluster.testbed().ensemble().wait_serving()
        })
        .await?
    }
}

/// Whether the run was told to end: it ends in good order then. Told twice, it ends at once, and the next run cleans up.
fn interrupted() -> Result<watch::Receiver<bool>> {
    let (told, is_told) = watch::channel(false);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if told.send_replace(true) {
                std::process::exit(1);
            }
        }
    });
    Ok(is_told)
}

/// Waits until every node that belongs to the cluster serves: it says that it is ready, and answers a write and a read.
///
/// # Errors
/// One of them does not, within this time.
pub async fn serves(cluster: &Cluster, within: Duration) -> Result<()> {
    // One after the other is soon enough: who serves already answers at once.
    let deadline = Instant::now() + within;
    for number in cluster.members() {
        serves_at(cluster, number, deadline.saturating_duration_since(Instant::now())).await?;
    }
    Ok(())
}

/// The same of one node.
async fn serves_at(cluster: &Cluster, number: usize, within: Duration) -> Result<()> {
    let client =
        Client::builder([cluster.node(number).endpoint()]).name("chaos-calm").timeout(ANSWER).connect()?;
    // Nobody else writes it.
    let key = format!("calm-{number}");
    let works = async || -> Result<()> {
        let status = cluster.status(number).await?;
        if !status.ready {
            bail!("it is not ready: {}", status.remarks);
        }
        client.put(key.clone(), key.clone()).await.context("a write")?;
        let found = client.get(key.clone()).await.context("a read")?.value;
        if found.is_none_or(|found| found.value != key) {
            bail!("a read does not find what was written before");
        }
        Ok(())
    };
    let told = async || works().await.map_err(|error| format!("{error:#}"));
    wait_until(within, &format!("n{number} serves"), told).await?;
    client.close().await;
    Ok(())
}
