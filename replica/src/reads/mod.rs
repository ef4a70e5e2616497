//! Quorum reads, as the node that was asked performs them.
//!
//! Reads that came together share one sample; a read never joins a sample that was sent before it began, which could
//! be stale. Those that meet a conflict go on one by one as [contested] reads.

mod contested;
pub(crate) mod rule;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorumkv_protocol::client::{Evidence, Rule, Versioned, Witness};
use quorumkv_protocol::peer::{KeyAnswer, KeyProbe, PeerMessage, ReadSample, ReadSampleReply, Standing};
use quorumkv_protocol::{EntryId, ErrorCode, NodeId};

use crate::effects::{Notice, Reply};
use crate::input::Token;
use crate::replica::Replica;
use crate::state::StateView;
use crate::time::Timestamp;
use contested::Contested;
use rule::{Answer, Candidate};

/// Most keys in one sample, and the bytes of keys and of this node's own values for them after which no more are added.
const SAMPLE_KEYS: usize = 1024;
const SAMPLE_BYTES: usize = 4 << 20;

/// Bytes of values that reads under way may hold. Beyond it reads wait until others are answered.
const HELD_BYTES: usize = 64 << 20;

/// How often deadlines are looked at: a client's answer may come this much late.
const EXPIRY_SCAN: Duration = Duration::from_millis(25);

/// A member is given this many times its usual latency before another is asked in its place.
const HEDGE_FACTOR: u32 = 4;

/// All reads of this node that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Reads that came since the last sample was sent.
    waiting: VecDeque<Read>,
    /// Scans that came since then.
    barriers_waiting: Vec<Barrier>,
    samples: BTreeMap<u64, Sample>,
    contested: BTreeMap<u64, Contested>,
    /// Scans that know how far this node's state must be.
    barriers: Vec<(EntryId, Barrier)>,
    /// Smoothed time that each member takes to answer.
    latency: BTreeMap<NodeId, Duration>,
    in_flight: usize,
    /// Bytes of values that samples and contested reads hold.
    held: usize,
    scanned: Timestamp,
}

/// A client's read of one key.
#[derive(Debug)]
pub(super) struct Read {
    token: Token,
    key: Bytes,
    evidence: bool,
    started: Timestamp,
    deadline: Timestamp,
}

/// A client's scan: it needs only to know how fresh a snapshot must be.
#[derive(Debug)]
struct Barrier {
    token: Token,
    deadline: Timestamp,
}

/// Reads that ask the same members with one message each.
#[derive(Debug)]
struct Sample {
    /// Each read with this node's own answer; `None` once it has been given up.
    reads: Vec<Option<Read>>,
    barriers: Vec<Barrier>,
    asked: Vec<NodeId>,
    answers: Vec<(NodeId, ReadSampleReply)>,
    /// Bytes of this node's own values.
    held: usize,
    started: Timestamp,
    /// When members were last asked.
    sent: Timestamp,
}

impl<S: StateView> Replica<S> {
    /// A client wants to read a key.
    pub(crate) fn read(&mut self, token: Token, key: Bytes, evidence: bool, deadline: Timestamp) {
        if self.reader.in_flight >= self.settings.reads {
            let failed = Reply::Failed { code: ErrorCode::Overloaded, differing: None, evidence: None };
            return self.out.answer(token, failed);
        }
        self.reader.in_flight += 1;
        self.reader.waiting.push_back(Read { token, key, evidence, started: self.now, deadline });
    }

    /// A client wants to read a snapshot.
    pub(crate) fn barrier(&mut self, token: Token, deadline: Timestamp) {
        self.reader.barriers_waiting.push(Barrier { token, deadline });
    }

    /// Sends samples for what has come, and looks again at what this node's own progress may decide.
    pub(crate) fn drive_reads(&mut self, entropy: u64) {
        self.release_barriers();
        self.drive_contested();
        let needed = self.configuration.quorum() - 1;
        if self.links.len() < needed {
            return;
        }
        while (!self.reader.waiting.is_empty() || !self.reader.barriers_waiting.is_empty())
            && self.reader.held < HELD_BYTES
        {
            let peers = choose(self.links.iter().copied().collect(), needed, entropy);
            self.sample(peers);
        }
    }

    /// Samples `peers` and this node for as many waiting reads as one message takes.
    fn sample(&mut self, peers: Vec<NodeId>) {
        let (mut reads, mut keys, mut key_bytes, mut held) = (Vec::new(), Vec::new(), 0, 0);
        while reads.len() < SAMPLE_KEYS
            && key_bytes + held < SAMPLE_BYTES
            && let Some(read) = self.reader.waiting.pop_front()
        {
            let own = self.holding(&read.key);
            key_bytes += read.key.len();
            held += value_bytes(&own);
            keys.push(own);
            reads.push(read);
        }
        self.reader.held += held;
        let probes: Vec<KeyProbe> = reads
            .iter()
            .zip(&keys)
            .map(|(read, held)| KeyProbe { key: read.key.clone(), held: present(held) })
            .collect();
        let correlation = self.out.next_correlation();
        for &peer in &peers {
            let ask = ReadSample { configuration: self.configuration.id, pass: None, keys: probes.clone() };
            self.out.reply(peer, correlation, PeerMessage::ReadSample(ask));
        }
        let own = ReadSampleReply { configuration: self.configuration.id, standing: self.standing(), keys };
        let sample = Sample {
            reads: reads.into_iter().map(Some).collect(),
            barriers: std::mem::take(&mut self.reader.barriers_waiting),
            asked: peers,
            answers: vec![(self.me, own)],
            held,
            started: self.now,
            sent: self.now,
        };
        self.reader.samples.insert(correlation, sample);
        self.conclude(correlation);
    }

    /// A member answered a sample.
    pub(crate) fn on_sample_reply(&mut self, from: NodeId, correlation: u64, reply: ReadSampleReply) {
        if reply.configuration != self.configuration.id {
            // Another configuration voids the answer; the read goes on with other members or at the next round.
            return;
        }
        if self.reader.contested.contains_key(&correlation) {
            return self.on_contested_reply(from, correlation, reply);
        }
        let Some(sample) = self.reader.samples.get_mut(&correlation) else { return };
        if reply.keys.len() != sample.reads.len() {
            return self.absurd(from, "it answered about other keys than it was asked");
        }
        if !sample.asked.contains(&from) || sample.answers.iter().any(|(node, _)| *node == from) {
            return;
        }
        let took = self.now.since(sample.started);
        let usual = self.reader.latency.entry(from).or_insert(took);
        *usual = (*usual * 7 + took) / 8;
        sample.answers.push((from, reply));
        self.conclude(correlation);
    }

    /// Answers the reads of a sample if a quorum has answered; those in conflict go on by themselves.
    fn conclude(&mut self, correlation: u64) {
        let quorum = self.configuration.quorum();
        if self.reader.samples.get(&correlation).is_none_or(|sample| sample.answers.len() < quorum) {
            return;
        }
        let Some(sample) = self.reader.samples.remove(&correlation) else { return };
        self.reader.held -= sample.held;
        if let Some(target) = sample.answers.iter().map(|(_, reply)| reply.standing.last).max() {
            self.reader.barriers.extend(sample.barriers.into_iter().map(|barrier| (target, barrier)));
        }
        let mut columns: Vec<(NodeId, Standing, std::vec::IntoIter<KeyAnswer>)> = sample
            .answers
            .into_iter()
            .map(|(node, reply)| (node, reply.standing, reply.keys.into_iter()))
            .collect();
        for read in sample.reads {
            let answers: Vec<Answer> = columns
                .iter_mut()
                .filter_map(|(node, standing, keys)| {
                    keys.next().map(|key| Answer { node: *node, round: 1, standing: *standing, key })
                })
                .collect();
            if let Some(read) = read {
                self.decide(read, answers);
            }
        }
        self.release_barriers();
    }

    /// Answers a read by its first answers, or lets it go on as contested.
    fn decide(&mut self, read: Read, answers: Vec<Answer>) {
        let Some(candidate) = rule::candidate(&answers) else { return };
        if let Some((one, other, entry)) = rule::differing(&answers) {
            return self.report_corruption(&read, (one, other), entry);
        }
        let quorum = self.configuration.quorum();
        let value = find_value(&candidate, &answers);
        match (rule::verdict(quorum, &candidate, &answers), value) {
            (Some(rule), Found::Value(value)) => {
                let seen = Seen { answers: &answers, candidate: &candidate, rounds: Rounds::FIRST };
                let evidence = read.evidence.then(|| seen.evidence(quorum, &read, self.now, Some(rule)));
                self.finish(read.token, Reply::Read { value, evidence });
            }
            (_, value) => self.contest(read, answers, candidate, value),
        }
    }

    fn report_corruption(&mut self, read: &Read, differing: (NodeId, NodeId), entry: EntryId) {
        self.out.notice(Notice::Corruption { differing, entry });
        let failed =
            Reply::Failed { code: ErrorCode::Corruption, differing: Some(differing), evidence: None };
        self.finish(read.token, failed);
    }

    fn finish(&mut self, token: Token, reply: Reply) {
        self.reader.in_flight -= 1;
        self.out.answer(token, reply);
    }

    /// Answers scans for which this node's state is fresh enough by now.
    fn release_barriers(&mut self) {
        if self.reader.barriers.is_empty() {
            return;
        }
        let applied = self.log.id_at(self.applied).unwrap_or(self.log.base());
        for (_, barrier) in self.reader.barriers.extract_if(.., |(target, _)| *target <= applied) {
            self.out.answer(barrier.token, Reply::Ready);
        }
    }

    /// A link broke: who waits for that member asks another at the next tick.
    pub(crate) fn reader_lost_link(&mut self, node: NodeId) {
        for sample in self.reader.samples.values_mut() {
            if sample.asked.contains(&node) && sample.answers.iter().all(|(answered, _)| *answered != node) {
                sample.sent = Timestamp::ZERO;
            }
        }
    }

    pub(crate) fn tick_reads(&mut self) {
        self.hedge();
        self.tick_contested();
        if self.now.since(self.reader.scanned) >= EXPIRY_SCAN {
            self.reader.scanned = self.now;
            self.expire_reads();
        }
    }

    /// Asks another member where one takes much longer than usual, and everybody again where nobody is left.
    fn hedge(&mut self) {
        let (now, settings) = (self.now, &self.settings);
        for (&correlation, sample) in &mut self.reader.samples {
            let unanswered =
                || sample.asked.iter().filter(|node| sample.answers.iter().all(|(from, _)| from != *node));
            let usual = unanswered()
                .filter_map(|node| self.reader.latency.get(node))
                .max()
                .copied()
                .unwrap_or_default();
            let waited = now.since(sample.sent);
            if waited < (usual * HEDGE_FACTOR).min(settings.resend).max(settings.hedge) {
                continue;
            }
            let fresh = self.links.iter().copied().find(|node| !sample.asked.contains(node));
            let again: Vec<NodeId> = match fresh {
                Some(node) => vec![node],
                None if waited >= settings.resend => {
                    unanswered().copied().filter(|node| self.links.contains(node)).collect()
                }
                None => continue,
            };
            sample.sent = now;
            sample.asked.extend(fresh);
            let own = &sample.answers[0].1;
            let empty = Bytes::new();
            let keys: Vec<KeyProbe> = sample
                .reads
                .iter()
                .zip(&own.keys)
                .map(|(read, held)| KeyProbe {
                    key: read.as_ref().map_or_else(|| empty.clone(), |read| read.key.clone()),
                    held: present(held),
                })
                .collect();
            for node in again {
                let ask = ReadSample { configuration: self.configuration.id, pass: None, keys: keys.clone() };
                self.out.reply(node, correlation, PeerMessage::ReadSample(ask));
            }
        }
    }

    /// Gives up reads whose deadline has come.
    fn expire_reads(&mut self) {
        let (now, out, reader) = (self.now, &mut self.out, &mut self.reader);
        let timed_out = || Reply::Failed { code: ErrorCode::ReadTimedOut, differing: None, evidence: None };
        let mut expired = 0;
        reader.waiting.retain(|read| {
            let waits = read.deadline > now;
            if !waits {
                expired += 1;
                out.answer(read.token, timed_out());
            }
            waits
        });
        for sample in reader.samples.values_mut() {
            for slot in &mut sample.reads {
                if let Some(read) = slot.take_if(|read| read.deadline <= now) {
                    expired += 1;
                    out.answer(read.token, timed_out());
                }
            }
        }
        reader.in_flight -= expired;
        let forming = reader.samples.values_mut().map(|sample| &mut sample.barriers);
        for barriers in forming.chain([&mut reader.barriers_waiting]) {
            for barrier in barriers.extract_if(.., |barrier| barrier.deadline <= now) {
                out.answer(barrier.token, timed_out());
            }
        }
        for (_, barrier) in reader.barriers.extract_if(.., |(_, barrier)| barrier.deadline <= now) {
            out.answer(barrier.token, timed_out());
        }
        let held = &mut reader.held;
        reader.samples.retain(|_, sample| {
            let is_wanted = !sample.barriers.is_empty() || sample.reads.iter().any(Option::is_some);
            if !is_wanted {
                *held -= sample.held;
            }
            is_wanted
        });
    }
}

/// Rounds of sampling so far, and how many of them ended in conflict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    sampled: u32,
    conflicts: u32,
}

impl Rounds {
    const FIRST: Self = Self { sampled: 1, conflicts: 0 };
}

/// `count` of the nodes at random.
fn choose(mut nodes: Vec<NodeId>, count: usize, entropy: u64) -> Vec<NodeId> {
    let mut entropy = entropy;
    for i in 0..count {
        let left = (nodes.len() - i) as u64;
        let pick = i + usize::try_from(entropy % left).expect("it is below the number of nodes");
        entropy /= left;
        nodes.swap(i, pick);
    }
    nodes.truncate(count);
    nodes
}

/// The entry whose value is held.
fn present(answer: &KeyAnswer) -> Option<EntryId> {
    match answer {
        KeyAnswer::Present { id, .. } => Some(*id),
        KeyAnswer::Absent { .. } => None,
    }
}

/// Bytes of the value in an answer.
fn value_bytes(answer: &KeyAnswer) -> usize {
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
fn find_value(candidate: &Candidate, answers: &[Answer]) -> Found {
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
struct Seen<'a> {
    answers: &'a [Answer],
    candidate: &'a Candidate,
    rounds: Rounds,
}

impl Seen<'_> {
    /// Who said what.
    fn evidence(&self, quorum: usize, read: &Read, now: Timestamp, rule: Option<Rule>) -> Evidence {
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
