//! Makes a failing run smaller: fewer faults, fewer clients, fewer steps, as long as the same thing goes wrong.

use std::collections::BTreeSet;

use crate::faults::Occurrence;
use crate::run::{self, Failure};

/// What is left out of a run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Reduction {
    /// Faults that do not happen.
    pub(crate) without: BTreeSet<Occurrence>,
    /// Only the first so many clients ask anything.
    pub(crate) clients: Option<u64>,
    /// Every client asks at most so many things.
    pub(crate) requests: Option<u64>,
    /// The chaos ends then, in microseconds.
    pub(crate) end: Option<u64>,
    /// No message takes far longer than usual, and none comes twice.
    pub(crate) calm_network: bool,
}

/// A failing run, made smaller.
#[derive(Debug)]
pub struct Shrunk {
    /// What is left out.
    pub reduction: Reduction,
    /// What goes wrong without it.
    pub failure: Failure,
    /// Runs that it took to find.
    pub runs: u32,
    /// Faults that happened in the first run, and in the smaller one.
    pub faults: (usize, usize),
}

/// Runs at most, for one failure.
const MOST_RUNS: u32 = 400;

struct Shrinker {
    seed: u64,
    best: Reduction,
    failure: Failure,
    happened: Vec<Occurrence>,
    runs: u32,
}

/// Makes a failing run smaller.
///
/// # Panics
/// If the seed does not fail.
#[must_use]
pub fn shrink(seed: u64) -> Shrunk {
    let reduction = Reduction::default();
    let (failure, happened) = run::failing(seed, &reduction).expect("the seed fails");
    let before = happened.len();
    let mut shrinker = Shrinker { seed, best: reduction, failure, happened, runs: 1 };
    shrinker.shorten();
    shrinker.calm();
    shrinker.fewer_faults();
    shrinker.fewer_clients();
    shrinker.fewer_faults();
    shrinker.shorten();
    let Shrinker { best, failure, happened, runs, .. } = shrinker;
    Shrunk { reduction: best, failure, runs, faults: (before, happened.len()) }
}

impl Shrinker {
    /// Takes the smaller run if the same goes wrong in it.
    fn attempt(&mut self, smaller: Reduction) -> bool {
        if self.runs >= MOST_RUNS || smaller == self.best {
            return false;
        }
        self.runs += 1;
        match run::failing(self.seed, &smaller) {
            Some((failure, happened)) if failure.place == self.failure.place => {
                (self.best, self.failure, self.happened) = (smaller, failure, happened);
                true
            }
            _ => false,
        }
    }

    /// Nothing is needed after the failure; and if it is seen only once all is healed, perhaps not all of the chaos.
    fn shorten(&mut self) {
        let end = self.failure.at + 1;
        self.attempt(Reduction { end: Some(end), ..self.best.clone() });
        while let Some(end) = self.best.end
            && self.attempt(Reduction { end: Some(end / 4 * 3), ..self.best.clone() })
        {}
    }

    fn calm(&mut self) {
        self.attempt(Reduction { calm_network: true, ..self.best.clone() });
    }

    /// Leaves out faults, in ever smaller groups (Zeller's delta debugging).
    fn fewer_faults(&mut self) {
        let mut size = self.happened.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.happened.len() {
                let group = self.happened[at..].iter().take(size).copied();
                let mut smaller = self.best.clone();
                smaller.without.extend(group);
                if !self.attempt(smaller) {
                    at += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn fewer_clients(&mut self) {
        for clients in [0, 1, 2, 3] {
            if self.attempt(Reduction { clients: Some(clients), ..self.best.clone() }) {
                break;
            }
        }
        for requests in [1, 2, 4, 8, 16, 32] {
            if self.attempt(Reduction { requests: Some(requests), ..self.best.clone() }) {
                break;
            }
        }
    }
}
