//! Figures and verdict of a run.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use quorumkv_history::{Action, Operation, Outcome, Stale, Violation};
use serde::Serialize;

use super::chaos::Faults;
use super::workload::Run;
use crate::exit::Failure;
use crate::output::{Column, Format, Output, number, text};

/// The verdict where nothing contradicts anything, and not everything could be searched.
const UNDECIDED: &str = "undecided";

/// The verdict where nothing was answered.
const UNVERIFIED: &str = "unverified";

/// Latencies are counted in microseconds, up to an hour, to three digits.
const LONGEST_US: u64 = 3_600_000_000;

const KINDS: [&str; 4] = ["get", "put", "del", "cas"];

/// What became of the operations of one kind.
#[derive(Serialize, Debug, PartialEq)]
pub(super) struct Figures {
    op: &'static str,
    operations: u64,
    /// Found, or applied.
    ok: u64,
    absent: u64,
    mismatch: u64,
    /// Without an effect.
    failed: u64,
    unknown: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Figures {
    fn new(op: &'static str, operations: &[Operation]) -> Self {
        let mut figures = Self {
            op,
            operations: 0,
            ok: 0,
            absent: 0,
            mismatch: 0,
            failed: 0,
            unknown: 0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
        };
        let mut latencies: Histogram<u64> =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are valid");
        for operation in operations.iter().filter(|operation| kind(&operation.action) == op) {
            figures.operations += 1;
            let count = match operation.outcome {
                Outcome::Found { .. } | Outcome::Applied { .. } => &mut figures.ok,
                Outcome::Absent => &mut figures.absent,
                Outcome::Mismatch { .. } => &mut figures.mismatch,
                Outcome::Failed => &mut figures.failed,
                Outcome::Unknown => &mut figures.unknown,
            };
            *count += 1;
            if let (Some(returned), false) = (operation.returned, operation.outcome == Outcome::Failed) {
                latencies.saturating_record(((returned - operation.called) / 1000).max(1));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "latencies have few digits")]
        let milliseconds = |us: u64| us as f64 / 1000.0;
        figures.p50_ms = milliseconds(latencies.value_at_quantile(0.5));
        figures.p99_ms = milliseconds(latencies.value_at_quantile(0.99));
        figures.max_ms = milliseconds(latencies.max());
        figures
    }

    fn row(&self) -> Vec<String> {
        let Self { op, operations, ok, absent, mismatch, failed, unknown, p50_ms, p99_ms, max_ms } = self;
        let counts = [operations, ok, absent, mismatch, failed, unknown];
        let mut row = vec![(*op).to_owned()];
        row.extend(counts.map(ToString::to_string));
        row.extend([p50_ms, p99_ms, max_ms].map(|ms| format!("{ms:.3}")));
        row
    }
}

const fn kind(action: &Action) -> &'static str {
    match action {
        Action::Get => KINDS[0],
        Action::Put { .. } => KINDS[1],
        Action::Delete => KINDS[2],
        Action::CompareAndSet { .. } => KINDS[3],
    }
}

/// The result, as it is printed.
#[derive(Serialize)]
pub(super) struct Report {
    verdict: &'static str,
    consistency: &'static str,
    /// Whether the run was cut short.
    interrupted: bool,
    seconds: f64,
    clients: u32,
    /// Different keys in the whole run.
    keys: usize,
    operations: u64,
    ops_per_s: f64,
    unknown: u64,
    /// Keys of which it could not be decided in reasonable time whether the unknown writes explain what was seen.
    undecided_keys: u64,
    check_ms: f64,
    kinds: Vec<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stale: Option<Stale>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chaos: Option<Faults>,
    prefix: String,
    /// Whether all keys of the run are deleted.
    pub(super) cleaned_up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) violation: Option<Violation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) html: Option<String>,
}

/// What was measured besides the operations.
pub(super) struct Measured {
    pub(super) clients: u32,
    pub(super) time: Duration,
    pub(super) check: Duration,
    pub(super) local: bool,
    pub(super) interrupted: bool,
    pub(super) undecided_keys: u64,
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "figures have few digits")]
    pub(super) fn new(run: &Run, operations: &[Operation], measured: &Measured) -> Self {
        let kinds: Vec<Figures> = KINDS.iter().map(|kind| Figures::new(kind, operations)).collect();
        let answered: u64 =
            kinds.iter().map(|figures| figures.operations - figures.failed - figures.unknown).sum();
        let seconds = measured.time.as_secs_f64();
        Self {
            verdict: match (answered, measured.undecided_keys) {
                (0, _) => UNVERIFIED,
                (_, 0) => "holds",
                _ => UNDECIDED,
            },
            consistency: if measured.local { "local" } else { "quorum" },
            interrupted: measured.interrupted,
            seconds: (seconds * 1000.0).round() / 1000.0,
            clients: measured.clients,
            keys: operations.iter().map(|operation| &operation.key).collect::<HashSet<_>>().len(),
            operations: operations.len() as u64,
            ops_per_s: (answered as f64 / seconds).round(),
            unknown: kinds.iter().map(|figures| figures.unknown).sum(),
            undecided_keys: measured.undecided_keys,
            check_ms: (measured.check.as_secs_f64() * 1e6).round() / 1000.0,
            kinds,
            stale: None,
            chaos: None,
            prefix: run.prefix.clone(),
            cleaned_up: false,
            violation: None,
            html: None,
        }
    }

    /// The answers contradict each other, which is shown in this file if it could be written.
    pub(super) fn violated(&mut self, violation: Violation, html: Option<String>) {
        self.verdict = "violation";
        (self.violation, self.html) = (Some(violation), html);
    }

    pub(super) fn show(&self, output: &mut Output) -> Result<(), Failure> {
        match output.format {
            Format::Json => output.json(self),
            Format::Raw => {
                // For people; without stderr there is nobody to tell it to.
                let _ = writeln!(std::io::stderr(), "{}", self.sentences().join("\n"));
                output.rows(&COLUMNS, &self.rows())
            }
            Format::Table => {
                output.rows(&COLUMNS, &self.rows())?;
                output.line("")?;
                self.sentences().iter().try_for_each(|line| output.line(line))
            }
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.kinds.iter().map(Figures::row).collect()
    }

    /// What there is to say beneath the table.
    fn sentences(&self) -> Vec<String> {
        let Self { operations, seconds, ops_per_s, clients, keys, unknown, .. } = self;
        let mut lines = vec![format!(
            "{operations} operations of {clients} clients on {keys} keys in {seconds:.1} s, {ops_per_s} answered a second; \
             {unknown} with an unknown outcome"
        )];
        if let Some(Faults { pauses, kills }) = self.chaos {
            lines.push(format!("nodes were paused {pauses} times and killed {kills} times meanwhile"));
        }
        if let Some(Stale { reads, stale, furthest_behind, .. }) = self.stale {
            lines.push(format!(
                "{stale} of {reads} local reads were stale, the furthest by {furthest_behind} versions"
            ));
        }
        match (&self.violation, self.stale) {
            (Some(violation), _) => lines.push(format!("VIOLATION: {violation}")),
            _ if self.verdict == UNVERIFIED => lines.push(format!("{UNVERIFIED}: nothing was answered")),
            _ if self.undecided_keys > 0 => {
                lines.push(format!("{UNDECIDED}: {}", undecided(self.undecided_keys)));
            }
            (None, Some(_)) => lines.push(
                "holds: local reads are explained by staleness alone, and all else is linearizable"
                    .to_owned(),
            ),
            (None, None) => lines.push("holds: all answers are linearizable".to_owned()),
        }
        if let Some(html) = &self.html {
            lines.push(format!("{html} shows it"));
        }
        if !self.cleaned_up {
            lines.push(format!("keys may be left below {}", self.prefix));
        }
        lines
    }
}

/// What there is to say of keys that are not decided.
pub(super) fn undecided(keys: u64) -> String {
    let keys = if keys == 1 { "1 key has".to_owned() } else { format!("{keys} keys have") };
    format!(
        "{keys} too many unknown writes to decide whether these explain all that was seen; all else is linearizable"
    )
}

const COLUMNS: [Column; 10] = [
    text("OP"),
    number("OPERATIONS"),
    number("OK"),
    number("ABSENT"),
    number("MISMATCH"),
    number("FAILED"),
    number("UNKNOWN"),
    number("P50 MS"),
    number("P99 MS"),
    number("MAX MS"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use quorumkv_client::Consistency;

    #[test]
    fn what_is_undecided_or_was_not_answered_is_not_said_to_hold() {
        let run = Run::new(1, 1, 1.0, Consistency::Quorum);
        let told = |outcome, undecided_keys, local| {
            let (time, check) = (Duration::from_secs(1), Duration::ZERO);
            let measured = Measured { clients: 1, time, check, local, interrupted: false, undecided_keys };
            let mut report = Report::new(&run, &[get(outcome, Some(2_000_000))], &measured);
            report.stale = local.then(Stale::default);
            report.cleaned_up = true;
            (report.verdict, report.sentences().pop().expect("a verdict"))
        };
        for local in [false, true] {
            let (verdict, sentence) = told(Outcome::Absent, 0, local);
            assert!(verdict == "holds" && sentence.starts_with("holds: "), "{verdict}: {sentence}");
            let (verdict, sentence) = told(Outcome::Absent, 2, local);
            assert!(verdict == "undecided" && sentence.starts_with("undecided: 2 keys have"), "{sentence}");
            for outcome in [Outcome::Failed, Outcome::Unknown] {
                let (verdict, sentence) = told(outcome, 0, local);
                assert!(
                    verdict == "unverified" && sentence == "unverified: nothing was answered",
                    "{sentence}"
                );
            }
        }
    }

    #[test]
    fn keys_that_may_be_left_are_named_whatever_else_is_told() {
        let run = Run::new(1, 1, 1.0, Consistency::Quorum);
        let (time, check) = (Duration::from_secs(1), Duration::ZERO);
        let measured =
            Measured { clients: 1, time, check, local: false, interrupted: true, undecided_keys: 0 };
        let report = Report::new(&run, &[get(Outcome::Absent, Some(2_000_000))], &measured);
        let sentence = report.sentences().pop().expect("a sentence");
        assert_eq!(sentence, format!("keys may be left below {}", run.prefix));
    }

    fn get(outcome: Outcome, returned: Option<u64>) -> Operation {
        let (key, action) = ("k".to_owned(), Action::Get);
        Operation { client: 1, key, called: 1_000_000, returned, action, outcome }
    }

    #[test]
    fn operations_are_counted_by_kind_and_outcome_and_only_answers_have_latencies() {
        let found = Outcome::Found { value: "v".to_owned(), version: 1 };
        let operations = [
            get(found, Some(2_000_000)),
            get(Outcome::Absent, Some(4_000_000)),
            get(Outcome::Failed, Some(900_000_000)),
            get(Outcome::Unknown, None),
        ];
        let figures = Figures::new("get", &operations);
        assert_eq!(figures.row()[..7], ["get", "4", "1", "1", "0", "1", "1"]);
        assert!((2.99..3.01).contains(&figures.max_ms), "{figures:?}");
        assert_eq!(Figures::new("put", &operations).operations, 0);
    }
}
