//! Keeps whoever comes again and again from filling the log.

use std::time::{Duration, Instant};

/// What is alike is logged at most so many times...
const TOLD: u32 = 10;

/// ... in this time.
const PACE: Duration = Duration::from_secs(60);

/// Which of many things that are alike are logged.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the first of those was told that count.
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Pace {
    /// Whether to tell of another one; then with how many that were not told before it.
    pub(super) fn next(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= PACE) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told == TOLD {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_told_as_long_as_it_is_little() {
        let mut pace = Pace::default();
        let start = Instant::now();
        for _ in 0..TOLD {
            assert_eq!(pace.next(start), Some(0));
        }
        for _ in 0..500 {
            assert_eq!(pace.next(start + PACE / 2), None);
        }
        assert_eq!(pace.next(start + PACE), Some(500));
        assert_eq!(pace.next(start + PACE), Some(0));
    }
}
