//! The rule by which a quorum read is answered (DESIGN 6). Nothing else decides what a read returns.
//!
//! All answers were given after the read began, by different members, at least a quorum of them; a member's newer
//! answer takes the place of its older one.
//!
//! Let e be the highest accepted epoch among the answers. Within one epoch every log is a prefix of the leader's, so
//! the answer from e with the highest last version knows the most: it decides, and the entry p that it names for the
//! key is the read's *candidate*. Every write acknowledged before the read began is in its log. What remains is to
//! make sure that p itself can never be lost:
//!
//! - p is *known committed* if it lies at or below the committed version of some answer from e;
//! - p is *chosen* if a quorum of answers are from e, settled, with logs that reach p: that is the commit rule, seen
//!   from outside. A settled answer is a vote, and votes are never taken back, so the answers need not be of one moment.
//!
//! A candidate stays valid for as long as no answer is from a higher epoch: p was the key's newest entry when the
//! decider spoke, which was after the read began, and it is returned only once it is committed.

use quorumkv_mutants::Mutant;
use quorumkv_protocol::client::Rule;
use quorumkv_protocol::peer::{KeyAnswer, Standing};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};

/// What one member answered about one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) node: NodeId,
    /// The round of sampling that brought it, from 1.
    pub(crate) round: u32,
    pub(crate) standing: Standing,
    pub(crate) key: KeyAnswer,
}

/// What a read will return if it turns out to be committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// The member that decided.
    pub(crate) node: NodeId,
    /// The accepted epoch of its answer.
    pub(crate) epoch: Epoch,
    /// The entry that it named; `None` if the key is absent and whatever deleted it was applied, and so committed,
    /// before.
    pub(crate) entry: Option<EntryId>,
    /// Whether that entry gave the key a value.
    pub(crate) is_present: bool,
}

impl Candidate {
    /// The version that a member's log must reach to hold the entry.
    fn version(&self) -> Version {
        self.entry.map_or(Version::ZERO, |entry| entry.version)
    }

    /// The position that a log has reached if it holds the entry in the candidate's epoch, or belongs to a later one.
    pub(crate) fn position(&self) -> EntryId {
        EntryId::new(self.epoch, self.version())
    }
}

/// The candidate among these answers: that of the highest epoch, and within it of the longest log.
pub(crate) fn candidate(answers: &[Answer]) -> Option<Candidate> {
    let rank = |answer: &&Answer| match answer.key {
        KeyAnswer::Present { id, .. } if Mutant::ReadHighestVersion.on() => {
            EntryId::new(Epoch::ZERO, id.version)
        }
        KeyAnswer::Absent { .. } if Mutant::ReadHighestVersion.on() => EntryId::ZERO,
        _ => answer.standing.last,
    };
    let decider = answers.iter().max_by_key(rank)?;
    Some(Candidate {
        node: decider.node,
        epoch: decider.standing.last.epoch,
        entry: match decider.key {
            KeyAnswer::Absent { .. } if Mutant::ReadUncommittedDelete.on() => None,
            _ => decider.key.id(),
        },
        is_present: matches!(decider.key, KeyAnswer::Present { .. }),
    })
}

/// By which rule the candidate may be returned, if by any.
pub(crate) fn verdict(quorum: usize, candidate: &Candidate, answers: &[Answer]) -> Option<Rule> {
    let version = candidate.version();
    let is_from = |epoch| epoch == candidate.epoch || Mutant::ReadIgnoresEpoch.on();
    let from_epoch = || answers.iter().filter(|answer| is_from(answer.standing.last.epoch));
    if Mutant::ReadUncommitted.on() {
        return Some(Rule::Chosen);
    }
    if from_epoch().any(|answer| version <= answer.standing.committed) {
        return Some(Rule::KnownCommitted);
    }
    let votes = from_epoch().filter(|answer| {
        let is_settled = answer.standing.is_settled() || Mutant::ReadCountsUnsettled.on();
        is_settled && answer.standing.last.version >= version
    });
    (votes.count() >= quorum).then_some(Rule::Chosen)
}

/// Whether an answer shows that the asker's newest configuration `ours` does not count, or not any more: the answering
/// replica has a newer one; or it has another, and its durable log is better than one that ends with `ours`. Within an
/// epoch all logs are prefixes of one, so such a log is of a later epoch whose leader did not adopt `ours`, and may have
/// committed what a quorum of `ours` does not hold.
pub(crate) fn is_void(ours: EntryId, theirs: EntryId, last: EntryId) -> bool {
    theirs > ours || (theirs != ours && last > ours)
}

/// Two members that hold different values under one entry id, if there are any, or one whose value is not what its own checksum says:
/// corruption.
pub(crate) fn differing(answers: &[Answer]) -> Option<(NodeId, NodeId, EntryId)> {
    let values = || {
        answers.iter().filter_map(|answer| match answer.key {
            KeyAnswer::Present { id, checksum, .. } => Some((id, checksum, answer.node)),
            KeyAnswer::Absent { .. } => None,
        })
    };
    let differing = values().find_map(|(id, checksum, node)| {
        values().find(|other| other.0 == id && other.1 != checksum).map(|other| (node, other.2, id))
    });
    differing.or_else(|| answers.iter().find_map(changed).map(|(node, id)| (node, node, id)))
}

/// A value that is not what it was when its checksum was made. That is kept with it, so it may have changed in memory.
fn changed(answer: &Answer) -> Option<(NodeId, EntryId)> {
    match &answer.key {
        KeyAnswer::Present { id, checksum, value: Some(value) } if crc32c::crc32c(value) != *checksum => {
            Some((answer.node, *id))
        }
        KeyAnswer::Present { .. } | KeyAnswer::Absent { .. } => None,
    }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
