//! Tells people on stderr what is measured now, and how long it takes.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep, sleep_until};

const STEP: Duration = Duration::from_millis(100);

/// One line that is replaced all the time; none where stderr is no terminal.
pub(super) struct Progress {
    systems: usize,
    begun: usize,
    bar: ProgressBar,
}

impl Progress {
    /// For so many systems, one after the other.
    pub(super) fn new(systems: usize) -> Self {
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Self { systems, begun: 0, bar }
    }

    /// The next system has its turn.
    pub(super) fn next(&mut self) {
        self.begun += 1;
    }

    /// It does something that ends when it ends.
    pub(super) fn does(&self, system: &str, what: &str) {
        self.bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is well formed"));
        self.bar.set_message(self.text(system, what));
        self.bar.tick();
    }

    /// Lets the time pass, and shows how much is left.
    pub(super) async fn pass(&self, system: &str, time: Duration) {
        if self.bar.is_hidden() {
            return sleep(time).await;
        }
        // Whatever is set is drawn at once, so the bar begins anew before it is seen.
        self.bar.set_length(u64::try_from(time.as_millis() / STEP.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_position(0);
        self.bar.reset_eta();
        let style = ProgressStyle::with_template("{msg} {wide_bar} {eta} left");
        self.bar.set_style(style.expect("the template is well formed"));
        self.bar.set_message(self.text(system, "is measured"));
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep_until(end.min(Instant::now() + STEP)).await;
            self.bar.inc(1);
        }
    }

    /// Nothing more is to be told.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn text(&self, system: &str, what: &str) -> String {
        match (self.systems, self.begun) {
            (1, _) => what.to_owned(),
            (_, 0) => format!("{system} {what}"),
            (systems, begun) => format!("{begun}/{systems} {system} {what}"),
        }
    }
}
