//! What a read has come to know: the value that it would return, and who said what.

use quorumkv_protocol::EntryId;
use quorumkv_protocol::client::{Evidence, Rule, Versioned, Witness};
use quorumkv_protocol::peer::KeyAnswer;

use super::Read;
use super::rule::{Answer, Candidate};
use crate::time::Timestamp;

/// Rounds of sampling so far, and how many of them ended in conflict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    pub(super) sampled: u32,
    pub(super) conflicts: u32,
}

impl Rounds {
    pub(super) const FIRST: Self = Self { sampled: 1, conflicts: 0 };
}

/// The entry whose value is held.
pub(super) fn present(answer: &KeyAnswer) -> Option<EntryId> {
    match answer {
        KeyAnswer::Present { id, .. } => Some(*id),
        KeyAnswer::Absent { .. } => None,
    }
}

/// Bytes of the value in an answer.
pub(super) fn value_bytes(answer: &KeyAnswer) -> usize {
    match answer {
        KeyAnswer::Present { value: Some(value), .. } => value.len(),
        KeyAnswer::Present { value: None, .. } | KeyAnswer::Absent { .. } => 0,
    }
}

/// What a read would return.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// This, or `None` if the key is absent.
    Value(Option<Versioned>),
    /// A value that no answer so far has brought along.
    Missing,
}

/// What the candidate's entry wrote. Whoever named it sent the value, unless the asker holds it too or the answer would
/// have become too long.
pub(super) fn find_value(candidate: &Candidate, answers: &[Answer]) -> Found {
    let named = match candidate.entry {
        Some(entry) if candidate.is_present => entry,
        Some(_) | None => return Found::Value(None),
    };
    let value = answers.iter().find_map(|answer| match &answer.key {
        KeyAnswer::Present { id, value: Some(value), .. } if *id == named => Some(value),
        KeyAnswer::Present { .. } | KeyAnswer::Absent { .. } => None,
    });
    value.map_or(Found::Missing, |value| {
        Found::Value(Some(Versioned { version: named.version, value: value.clone() }))
    })
}

/// What a read has come to know.
pub(super) struct Seen<'a> {
    pub(super) answers: &'a [Answer],
    pub(super) candidate: &'a Candidate,
    pub(super) rounds: Rounds,
}

impl Seen<'_> {
    /// Who said what.
    pub(super) fn evidence(
        &self,
        quorum: usize,
        read: &Read,
        now: Timestamp,
        rule: Option<Rule>,
    ) -> Evidence {
        let witness = |answer: &Answer| Witness {
            node: answer.node,
            round: answer.round,
            last: answer.standing.last,
            promise: answer.standing.promise,
            committed: answer.standing.committed,
            touched: answer.key.id(),
            decided: answer.node == self.candidate.node,
        };
        Evidence {
            witnesses: self.answers.iter().map(witness).collect(),
            quorum: u32::try_from(quorum).unwrap_or(u32::MAX),
            rounds: self.rounds.sampled,
            conflicts: self.rounds.conflicts,
            elapsed_us: u64::try_from(now.since(read.started).as_micros()).unwrap_or(u64::MAX),
            rule,
        }
    }
}
