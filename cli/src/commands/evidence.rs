//! How a quorum read came to its answer, for people and for programs.

use std::fmt::Write;

use quorumkv_client::{Evidence, Rule, Witness};
use serde::Serialize;

use crate::output::{number, table, text};

/// Evidence in JSON.
#[derive(Serialize)]
pub(crate) struct EvidenceJson {
    /// How many answers had to come together.
    quorum: u32,
    rounds: u32,
    conflicts: u32,
    /// From the request's arrival at the node to its answer.
    elapsed_us: String,
    /// `known_committed` or `chosen`; null if the read gave up.
    rule: Option<&'static str>,
    witnesses: Vec<WitnessJson>,
}

/// What one member said.
#[derive(Serialize)]
struct WitnessJson {
    node: String,
    round: u32,
    /// The last durable entry of its log.
    last: EntryJson,
    /// The highest epoch that it has promised.
    promise: String,
    committed: String,
    /// The last entry that touched the key.
    touched: Option<EntryJson>,
    decided: bool,
}

#[derive(Serialize)]
struct EntryJson {
    epoch: String,
    version: String,
}

impl From<&Evidence> for EvidenceJson {
    fn from(evidence: &Evidence) -> Self {
        Self {
            quorum: evidence.quorum,
            rounds: evidence.rounds,
            conflicts: evidence.conflicts,
            elapsed_us: evidence.elapsed_us.to_string(),
            rule: evidence.rule.map(|rule| match rule {
                Rule::KnownCommitted => "known_committed",
                Rule::Chosen => "chosen",
            }),
            witnesses: evidence.witnesses.iter().map(WitnessJson::from).collect(),
        }
    }
}

impl From<&Witness> for WitnessJson {
    fn from(witness: &Witness) -> Self {
        let Witness { node, round, last, promise, committed, touched, decided } = witness;
        Self {
            node: node.to_string(),
            round: *round,
            last: EntryJson { epoch: last.epoch.to_string(), version: last.version.to_string() },
            promise: promise.to_string(),
            committed: committed.to_string(),
            touched: touched.map(|entry| EntryJson {
                epoch: entry.epoch.to_string(),
                version: entry.version.to_string(),
            }),
            decided: *decided,
        }
    }
}

/// Evidence as a table of the members' answers and a sentence.
pub(crate) fn describe(evidence: &Evidence) -> String {
    let columns = [
        text("MEMBER"),
        number("ROUND"),
        text("EPOCH"),
        number("LAST"),
        text("PROMISE"),
        number("COMMITTED"),
        text("KEY TOUCHED BY"),
        text("DECIDED"),
    ];
    let rows: Vec<_> = evidence.witnesses.iter().map(row).collect();
    let mut description = table(&columns, &rows);
    writeln!(description, "{}", summary(evidence)).expect("a string takes everything");
    description
}

fn row(witness: &Witness) -> Vec<String> {
    let touched = witness.touched.map_or_else(|| "-".to_owned(), |entry| entry.to_string());
    vec![
        witness.node.to_string(),
        witness.round.to_string(),
        witness.last.epoch.to_string(),
        witness.last.version.to_string(),
        witness.promise.to_string(),
        witness.committed.to_string(),
        touched,
        if witness.decided { "yes".to_owned() } else { String::new() },
    ]
}

fn summary(evidence: &Evidence) -> String {
    let rule = match evidence.rule {
        Some(Rule::KnownCommitted) => {
            "answered: a member of the deciding epoch knew the entry to be committed"
        }
        Some(Rule::Chosen) => "answered: all members sampled had accepted the entry in the deciding epoch",
        None => "gave up: the members sampled did not agree",
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let elapsed = evidence.elapsed_us as f64 / 1000.0;
    let Evidence { quorum, rounds, conflicts, .. } = evidence;
    format!("{rule} (quorum of {quorum}; rounds: {rounds}, conflicts: {conflicts}; {elapsed:.3} ms)")
}
