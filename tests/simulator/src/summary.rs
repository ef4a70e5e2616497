//! How much happened.

use std::fmt;

/// Microseconds in a year of 365 days.
const YEAR: f64 = 365.0 * 86_400.0 * 1e6;

/// How often everything has to happen in the runs of CI: once could be an accident of one seed.
const ENOUGH: u64 = 20;

/// How much happened, over one run or many.
#[derive(Clone, Default, Debug)]
pub struct Summary {
    /// Simulated time, in microseconds.
    pub micros: u64,
    pub(crate) events: u64,
    pub(crate) commits: u64,
    pub(crate) writes: u64,
    /// Writes that were acknowledged when they were sent again.
    pub(crate) retries: u64,
    pub(crate) reads: u64,
    /// Keys of which the checker does not know whether their history is linearizable.
    pub(crate) undecided: u64,
    pub(crate) conflicts: u64,
    pub(crate) scans: u64,
    pub(crate) epochs: u64,
    pub(crate) crashes: u64,
    pub(crate) partitions: u64,
    pub(crate) bridges: u64,
    pub(crate) slow_links: u64,
    pub(crate) clocks: u64,
    /// Runs at the end of which only a majority healed.
    pub(crate) majorities: u64,
    pub(crate) snapshots: u64,
    pub(crate) superseded: u64,
    pub(crate) expired: u64,
    pub(crate) mismatches: u64,
    pub(crate) adopted: u64,
    pub(crate) diverged: u64,
    pub(crate) changes: u64,
    pub(crate) refusals: u64,
    pub(crate) removals: u64,
    pub(crate) replacements: u64,
    pub(crate) amnesias: u64,
    pub(crate) failed_syncs: u64,
    pub(crate) log_damages: u64,
    pub(crate) voids: u64,
    pub(crate) dropped: u64,
    pub(crate) abdications: u64,
    pub(crate) impeachments: u64,
    pub(crate) damages: u64,
    pub(crate) corruptions: u64,
    pub(crate) quarantines: u64,
    pub(crate) repairs: u64,
}

impl Summary {
    fn counts(&mut self) -> [(&'static str, &mut u64); 37] {
        [
            ("micros", &mut self.micros),
            ("events", &mut self.events),
            ("commits", &mut self.commits),
            ("writes", &mut self.writes),
            ("retries", &mut self.retries),
            ("reads", &mut self.reads),
            ("undecided", &mut self.undecided),
            ("conflicts", &mut self.conflicts),
            ("scans", &mut self.scans),
            ("epochs", &mut self.epochs),
            ("crashes", &mut self.crashes),
            ("partitions", &mut self.partitions),
            ("bridges", &mut self.bridges),
            ("slow links", &mut self.slow_links),
            ("disturbed clocks", &mut self.clocks),
            ("majorities that healed alone", &mut self.majorities),
            ("snapshots", &mut self.snapshots),
            ("superseded", &mut self.superseded),
            ("expired", &mut self.expired),
            ("mismatches", &mut self.mismatches),
            ("adopted", &mut self.adopted),
            ("diverged", &mut self.diverged),
            ("changes", &mut self.changes),
            ("refusals", &mut self.refusals),
            ("removals", &mut self.removals),
            ("replacements", &mut self.replacements),
            ("amnesias", &mut self.amnesias),
            ("failed syncs", &mut self.failed_syncs),
            ("log damages", &mut self.log_damages),
            ("voids", &mut self.voids),
            ("dropped", &mut self.dropped),
            ("abdications", &mut self.abdications),
            ("impeachments", &mut self.impeachments),
            ("damages", &mut self.damages),
            ("corruptions", &mut self.corruptions),
            ("quarantines", &mut self.quarantines),
            ("repairs", &mut self.repairs),
        ]
    }

    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Self) {
        for ((_, sum), (_, add)) in self.counts().into_iter().zip(other.clone().counts()) {
            *sum += *add;
        }
    }

    /// Simulated time, in years.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub fn years(&self) -> f64 {
        self.micros as f64 / YEAR
    }

    /// A simulator in which something never happens proves nothing about it.
    ///
    /// # Panics
    /// If something that should be tried hardly ever happened.
    pub fn assert_covers_everything(&self) {
        let never: Vec<&str> = self
            .clone()
            .counts()
            .into_iter()
            .filter(|(name, count)| **count < ENOUGH && *name != "undecided")
            .map(|(name, _)| name)
            .collect();
        assert!(never.is_empty(), "what should be tried hardly ever happened: {}", never.join(", "));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = self.clone();
        let counts = counts.counts().into_iter().skip(1).map(|(name, count)| format!("{count} {name}"));
        f.write_str(&counts.collect::<Vec<_>>().join(", "))
    }
}
