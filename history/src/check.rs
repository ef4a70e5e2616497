//! The whole check.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::facts::{Facts, end};
use crate::search::{self, Order};
use crate::stale::Stale;
use crate::versions::{self, Absences, Passed, Reads};
use crate::violation::Violation;
use crate::{Action, Operation, Outcome, zones};

/// What a search for one key may cost: most operations, and most steps times operations, which the memory grows with.
const MOST: usize = 20_000;
const COST: usize = 1_000_000_000;

/// What was found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Operations in the history.
    pub operations: u64,
    /// Different keys.
    pub keys: u64,
    /// Versions that were seen.
    pub versions: u64,
    /// Keys of which it was not plain which unanswered requests took effect, so that all ways were tried.
    pub searched: u64,
    /// Those of them for which there were too many ways. Nothing about them is known to be wrong.
    pub undecided: u64,
    /// Which ones.
    pub undecided_keys: Vec<String>,
}

/// Checks that a history is linearizable, in the order of versions.
///
/// Of keys that have to be searched, it is decided whether each is linearizable by itself; with the others they are
/// compared as if any number of unanswered deletes had taken effect.
///
/// # Errors
/// A few operations that contradict each other.
pub fn check(operations: &[Operation]) -> Result<Checked, Box<Violation>> {
    let facts = Facts::new(operations)?;
    let passed = versions::pass(&facts, Reads::Fresh, Absences::Early)?;
    zones::check(&facts)?;
    let doubtful = in_doubt(&facts, Reads::Fresh, passed)?;
    search_keys(&facts, doubtful, |_| true)
}

/// The same for a history whose reads were answered by single nodes from what they had applied. A read may be old, which
/// is counted. All else that holds of other histories must hold, too: what it finds was written, under that version, and
/// before the answer; and all that is not a read is linearizable.
///
/// # Errors
/// A few operations that contradict each other.
pub fn check_local(operations: &[Operation]) -> Result<(Checked, Stale), Box<Violation>> {
    let facts = Facts::new(operations)?;
    let passed = versions::pass(&facts, Reads::Old, Absences::Early)?;
    let stale = passed.stale;
    let doubtful = in_doubt(&facts, Reads::Old, passed)?;
    let checked = search_keys(&facts, doubtful, |operation| operation.action != Action::Get)?;
    Ok((checked, stale))
}

/// The keys of which it is not plain that requests without an answer suffice for what is owed to them. If one way to put
/// absences needs too many of them, another may not.
fn in_doubt(facts: &Facts<'_>, reads: Reads, passed: Passed) -> Result<BTreeSet<usize>, Box<Violation>> {
    let doubtful = passed.needs.assign(facts)?;
    if doubtful.is_empty() {
        return Ok(doubtful);
    }
    let cheaper = versions::pass(facts, reads, Absences::Cheap).and_then(|passed| passed.needs.assign(facts));
    Ok(cheaper.unwrap_or(doubtful))
}

fn counted(facts: &Facts<'_>) -> Checked {
    Checked {
        operations: facts.operations.len() as u64,
        keys: facts.chains.len() as u64,
        versions: facts.links.len() as u64,
        ..Checked::default()
    }
}

/// Tries all ways for some keys, and some of the operations on them.
fn search_keys(
    facts: &Facts<'_>,
    keys: BTreeSet<usize>,
    counts: impl Fn(&Operation) -> bool,
) -> Result<Checked, Box<Violation>> {
    let mut checked = counted(facts);
    for key in keys {
        checked.searched += 1;
        let of_key = facts
            .operations
            .iter()
            .zip(&facts.keys)
            .filter(|(operation, of)| **of == key && counts(operation));
        let operations: Vec<Operation> = of_key.map(|(operation, _)| operation.clone()).collect();
        match explained(&operations) {
            Some(true) => {}
            None => {
                checked.undecided += 1;
                checked.undecided_keys.extend(operations.first().map(|operation| operation.key.clone()));
            }
            Some(false) => return Err(fewest(operations)),
        }
    }
    Ok(checked)
}

/// Whether some order explains the operations, if that can be found out at a reasonable cost.
fn explained(operations: &[Operation]) -> Option<bool> {
    let steps = COST / operations.len().max(1);
    if operations.len() > MOST { None } else { search::within(operations, Order::Versions, steps as u64) }
}

/// Leaves out the observations that the contradiction does without, and writes that were over before the rest or came after.
fn fewest(mut operations: Vec<Operation>) -> Box<Violation> {
    operations.sort_by_key(|operation| operation.called);
    // Larger pieces first: most of a long history has nothing to do with it.
    let mut piece = operations.len().div_ceil(2);
    loop {
        let mut from = 0;
        while from < operations.len() {
            let to = (from + piece).min(operations.len());
            let is_kept = |(at, operation): &(usize, &Operation)| {
                !(from..to).contains(at) || !is_observation(operation)
            };
            let rest: Vec<Operation> = operations
                .iter()
                .enumerate()
                .filter(is_kept)
                .map(|(_, operation)| operation.clone())
                .collect();
            if rest.len() < operations.len() && explained(&rest) == Some(false) {
                operations = rest;
            } else {
                from = to;
            }
        }
        if piece <= 1 {
            break;
        }
        piece = piece.div_ceil(2);
    }
    let observed = || operations.iter().filter(|operation| is_observation(operation));
    let from = observed().map(|operation| operation.called).min().unwrap_or(0);
    let to = observed().map(end).max().unwrap_or(u64::MAX);
    let last = operations.iter().filter(|other| end(other) < from).max_by_key(|other| end(other));
    let shown = operations.iter().filter(|other| end(other) >= from && other.called <= to).chain(last);
    let reason = "No order explains the answers, whichever of the unanswered requests took effect.";
    Violation::new(reason, shown)
}

/// Whether leaving it out makes a history more permissive.
const fn is_observation(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Found { .. } | Outcome::Absent | Outcome::Mismatch { .. })
}
