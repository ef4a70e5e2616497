//! Many seeds, on all cores.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use quorumkv_simulator::{Failure, Reduction, Summary, Trace};

/// Between two lines about how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Many {
    /// The first seed.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "seed")]
    seeds: u64,
    /// Simulated time to run instead, in years of 365 days.
    #[arg(long, value_parser = years, conflicts_with_all = ["seeds", "seed"])]
    years: Option<f64>,
    /// Only those seeds whose clusters begin with so many nodes: 1 to 5, or 7.
    #[arg(long, value_parser = nodes, conflicts_with = "seed")]
    nodes: Option<u64>,
    /// How many at a time; all cores if it is not given.
    #[arg(long, conflicts_with = "seed")]
    jobs: Option<NonZeroUsize>,
}

#[derive(Default)]
struct Progress {
    next: AtomicU64,
    /// How many runs were begun.
    begun: AtomicU64,
    failed: AtomicBool,
    total: Mutex<Total>,
}

#[derive(Default)]
struct Total {
    seeds: u64,
    summary: Summary,
    /// Time that the runs took of the cores, together: what others took of them meanwhile does not count.
    busy: Duration,
    failures: Vec<Failure>,
}

impl Many {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let cores = std::thread::available_parallelism()?.get();
        let progress = Progress { next: AtomicU64::new(self.first), ..Progress::default() };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.map_or(cores, NonZeroUsize::get) {
                scope.spawn(|| self.work(&progress));
            }
            scope.spawn(|| self.report(&progress));
        });
        let total = progress.total.into_inner().expect("no run panics");
        println!("{}", total.summary);
        println!("{}", total.speed());
        let Some(failure) = total.failures.iter().min_by_key(|failure| failure.seed) else {
            println!("no failure");
            return Ok(ExitCode::SUCCESS);
        };
        println!("\n{failure}\n");
        smaller(failure.seed);
        println!("To see all that happens in the smaller run: just sim {}", failure.seed);
        Ok(ExitCode::from(10))
    }

    fn work(&self, progress: &Progress) {
        while !progress.failed.load(Ordering::Relaxed) && !self.is_done(&progress.lock()) {
            let seed = progress.next.fetch_add(1, Ordering::Relaxed);
            if self.nodes.is_some_and(|nodes| nodes != quorumkv_simulator::nodes(seed)) {
                continue;
            }
            if self.years.is_none() && progress.begun.fetch_add(1, Ordering::Relaxed) >= self.seeds {
                return;
            }
            let began = cpu_time();
            let ended = quorumkv_simulator::run(seed, &Reduction::default(), Trace::Off);
            let mut total = progress.lock();
            total.busy += cpu_time().saturating_sub(began);
            total.seeds += 1;
            match ended {
                Ok(summary) => total.summary.add(&summary),
                Err(failure) => {
                    total.failures.push(failure);
                    progress.failed.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn is_done(&self, total: &Total) -> bool {
        match self.years {
            Some(years) => total.summary.years() >= years,
            None => total.seeds >= self.seeds,
        }
    }

    fn report(&self, progress: &Progress) {
        let mut told = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let total = progress.lock();
            if progress.failed.load(Ordering::Relaxed) || self.is_done(&total) {
                return;
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                eprintln!("{}", total.speed());
            }
        }
    }
}

/// A time that ends.
fn years(text: &str) -> Result<f64, String> {
    let years = text.parse().ok().filter(|years: &f64| years.is_finite() && *years > 0.0);
    years.ok_or_else(|| "a number of years is above zero".to_owned())
}

/// A size that clusters have.
fn nodes(text: &str) -> Result<u64, String> {
    let sizes = [1, 2, 3, 4, 5, 7];
    let nodes = text.parse().ok().filter(|nodes| sizes.contains(nodes));
    nodes.ok_or_else(|| "there are clusters of 1 to 5 nodes, and of 7".to_owned())
}

/// Time that this thread has had a core.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Progress {
    fn lock(&self) -> std::sync::MutexGuard<'_, Total> {
        self.total.lock().expect("no run panics")
    }
}

impl Total {
    fn speed(&self) -> String {
        let simulated = Duration::from_micros(self.summary.micros);
        let ratio = simulated.as_secs_f64() / self.busy.as_secs_f64().max(1e-9);
        format!(
            "{} seeds, {:.0} s simulated ({:.4} years) in {:.1} core-seconds: {ratio:.0} x",
            self.seeds,
            simulated.as_secs_f64(),
            self.summary.years(),
            self.busy.as_secs_f64(),
        )
    }
}

/// What can be left out of a run that fails, so that it still does.
pub(crate) fn smaller(seed: u64) -> Reduction {
    let shrunk = quorumkv_simulator::shrink(seed);
    eprintln!(
        "made smaller in {} runs: {} faults are left of {}, and it ends after {:.3} s",
        shrunk.runs,
        shrunk.faults.1,
        shrunk.faults.0,
        Duration::from_micros(shrunk.failure.at).as_secs_f64(),
    );
    shrunk.reduction
}
