//! The quorum read, by the rule of DESIGN 6.
//!
//! There may be any number of reads, one after the other. One that overlaps another is one of them: reads change nothing
//! that the other could see, and what was read while it was under way does not bind it. A read begins with its first
//! answer: had it begun earlier, less would be demanded of it. For the same reason one that begins anew after a conflict
//! stands for one that goes on.

use crate::config::{Bug, Config, Reads};
use crate::events::{Event, Events};
use crate::log::{Epoch, Log, Version};
use crate::properties::{self, Violation};
use crate::state::{Answer, Candidate, Replica, State};

/// The write that deletes the key.
const DELETE: u8 = 2;

/// Whether a replica can tell a read something new.
pub(crate) fn may_answer(config: &Config, state: &State, node: usize) -> bool {
    let replica = &state.replicas[node];
    match (config.reads, replica.answer) {
        (Reads::None, _) => false,
        (Reads::Sampled | Reads::Contested, None) => true,
        // Answers can overtake one another; of one member's, the one with the longer log is the later.
        (Reads::Sampled | Reads::Contested, Some(known)) => {
            let now = told(config, replica);
            state.candidate.is_some() && now != known && now.log.last_id() >= known.log.last_id()
        }
    }
}

/// Whether a replica has answered the read under way, and would answer the same now. Where a read that has met a conflict goes
/// on, its answers replace one another, so that order is not looked at.
pub(crate) fn is_fresh(config: &Config, state: &State, node: usize) -> bool {
    let replica = &state.replicas[node];
    config.reads == Reads::Sampled && replica.answer.is_some_and(|answer| answer == told(config, replica))
}

/// What a replica tells: of what is durable, here or, because it is committed, on a quorum.
fn told(config: &Config, replica: &Replica) -> Answer {
    let durable = replica.durable.common(replica.log).max(replica.committed);
    let log = if config.has(Bug::ReadShowsUnsynced) { replica.log } else { replica.log.upto(durable) };
    // Whether more is committed than the key's last entry is of no interest; and if that is, nor who else holds it.
    let committed = replica.committed.min(log.touched());
    let is_known = committed == log.touched() && config.is_right();
    let settled = replica.promise == log.last_epoch() || is_known;
    Answer { log, committed, settled }
}

pub(crate) fn answer(
    config: &Config,
    state: &mut State,
    node: usize,
    events: &mut Events,
) -> Result<(), Violation> {
    let is_first = state.replicas.iter().all(|peer| peer.answer.is_none());
    if is_first {
        state.floor = state.shown().touched();
    }
    let new = told(config, &state.replicas[node]);
    state.replicas[node].answer = Some(new);
    let answers: Vec<Answer> = state.replicas.iter().filter_map(|peer| peer.answer).collect();
    if answers.len() < config.read_quorum {
        return Ok(());
    }
    let candidate = match state.candidate {
        Some(candidate) if new.log.last_epoch() <= candidate.epoch => candidate,
        Some(_) | None => candidate(config, &answers),
    };
    match verdict(config, candidate, &answers) {
        Some(rule) => {
            events.note(rule);
            properties::returned(state, candidate.log)?;
            state.end_read();
        }
        None => {
            events.note(Event::Conflict);
            match config.reads {
                Reads::Contested => state.candidate = Some(candidate),
                Reads::None | Reads::Sampled => state.end_read(),
            }
        }
    }
    Ok(())
}

/// The candidate among the answers: that of the highest epoch, and within it of the longest log.
fn candidate(config: &Config, answers: &[Answer]) -> Candidate {
    let decider = if config.has(Bug::ReadLongestDecides) {
        answers.iter().max_by_key(|answer| (answer.log.last(), answer.log.last_epoch()))
    } else if config.has(Bug::ReadPrefersPresent) {
        answers.iter().max_by_key(|answer| (present(answer.log), answer.log.last_id()))
    } else {
        answers.iter().max_by_key(|answer| answer.log.last_id())
    };
    let log = decider.map_or(Log::EMPTY, |answer| answer.log);
    Candidate { epoch: log.last_epoch(), log: log.upto(log.touched()) }
}

/// Version of the value that a log gives the key; 0 if it has none.
fn present(log: Log) -> Version {
    match log.touched() {
        0 => 0,
        version if log.entry(version).write == DELETE => 0,
        version => version,
    }
}

/// By which rule the candidate may be returned, if by any.
fn verdict(config: &Config, candidate: Candidate, answers: &[Answer]) -> Option<Event> {
    let version = candidate.log.last();
    if config.has(Bug::ReadIgnoresEpochs) {
        let value = |log: Log| (log.touched(), (log.touched() > 0).then(|| log.entry(log.touched()).write));
        let agree = answers.iter().all(|answer| value(answer.log) == value(candidate.log));
        return agree.then_some(Event::ReadChosen);
    }
    let is_from = |answer: &&Answer, epoch: Epoch| answer.log.last_epoch() == epoch;
    if answers.iter().any(|answer| is_from(&answer, candidate.epoch) && version <= answer.committed) {
        return Some(Event::ReadKnownCommitted);
    }
    let is_vote = |answer: &&Answer| {
        (is_from(answer, candidate.epoch) || config.has(Bug::ReadCountsOtherEpochs))
            && (answer.settled || config.has(Bug::ReadCountsUnsettled))
            && answer.log.last() >= version
    };
    (answers.iter().filter(is_vote).count() >= config.read_quorum).then_some(Event::ReadChosen)
}
