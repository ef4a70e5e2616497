//! One run from one seed, and what went wrong in it.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use fastrand::Rng;

use crate::faults::Occurrence;
use crate::plan::Plan;
use crate::shrink::Reduction;
use crate::summary::Summary;
use crate::world::{Trace, World};

/// Something that must never be was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// The simulated time at which it was seen, in microseconds.
    pub at: u64,
    /// Where in the source it was noticed: the same bug is noticed in the same place, mostly.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at, place, message } = self;
        let at = Duration::from_micros(*at).as_secs_f64();
        write!(f, "seed {seed} failed after {at:.6} simulated seconds, at {place}: {message}")
    }
}

thread_local! {
    /// Where the last panic of this thread was, if a run is under way in it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static CATCHING: RefCell<bool> = const { RefCell::new(false) };
}

/// Panics of runs are reported as failures, not on stderr; all others as ever.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.with_borrow(|catching| *catching) {
                let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
                PANIC.set(place);
            } else {
                usual(info);
            }
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}

/// Runs a seed to its end.
///
/// # Errors
/// What was seen that must never be.
pub fn run(seed: u64, reduction: &Reduction, trace: Trace) -> Result<Summary, Failure> {
    world(seed, reduction, trace).map(|(summary, _)| summary)
}

/// How many nodes a seed's cluster begins with.
#[must_use]
pub fn nodes(seed: u64) -> u64 {
    Plan::draw(&mut Rng::with_seed(seed)).nodes
}

/// A hash of everything that happens in a run: the same for the same seed, byte for byte.
///
/// # Errors
/// See [`run`].
pub fn trace_hash(seed: u64) -> Result<u64, Failure> {
    world(seed, &Reduction::default(), Trace::Hash).map(|(_, hash)| hash)
}

fn world(seed: u64, reduction: &Reduction, trace: Trace) -> Result<(Summary, u64), Failure> {
    let mut world = World::new(seed, trace, reduction);
    end(&mut world, seed)
}

/// How a run fails, and the faults that happened in it; `None` if it does not fail.
pub(crate) fn failing(seed: u64, reduction: &Reduction) -> Option<(Failure, Vec<Occurrence>)> {
    let mut world = World::new(seed, Trace::Off, reduction);
    let failure = end(&mut world, seed).err()?;
    Some((failure, world.happened))
}

fn end(world: &mut World, seed: u64) -> Result<(Summary, u64), Failure> {
    catch_panics();
    CATCHING.set(true);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    CATCHING.set(false);
    ended.map_err(|panic| Failure {
        seed,
        at: world.now,
        place: PANIC.take().unwrap_or_default(),
        message: message(&*panic),
    })
}
