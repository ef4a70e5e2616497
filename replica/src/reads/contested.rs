//! Reads that met a conflict: a write is in flight, or a takeover under way.
//!
//! They do not simply repeat: members that are behind are asked to answer when they pass the candidate, members not
//! yet asked are asked, and only then, less and less often, everybody again.

use std::time::Duration;

use quorumkv_protocol::client::Rule;
use quorumkv_protocol::peer::{KeyProbe, PeerMessage, ReadSample, ReadSampleReply};
use quorumkv_protocol::{ErrorCode, NodeId};

use super::Read;
use super::found::{Found, Rounds, Seen, find_value, value_bytes};
use super::rule::{self, Answer, Candidate};
use crate::effects::{Damage, Notice, Reply};
use crate::replica::Replica;
use crate::state::StateView;
use crate::time::Timestamp;

/// Time from one round of sampling to the next: it doubles from the first to the second of these.
pub(super) const SHORTEST_ROUND: Duration = Duration::from_millis(10);
pub(super) const LONGEST_ROUND: Duration = Duration::from_millis(500);

/// A read in conflict.
#[derive(Debug)]
pub(super) struct Contested {
    read: Read,
    /// The last answer of each member.
    answers: Vec<Answer>,
    candidate: Candidate,
    /// What the read returns if the candidate is committed.
    value: Found,
    /// Bytes of values that it was found to hold when it became contested.
    held: usize,
    rounds: Rounds,
    next_round: Timestamp,
    pause: Duration,
}

impl<S: StateView> Replica<S> {
    /// Goes on with a read that its first answers did not decide.
    pub(super) fn contest(&mut self, read: Read, answers: Vec<Answer>, candidate: Candidate, value: Found) {
        let is_missing = value == Found::Missing;
        let held = answers.iter().map(|answer| value_bytes(&answer.key)).sum();
        self.reader.held += held;
        let contested = Contested {
            read,
            answers,
            candidate,
            value,
            held,
            rounds: Rounds { sampled: 1, conflicts: 1 },
            next_round: self.now + SHORTEST_ROUND,
            pause: SHORTEST_ROUND,
        };
        self.out.notice(Notice::ReadConflict { rounds: 1 });
        let correlation = self.out.next_correlation();
        self.reader.contested.insert(correlation, contested);
        self.ask_on(correlation, is_missing);
    }

    /// Asks those that can bring the read on: who is behind, who was not asked, or (`all`) everybody.
    fn ask_on(&mut self, correlation: u64, all: bool) {
        let Some(contested) = self.reader.contested.get(&correlation) else { return };
        let position = contested.candidate.position();
        let configuration = self.configurations.latest();
        for &node in self.links.iter().filter(|&&node| configuration.is_voter(node)) {
            let answer = contested.answers.iter().find(|answer| answer.node == node);
            let behind = answer.is_some_and(|answer| answer.standing.last < position);
            if !all && answer.is_some() && !behind {
                continue;
            }
            let ask = ReadSample {
                configuration: configuration.id,
                pass: behind.then_some(position),
                // The value is always sent along, so whatever becomes the candidate comes with it.
                keys: vec![KeyProbe { key: contested.read.key.clone(), held: None }],
            };
            self.out.reply(node, correlation, PeerMessage::ReadSample(ask));
        }
    }

    /// A member answered about a contested read.
    pub(super) fn on_contested_reply(&mut self, from: NodeId, correlation: u64, mut reply: ReadSampleReply) {
        let Some(contested) = self.reader.contested.get_mut(&correlation) else { return };
        let (Some(key), true) = (reply.keys.pop(), reply.keys.is_empty()) else {
            return self.absurd(from, "it answered about other keys than it was asked");
        };
        let round = contested.rounds.sampled;
        contested.note(Answer { node: from, round, standing: reply.standing, key });
        self.settle(correlation);
    }

    /// Returns the candidate if the answers by now permit it.
    fn settle(&mut self, correlation: u64) {
        let quorum = self.read_quorum();
        let Some(contested) = self.reader.contested.get(&correlation) else { return };
        if let Some((one, other, entry)) = rule::differing(&contested.answers) {
            let Some(contested) = self.take_contested(correlation) else { return };
            return self.report_corruption(&contested.read, (one, other), entry);
        }
        let Some(rule) = rule::verdict(quorum, &contested.candidate, &contested.answers) else { return };
        let Found::Value(value) = contested.value.clone() else { return };
        let Some(contested) = self.take_contested(correlation) else { return };
        let evidence = contested.read.evidence.then(|| contested.evidence(quorum, self.now, Some(rule)));
        self.finish(contested.read.token, Reply::Read { value, evidence });
    }

    /// This node's own log may have moved on: that answers too.
    pub(super) fn drive_contested(&mut self) {
        if self.reader.contested.is_empty() || !self.shows_state() {
            return;
        }
        let standing = self.standing();
        let correlations: Vec<u64> = self.reader.contested.keys().copied().collect();
        for correlation in correlations {
            let Some(contested) = self.reader.contested.get(&correlation) else { continue };
            if contested.answers.iter().any(|answer| answer.node == self.me && answer.standing == standing) {
                continue;
            }
            let Ok(key) = self.holding(&contested.read.key) else {
                return self.integrity.found(Damage::Unreadable);
            };
            let (node, round) = (self.me, contested.rounds.sampled);
            if let Some(contested) = self.reader.contested.get_mut(&correlation) {
                contested.note(Answer { node, round, standing, key });
            }
            self.settle(correlation);
        }
    }

    /// Samples again where the time has come; gives up where the deadline has.
    pub(super) fn tick_contested(&mut self) {
        let now = self.now;
        let due: Vec<u64> = self
            .reader
            .contested
            .iter()
            .filter(|(_, contested)| contested.next_round <= now || contested.read.deadline <= now)
            .map(|(&correlation, _)| correlation)
            .collect();
        for correlation in due {
            let Some(contested) = self.reader.contested.get_mut(&correlation) else { continue };
            if contested.read.deadline <= now {
                self.give_up(correlation);
                continue;
            }
            contested.rounds.sampled += 1;
            contested.rounds.conflicts += 1;
            contested.pause = (contested.pause * 2).min(LONGEST_ROUND);
            contested.next_round = now + contested.pause;
            let rounds = contested.rounds.sampled;
            self.out.notice(Notice::ReadConflict { rounds });
            self.ask_on(correlation, true);
        }
    }

    /// The read comes to its end.
    pub(super) fn take_contested(&mut self, correlation: u64) -> Option<Contested> {
        let contested = self.reader.contested.remove(&correlation)?;
        self.reader.held -= contested.held;
        Some(contested)
    }

    fn give_up(&mut self, correlation: u64) {
        let Some(contested) = self.take_contested(correlation) else { return };
        let evidence = Some(contested.evidence(self.configuration().quorum(), self.now, None));
        self.finish(
            contested.read.token,
            Reply::Failed { code: ErrorCode::Conflict, differing: None, evidence },
        );
    }
}

impl Contested {
    /// The client's read, to begin anew.
    pub(super) fn into_read(self) -> Read {
        self.read
    }

    /// Takes in an answer. A higher epoch than the candidate's makes the candidate void.
    fn note(&mut self, answer: Answer) {
        let newer = answer.standing.last.epoch > self.candidate.epoch;
        match self.answers.iter_mut().find(|known| known.node == answer.node) {
            // Answers can overtake one another; of one member's, the one with the longer log is the later.
            Some(known) if known.standing.last > answer.standing.last => return,
            Some(known) => *known = answer,
            None => self.answers.push(answer),
        }
        // A candidate whose value nobody has sent is no better than what the answers name by now.
        if (newer || self.value == Found::Missing)
            && let Some(candidate) = rule::candidate(&self.answers)
        {
            self.candidate = candidate;
            self.value = find_value(&candidate, &self.answers);
        }
    }

    fn evidence(
        &self,
        quorum: usize,
        now: Timestamp,
        rule: Option<Rule>,
    ) -> quorumkv_protocol::client::Evidence {
        let seen = Seen { answers: &self.answers, candidate: &self.candidate, rounds: self.rounds };
        seen.evidence(quorum, &self.read, now, rule)
    }
}
