//! The clocks of the nodes, which need not agree on how fast time passes: a replica is told of times that never go back, and of
//! nothing else.

use quorumkv_replica::Timestamp;

/// A clock shows this many thousandths of the time that passes while it is right.
const RIGHT: u64 = 1000;

/// The clock of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it showed, in microseconds, when it was last changed, and when that was.
    shown: u64,
    since: u64,
    /// How fast it runs, in thousandths.
    rate: u64,
}

impl Clock {
    pub(crate) const fn right() -> Self {
        Self { shown: 0, since: 0, rate: RIGHT }
    }

    /// What it shows.
    pub(crate) const fn read(&self, now: u64) -> Timestamp {
        Timestamp::from_micros(self.shown + (now - self.since) * self.rate / RIGHT)
    }

    /// It jumps ahead, and runs on at another rate.
    pub(crate) const fn change(&mut self, now: u64, jump: u64, rate: u64) {
        *self = Self { shown: self.read(now).as_micros() + jump, since: now, rate };
    }

    /// It runs as it should again.
    pub(crate) const fn mend(&mut self, now: u64) {
        self.change(now, 0, RIGHT);
    }
}
