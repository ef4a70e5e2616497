//! What came of a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use quorumkv_history::{Checked, Operation};
use serde::Serialize;

use crate::faults::{Kind, Record};
use crate::recorder::tally;

/// Of texts that nodes have said, so many are shown.
const TEXTS_SHOWN: usize = 12;

/// How often it was a kind's turn and it made no sense, and why.
pub(crate) type Skipped = BTreeMap<(Kind, &'static str), u64>;

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What decided which faults happened when.
    pub seed: u64,
    /// How many nodes the cluster began with.
    pub nodes: usize,
    /// How long it took, in seconds.
    pub took_s: u64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// How many faults there were.
    pub faults: u64,
    /// Faults by their kinds.
    pub kinds: BTreeMap<&'static str, OfKind>,
    /// Operations by what was asked and what came of it.
    pub operations: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// How the cluster did when nothing was wrong for a while.
    pub calm: Calms,
    /// How nodes ended by themselves, or because of a fault of their disk, and how often.
    pub ends: BTreeMap<String, u64>,
    /// Why nodes found a part of what they had lost, and began anew under another identity, and how often.
    pub losses: BTreeMap<String, u64>,
    /// What the check of the history says.
    pub checked: Option<Checked>,
    /// What contradicts what.
    pub violation: Option<String>,
    /// What else is wrong.
    pub problems: Vec<String>,
}

/// What is told of one kind of faults.
#[derive(Clone, Default, Debug, Serialize)]
pub struct OfKind {
    /// How many there were.
    pub faults: u64,
    /// How often it was this kind's turn and it made no sense.
    pub skipped: u64,
    /// Why, and how often.
    pub skips: BTreeMap<&'static str, u64>,
    /// How long they lasted, on average, in milliseconds.
    pub mean_ms: u64,
    /// The longest time without an acknowledged write of which a part lies within one, in milliseconds. Other faults went on at
    /// the same time.
    pub longest_without_write_ms: u64,
}

/// What is told of the times of calm.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub struct Calms {
    /// How many there were.
    pub times: usize,
    /// From the end of the last fault until every node served, in milliseconds: the longest.
    pub longest_ms: u64,
    /// The same: the median.
    pub median_ms: u64,
}

impl Report {
    pub(crate) fn new(seed: u64, nodes: usize, took: Duration, interrupted: bool) -> Self {
        Self {
            seed,
            nodes,
            took_s: took.as_secs(),
            interrupted,
            faults: 0,
            kinds: BTreeMap::new(),
            operations: BTreeMap::new(),
            calm: Calms::default(),
            ends: BTreeMap::new(),
            losses: BTreeMap::new(),
            checked: None,
            violation: None,
            problems: Vec::new(),
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violation.is_none() && self.problems.is_empty()
    }

    pub(crate) fn count_faults(&mut self, records: &[Record], skipped: &Skipped) {
        self.faults = records.len() as u64;
        self.kinds = Kind::ALL.iter().map(|kind| (kind.name(), OfKind::default())).collect();
        for record in records {
            let of_kind = self.kinds.entry(record.kind).or_default();
            of_kind.faults += 1;
            of_kind.mean_ms += record.to_ms - record.from_ms;
            of_kind.longest_without_write_ms =
                of_kind.longest_without_write_ms.max(record.longest_without_write_ms);
        }
        for of_kind in self.kinds.values_mut() {
            of_kind.mean_ms = of_kind.mean_ms.checked_div(of_kind.faults).unwrap_or(0);
        }
        for (&(kind, why), &count) in skipped {
            let of_kind = self.kinds.entry(kind.name()).or_default();
            of_kind.skipped += count;
            of_kind.skips.insert(why, count);
        }
    }

    pub(crate) fn count_operations(&mut self, operations: &[Operation], checked: Result<Checked, String>) {
        self.operations = tally(operations);
        match checked {
            Ok(checked) => {
                self.problems.extend(undecided(&checked));
                self.checked = Some(checked);
            }
            Err(violation) => self.violation = Some(violation),
        }
    }

    pub(crate) fn recoveries(&mut self, recoveries: &[Duration]) {
        let mut sorted = recoveries.to_vec();
        sorted.sort_unstable();
        let ms = |time: Option<&Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        self.calm = Calms {
            times: sorted.len(),
            longest_ms: ms(sorted.last()),
            median_ms: ms(sorted.get(sorted.len() / 2)),
        };
    }

    fn faults_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["fault", "times", "skipped", "lasted, mean", "longest without a write"]);
        let seconds = |ms: u64| format!("{:.1} s", Duration::from_millis(ms).as_secs_f64());
        for (name, of_kind) in &self.kinds {
            table.add_row([
                (*name).to_owned(),
                of_kind.faults.to_string(),
                of_kind.skipped.to_string(),
                seconds(of_kind.mean_ms),
                seconds(of_kind.longest_without_write_ms),
            ]);
        }
        align_numbers(&mut table);
        table
    }

    fn operations_table(&self) -> Table {
        const OUTCOMES: [&str; 4] = ["ok", "mismatch", "failed", "unknown"];
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["operation", OUTCOMES[0], OUTCOMES[1], OUTCOMES[2], OUTCOMES[3]]);
        for (name, outcomes) in &self.operations {
            let count = |outcome| outcomes.get(outcome).copied().unwrap_or(0).to_string();
            let counts = OUTCOMES.map(count);
            table.add_row([(*name).to_owned()].into_iter().chain(counts));
        }
        align_numbers(&mut table);
        table
    }
}

/// That no contradiction was found shows nothing where it was not searched to the end.
fn undecided(checked: &Checked) -> Option<String> {
    let keys = checked.undecided_keys.join(", ");
    (checked.undecided > 0).then(|| {
        format!("whether the answers about {keys} fit an order would take too long to find out: nothing is known of them")
    })
}

fn align_numbers(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// The most frequent of some texts.
fn counted(f: &mut Formatter<'_>, what: &str, texts: &BTreeMap<String, u64>) -> fmt::Result {
    if texts.is_empty() {
        return Ok(());
    }
    writeln!(f, "{what}:")?;
    let mut texts: Vec<_> = texts.iter().collect();
    texts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (text, count) in texts.iter().take(TEXTS_SHOWN) {
        writeln!(f, "  {count} × {text}")?;
    }
    writeln!(f)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}\n", self.faults_table(), self.operations_table())?;
        let skips = self.kinds.iter().flat_map(|(name, of_kind)| {
            of_kind.skips.iter().map(move |(why, &count)| (format!("{name}: {why}"), count))
        });
        counted(f, "faults that made no sense at their moment", &skips.collect())?;
        counted(f, "nodes ended by themselves", &self.ends)?;
        counted(f, "nodes found a part of what they had lost, and began anew", &self.losses)?;
        let Calms { times, longest_ms, median_ms } = self.calm;
        writeln!(
            f,
            "{} faults in {} s (seed {}, {} nodes); {times} times of calm: all nodes served after {median_ms} ms (median), {longest_ms} ms (longest)",
            self.faults, self.took_s, self.seed, self.nodes
        )?;
        for problem in &self.problems {
            writeln!(f, "WRONG: {problem}")?;
        }
        match (&self.violation, &self.checked) {
            (Some(violation), _) => writeln!(f, "NOT LINEARIZABLE: {violation}"),
            (None, Some(checked)) => writeln!(
                f,
                "linearizable: {} operations on {} keys; searched {}, undecided {}",
                checked.operations, checked.keys, checked.searched, checked.undecided
            ),
            (None, None) => writeln!(f, "the history was not checked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(1, 3, Duration::from_secs(1), false)
    }

    #[test]
    fn an_undecided_key_is_no_success() {
        let mut good = report();
        good.count_operations(&[], Ok(Checked::default()));
        assert!(good.is_good());
        let mut open = report();
        let undecided_keys = vec!["era-00003/key-2".to_owned()];
        open.count_operations(&[], Ok(Checked { undecided: 1, undecided_keys, ..Checked::default() }));
        assert!(!open.is_good() && open.violation.is_none());
        assert!(open.to_string().contains("WRONG: whether the answers about era-00003/key-2"), "{open}");
    }

    #[test]
    fn what_was_skipped_is_told_with_its_reasons() {
        let mut report = report();
        let skipped = [((Kind::Wipe, "a voter is away"), 2), ((Kind::Wipe, "another fault has it"), 1)];
        report.count_faults(&[], &Skipped::from(skipped));
        assert_eq!(report.kinds["lost-disk"].skipped, 3);
        assert!(report.to_string().contains("2 × lost-disk: a voter is away"), "{report}");
    }
}
