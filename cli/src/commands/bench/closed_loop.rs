//! Clients that ask, wait for the answer, and ask again.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::progress::Progress;
use super::system::{Load, System, Target};
use super::work::{Random, Work};
use crate::exit::{Code, Failure};

const WARM_UP: Duration = Duration::from_secs(1);

/// A request in flight at the end ends by its own timeout. Beyond it by this much, it is given up as an error.
const DRAIN: Duration = Duration::from_secs(2);

/// Latencies are counted in microseconds, up to a minute, to three digits.
const LONGEST_US: u64 = 60_000_000;

/// What a client does after an error, so that a cluster that is down is not flooded.
const PAUSE: Duration = Duration::from_millis(2);

/// What all clients do now.
struct Phase(AtomicU8);

impl Phase {
    const WARM_UP: u8 = 0;
    const MEASURE: u8 = 1;
    const STOP: u8 = 2;

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Latencies that a client notes before it adds them to those of all: each has its place in a large table, and so many tables would not
/// stay in the processor's cache.
const NOTED: usize = 256;

/// The latencies of all clients.
type Latencies = Arc<Mutex<Histogram<u64>>>;

fn lock(latencies: &Latencies) -> MutexGuard<'_, Histogram<u64>> {
    // Nothing panics while it is held.
    latencies.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The latencies of one client.
struct Notes {
    all: Latencies,
    noted: Vec<u32>,
}

impl Notes {
    fn new(all: &Latencies) -> Self {
        Self { all: Arc::clone(all), noted: Vec::with_capacity(NOTED) }
    }

    fn add(&mut self, latency: Duration) {
        if self.noted.len() == NOTED {
            self.hand_over();
        }
        self.noted.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    fn hand_over(&mut self) {
        let mut all = lock(&self.all);
        for us in self.noted.drain(..) {
            all.saturating_record(u64::from(us).max(1));
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are valid")
}

/// What one client's operations failed of.
#[derive(Default)]
struct Failed {
    count: u64,
    last: Option<Failure>,
}

/// What was measured.
pub(super) struct Measured {
    pub(super) latencies: Histogram<u64>,
    pub(super) errors: u64,
    pub(super) last_error: Option<Failure>,
    pub(super) time: Duration,
}

impl Measured {
    pub(super) fn new() -> Self {
        Self { latencies: histogram(), errors: 0, last_error: None, time: Duration::ZERO }
    }

    fn add(&mut self, other: Failed) {
        self.errors += other.count;
        self.last_error = other.last.or(self.last_error.take());
    }

    /// Why the measurement is not to be relied on, if any operation failed, or none ended.
    pub(super) fn failure(&mut self) -> Option<Failure> {
        let Some(failure) = self.last_error.take() else {
            return self.latencies.is_empty().then(|| {
                Failure::new(Code::Other, "no operation ended in the time that was measured")
                    .advise("measure for longer, with fewer clients or smaller values")
            });
        };
        let message = format!("{} operations failed, the last", self.errors);
        Some(failure.context(&message).detail("errors", self.errors))
    }
}

/// Loads a system for the time that is asked for.
pub(super) async fn measure<S: System>(system: &S, load: &Load, progress: &Progress) -> Measured {
    let phase = Arc::new(Phase(AtomicU8::new(Phase::WARM_UP)));
    let latencies: Latencies = Arc::new(Mutex::new(histogram()));
    let mut tasks = JoinSet::new();
    for client in 0..load.clients {
        let (target, random) = (system.target(client), Random::new(client));
        let (work, phase) = (Arc::clone(&load.work), Arc::clone(&phase));
        tasks.spawn(closed_loop(target, work, phase, random, Notes::new(&latencies)));
    }
    progress.does(S::NAME, "warms up");
    sleep(WARM_UP).await;
    phase.set(Phase::MEASURE);
    let begun = Instant::now();
    progress.pass(S::NAME, load.time).await;
    phase.set(Phase::STOP);
    let mut total = Measured::new();
    total.time = begun.elapsed();
    let drained = tokio::time::timeout(load.timeout + DRAIN, async {
        while let Some(ended) = tasks.join_next().await {
            total.add(ended.expect("a client does not panic"));
        }
    });
    if drained.await.is_err() {
        total.errors += tasks.len() as u64;
        total.last_error = Some(Failure::new(Code::Other, "a request had no end"));
    }
    total.latencies = lock(&latencies).clone();
    total
}

/// One client: asks, waits for the answer, and asks again. What succeeds after the measurement does not count; what
/// fails only then does, or a cluster that dies while it is measured would look well.
async fn closed_loop(
    mut target: impl Target,
    work: Arc<Work>,
    phase: Arc<Phase>,
    mut random: Random,
    mut notes: Notes,
) -> Failed {
    let mut failed = Failed::default();
    loop {
        let (begun, began_in) = (Instant::now(), phase.get());
        if began_in == Phase::STOP {
            notes.hand_over();
            return failed;
        }
        let (call, key) = work.next(&mut random);
        let result = target.call(call, &key, &work.value).await;
        let (measuring, over) = (phase.get() == Phase::MEASURE, phase.get() == Phase::STOP);
        match result {
            Ok(()) if measuring => notes.add(begun.elapsed()),
            Ok(()) => {}
            Err(failure) => {
                if measuring || over {
                    failed.count += 1;
                    failed.last = Some(failure);
                }
                sleep(PAUSE).await;
            }
        }
    }
}
