//! Quorum reads, as the node that was asked performs them.
//!
//! Reads that came together share one sample; a read never joins a sample that was sent before it began, which could
//! be stale. Those that meet a conflict go on one by one as [contested] reads; those that meet a newer configuration are
//! [void] and begin anew.

mod contested;
mod found;
mod patience;
pub(crate) mod rule;
mod void;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorumkv_mutants::Mutant;
use quorumkv_protocol::peer::{KeyAnswer, KeyProbe, PeerMessage, ReadSample, ReadSampleReply, Standing};
use quorumkv_protocol::{EntryId, ErrorCode, NodeId};

use crate::effects::{Damage, Notice, Reply};
use crate::input::Token;
use crate::replica::Replica;
use crate::state::{StateView, Unreadable};
use crate::time::Timestamp;
use contested::Contested;
use found::{Found, Rounds, Seen, find_value, present, value_bytes};
use rule::Answer;
use void::Again;

/// Most keys in one sample, and the bytes of keys and of this node's own values for them after which no more are added.
const SAMPLE_KEYS: usize = 1024;
const SAMPLE_BYTES: usize = 4 << 20;

/// Bytes of values that reads under way may hold. Beyond it reads wait until others are answered.
const HELD_BYTES: usize = 64 << 20;

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
    /// What is to be sampled for again after a while.
    void: Vec<Again>,
    /// Smoothed time that each member takes to answer.
    latency: BTreeMap<NodeId, Duration>,
    in_flight: usize,
    /// Bytes of values that samples and contested reads hold.
    held: usize,
    scanned: Timestamp,
}

impl Reader {
    /// Reads of clients that are not answered.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// A client's read of one key.
#[derive(Debug)]
pub(super) struct Read {
    token: Token,
    key: Bytes,
    evidence: bool,
    started: Timestamp,
    deadline: Timestamp,
    /// How many of its samples were void.
    voids: u32,
}

/// A client's scan: it needs only to know how fresh a snapshot must be.
#[derive(Debug)]
struct Barrier {
    token: Token,
    deadline: Timestamp,
    /// How many of its samples were void.
    voids: u32,
}

/// Reads that ask the same members with one message each.
#[derive(Debug)]
struct Sample {
    /// Each read; `None` once it has been given up.
    reads: Vec<Option<Read>>,
    /// What is asked about them, in the same order.
    probes: Vec<KeyProbe>,
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
        if !self.is_member() {
            return self.refuse(token, ErrorCode::NotMember);
        }
        if self.reader.in_flight >= self.settings.reads {
            return self.refuse(token, ErrorCode::Overloaded);
        }
        self.reader.in_flight += 1;
        self.reader.waiting.push_back(Read { token, key, evidence, started: self.now, deadline, voids: 0 });
    }

    /// A client wants to read a snapshot.
    pub(crate) fn barrier(&mut self, token: Token, deadline: Timestamp) {
        if !self.is_member() {
            return self.refuse(token, ErrorCode::NotMember);
        }
        if self.integrity.is_damaged() {
            return self.refuse(token, ErrorCode::NotReady);
        }
        self.reader.barriers_waiting.push(Barrier { token, deadline, voids: 0 });
    }

    /// Sends samples for what has come, and looks again at what this node's own progress may decide.
    pub(crate) fn drive_reads(&mut self, entropy: u64) {
        self.release_barriers();
        self.drive_contested();
        while (!self.reader.waiting.is_empty() || !self.reader.barriers_waiting.is_empty())
            && self.reader.held < HELD_BYTES
            && (!Mutant::ReadJoinsEarlierSample.on() || self.reader.samples.is_empty())
        {
            let configuration = self.configuration();
            let needed = self.read_quorum() - usize::from(self.shows_state());
            let voters: Vec<NodeId> =
                self.links.iter().copied().filter(|&node| configuration.is_voter(node)).collect();
            if voters.len() < needed {
                return;
            }
            self.sample(choose(voters, needed, entropy));
        }
    }

    /// Samples `peers`, and this node if its state counts, for as many waiting reads as one message takes.
    fn sample(&mut self, peers: Vec<NodeId>) {
        let mut counts = self.shows_state();
        let (mut reads, mut keys, mut key_bytes, mut held) = (Vec::new(), Vec::new(), 0, 0);
        while reads.len() < SAMPLE_KEYS
            && key_bytes + held < SAMPLE_BYTES
            && let Some(read) = self.reader.waiting.pop_front()
        {
            // Who does not count has the values sent along.
            let unknown = KeyAnswer::Absent { deleted: None };
            let own = match if counts { self.holding(&read.key) } else { Ok(unknown.clone()) } {
                Ok(own) => own,
                Err(Unreadable) if self.is_alone() => {
                    self.fail_unreadable(&read);
                    continue;
                }
                Err(Unreadable) => {
                    self.integrity.found(Damage::Unreadable);
                    counts = false;
                    unknown
                }
            };
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
        let (correlation, configuration) = (self.out.next_correlation(), self.configuration().id);
        for &peer in &peers {
            let ask = ReadSample { configuration, pass: None, keys: probes.clone() };
            self.out.reply(peer, correlation, PeerMessage::ReadSample(ask));
        }
        let own = ReadSampleReply { configuration, standing: self.standing(), keys };
        let sample = Sample {
            reads: reads.into_iter().map(Some).collect(),
            barriers: std::mem::take(&mut self.reader.barriers_waiting),
            probes,
            asked: peers,
            answers: counts.then_some((self.me, own)).into_iter().collect(),
            held,
            started: self.now,
            sent: self.now,
        };
        self.reader.samples.insert(correlation, sample);
        self.conclude(correlation);
    }

    /// A member answered a sample.
    pub(crate) fn on_sample_reply(&mut self, from: NodeId, correlation: u64, reply: ReadSampleReply) {
        let is_asked = match self.reader.samples.get(&correlation) {
            Some(sample) => sample.asked.contains(&from),
            None => self.reader.contested.contains_key(&correlation),
        };
        if !is_asked || !self.configuration().is_voter(from) {
            return;
        }
        if rule::is_void(self.configuration().id, reply.configuration, reply.standing.last)
            && !Mutant::SampleIgnoresConfiguration.on()
        {
            return self.void(correlation, reply.configuration);
        }
        if self.reader.contested.contains_key(&correlation) {
            return self.on_contested_reply(from, correlation, reply);
        }
        let Some(sample) = self.reader.samples.get_mut(&correlation) else { return };
        if reply.keys.len() != sample.reads.len() {
            return self.absurd(from, "it answered about other keys than it was asked");
        }
        if sample.answers.iter().any(|(node, _)| *node == from) {
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
        let quorum = self.read_quorum();
        if self.reader.samples.get(&correlation).is_none_or(|sample| sample.answers.len() < quorum) {
            return;
        }
        let Some(sample) = self.reader.samples.remove(&correlation) else { return };
        self.reader.held -= sample.held;
        if let Some(target) = sample.answers.iter().map(|(_, reply)| reply.standing.last).max() {
            self.reader.barriers.extend(sample.barriers.into_iter().map(|barrier| (target, barrier)));
        }
        if Mutant::ReadJoinsEarlierSample.on() {
            self.join_reads(&sample.probes, &sample.answers);
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

    /// How many answers must come together.
    pub(super) fn read_quorum(&self) -> usize {
        let quorum = self.configuration().quorum();
        match () {
            () if Mutant::ReadLocalOnly.on() => 1,
            () if Mutant::ReadQuorumTooSmall.on() => (quorum - 1).max(1),
            () => quorum,
        }
    }

    /// Answers a read by its first answers, or lets it go on as contested.
    fn decide(&mut self, read: Read, answers: Vec<Answer>) {
        let Some(candidate) = rule::candidate(&answers) else { return };
        if let Some((one, other, entry)) = rule::differing(&answers) {
            return self.report_corruption(&read, (one, other), entry);
        }
        let quorum = self.read_quorum();
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

    /// Answers reads that came after the sample by what it found.
    fn join_reads(&mut self, probes: &[KeyProbe], answers: &[(NodeId, ReadSampleReply)]) {
        for read in std::mem::take(&mut self.reader.waiting) {
            let Some(at) = probes.iter().position(|probe| probe.key == read.key) else {
                self.reader.waiting.push_back(read);
                continue;
            };
            let answer = |(node, reply): &(NodeId, ReadSampleReply)| Answer {
                node: *node,
                round: 1,
                standing: reply.standing,
                key: reply.keys[at].clone(),
            };
            let answers = answers.iter().map(answer).collect();
            self.decide(read, answers);
        }
    }

    fn report_corruption(&mut self, read: &Read, differing: (NodeId, NodeId), entry: EntryId) {
        self.out.notice(Notice::Corruption { differing, entry });
        let failed =
            Reply::Failed { code: ErrorCode::Corruption, differing: Some(differing), evidence: None };
        self.finish(read.token, failed);
    }

    /// Nobody else holds what this node cannot read.
    fn fail_unreadable(&mut self, read: &Read) {
        self.integrity.found(Damage::Unreadable);
        let failed = Reply::Failed { code: ErrorCode::Corruption, differing: None, evidence: None };
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
        for (_, barrier) in self
            .reader
            .barriers
            .extract_if(.., |(target, _)| *target <= applied || Mutant::ScanDoesNotWait.on())
        {
            self.out.answer(barrier.token, Reply::Ready);
        }
    }
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
