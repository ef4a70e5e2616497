//! The clocks, as the keeper is told of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::core::Now;

/// Whoever has not looked at the clock for longer than this was kept from it: the process was stopped, or the machine busy.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// Time since the start, less the time that this process was kept from running: what sessions have sent meanwhile waits to
/// be read, and they must not expire before it is.
#[derive(Debug)]
pub(super) struct Clock {
    last: Instant,
    passed: Duration,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { last: Instant::now(), passed: Duration::ZERO }
    }

    /// What they say now. To be asked more often than every second.
    pub(super) fn now(&mut self) -> Now {
        self.at(Instant::now(), SystemTime::now())
    }

    fn at(&mut self, monotonic: Instant, wall: SystemTime) -> Now {
        let step = monotonic.saturating_duration_since(self.last);
        if step > LONGEST_STEP {
            tracing::warn!(?step, "this process has not run for a while; sessions get as much more time");
        }
        self.passed += step.min(LONGEST_STEP);
        self.last = monotonic;
        let since_1970 = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic_ms: u64::try_from(self.passed.as_millis()).unwrap_or(u64::MAX),
            wall_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_the_process_does_not_count() {
        let mut clock = Clock::new();
        let start = clock.last;
        let mut at = |ms| clock.at(start + Duration::from_millis(ms), UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(900), Now { monotonic_ms: 900, wall_ms: 900 });
        assert_eq!(at(1_000), Now { monotonic_ms: 1_000, wall_ms: 1_000 });
        assert_eq!(at(61_000), Now { monotonic_ms: 2_000, wall_ms: 61_000 });
        assert_eq!(at(61_500), Now { monotonic_ms: 2_500, wall_ms: 61_500 });
    }
}
