//! How long to wait before trying again.

use std::time::Duration;

/// Pauses that double from `first` to `cap`, each shortened at random by up to half, so that clients which failed
/// together do not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// The pause before the next try.
    pub(crate) fn pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.cap);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// After a success the pauses start from the first again.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_cap_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(500));
        for full in [5, 10, 20, 40, 80, 160, 320, 500, 500] {
            let full = Duration::from_millis(full);
            let pause = backoff.pause();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} for {full:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(5));
    }
}
