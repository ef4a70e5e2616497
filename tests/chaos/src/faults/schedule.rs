//! Which faults happen when: all of it comes from one seed.

use std::time::Duration;

use super::Kind;

/// The time from one fault to the next, in milliseconds. Several go on at once.
const GAP_MS: std::ops::Range<u64> = 300..2_200;

/// How long a fault lasts, in milliseconds, unless it is of a kind that has to run its course.
const LENGTH_MS: std::ops::Range<u64> = 500..6_000;

/// A fault that is about to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Which one, from 1 on; those that are skipped are counted as well.
    pub number: u64,
    /// What happens.
    pub kind: Kind,
    /// How long after the one before.
    pub gap: Duration,
    /// How long it lasts.
    pub length: Duration,
    /// Chooses whom it hits, and how.
    pub seed: u64,
}

/// The faults of a run, without end.
#[derive(Clone, Debug)]
pub struct Schedule {
    rng: fastrand::Rng,
    number: u64,
    /// Those that are to come before any kind comes a second time.
    fresh: Vec<Kind>,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        // A short run is to see every kind.
        let mut fresh = Kind::ALL.to_vec();
        rng.shuffle(&mut fresh);
        Self { rng, number: 0, fresh }
    }

    fn kind(&mut self) -> Kind {
        if let Some(kind) = self.fresh.pop() {
            return kind;
        }
        let total: u32 = Kind::ALL.iter().map(|kind| kind.weight()).sum();
        let mut at = self.rng.u32(..total);
        for &kind in Kind::ALL {
            if at < kind.weight() {
                return kind;
            }
            at -= kind.weight();
        }
        unreachable!("the weights add up to the total")
    }
}

impl Iterator for Schedule {
    type Item = Plan;

    fn next(&mut self) -> Option<Plan> {
        self.number += 1;
        let kind = self.kind();
        let gap = Duration::from_millis(self.rng.u64(GAP_MS));
        let length = Duration::from_millis(self.rng.u64(LENGTH_MS));
        Some(Plan { number: self.number, kind, gap, length, seed: self.rng.u64(..) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_in_which_every_kind_comes_early() {
        let plans: Vec<_> = Schedule::new(7).take(200).collect();
        assert_eq!(plans, Schedule::new(7).take(200).collect::<Vec<_>>());
        assert_ne!(plans, Schedule::new(8).take(200).collect::<Vec<_>>());
        let kinds: BTreeSet<_> = plans[..Kind::ALL.len()].iter().map(|plan| plan.kind).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
    }
}
