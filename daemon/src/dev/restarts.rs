//! How long to wait before what has ended is started again. Pure: no process and no clock.

use std::time::Duration;

use tokio::time::Instant;

/// Whoever has run for this long may be started again at once.
const STEADY: Duration = Duration::from_secs(10);

/// Pauses before a restart: from the first to the second, doubled each time that it does not run steadily.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(32);

/// The starts of one node or keeper.
#[derive(Debug)]
pub(super) struct Restarts {
    /// When it was started, as long as it has not ended. Starts that fail do not count as running.
    started: Option<Instant>,
    next: Duration,
}

impl Restarts {
    pub(super) fn new() -> Self {
        Self { started: None, next: SHORTEST }
    }

    /// It runs since now.
    pub(super) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// It has ended, or cannot be started. Returns how long to wait.
    pub(super) fn ended(&mut self, now: Instant) -> Duration {
        let ran = self.started.take().map_or(Duration::ZERO, |started| now - started);
        let pause = if ran >= STEADY { SHORTEST } else { self.next };
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_until_it_runs_steadily_and_starts_that_fail_do_not_count_as_that() {
        let mut restarts = Restarts::new();
        let mut now = Instant::now();
        restarts.started(now);
        now += STEADY;
        let mut seconds = Vec::new();
        // It has run, and then cannot be started any more.
        for _ in 0..8 {
            seconds.push(restarts.ended(now).as_secs());
            now += Duration::from_secs(60);
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 32, 32]);
        restarts.started(now);
        assert_eq!(restarts.ended(now + STEADY / 2), LONGEST, "it ends again and again");
        restarts.started(now);
        assert_eq!(restarts.ended(now + STEADY), SHORTEST, "it ran");
    }
}
