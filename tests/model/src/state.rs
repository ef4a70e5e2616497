//! A state of the model: everything that can still matter, in as few forms as possible.
//!
//! Messages are not kept one by one. They may be lost, delayed, repeated and reordered, so what matters is which there
//! have ever been, and that follows from the little that is kept here: the log that the leader of an epoch has sent
//! ([`Opened::log`]), how much of it it has called committed, and how far each replica has voted for it.

use crate::config::{Config, Start};
use crate::log::{Entry, Epoch, Log, Version};

/// Most replicas.
pub const MAX_NODES: usize = 4;

/// Most epochs.
pub const MAX_EPOCHS: usize = 4;

/// What a replica does about the epoch that it promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Role {
    /// It follows whoever opened that epoch.
    #[default]
    Follower,
    /// It wants to open it.
    Contender,
    /// It has opened it.
    Leader,
}

/// What a replica told a read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Answer {
    /// The durable part of its log.
    pub log: Log,
    /// Up to where it knew its log to be committed.
    pub committed: Version,
    /// Whether its promise equalled its accepted epoch.
    pub settled: bool,
}

/// One replica, and what others have or may yet have from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Replica {
    /// Its log, as it knows it.
    pub log: Log,
    /// What a crash leaves of the log.
    pub durable: Log,
    /// The epoch that it promised.
    pub promise: Epoch,
    /// What a crash leaves of the promise.
    pub durable_promise: Epoch,
    /// Up to where it knows its log to be committed.
    pub committed: Version,
    /// What it does about the epoch in `promise`.
    pub role: Role,
    /// How far it has voted for the log of each epoch.
    pub votes: [Version; MAX_EPOCHS],
    /// A bit for each epoch that is being gathered for: whether its promise has reached the contender.
    pub granted: u8,
    /// What it told the read under way.
    pub answer: Option<Answer>,
}

/// How far an epoch has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Phase {
    /// Not begun.
    #[default]
    Unused,
    /// A contender gathers promises.
    Gathering,
    /// It was opened: its leader's messages may arrive.
    Open,
    /// Nobody can be reached by a message of it any more.
    Closed,
}

/// One epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Opened {
    /// How far it has come.
    pub phase: Phase,
    /// All that its leader has ever sent; before it is opened, the best log among the promises.
    pub log: Log,
    /// The most that its leader has called committed; before it is opened, the most that one of those who promised did.
    pub committed: Version,
}

/// The entry that a read will return if it turns out to be committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Candidate {
    /// The epoch of the answer that decided.
    pub epoch: Epoch,
    /// That answer's log up to the entry; empty if no entry touched the key.
    pub log: Log,
}

/// A state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The replicas; those beyond the model's number are not used.
    pub replicas: [Replica; MAX_NODES],
    /// The epochs, the first at 0.
    pub epochs: [Opened; MAX_EPOCHS],
    /// Everything that was ever committed and so acknowledged.
    pub acknowledged: Log,
    /// What reads have returned and nobody has called committed yet, with all before it; else empty.
    pub seen: Log,
    /// The candidate of a read that has met a conflict.
    pub candidate: Option<Candidate>,
    /// The read under way must not return anything older than this version.
    pub floor: Version,
    /// Epochs handed out.
    pub begun: Epoch,
    /// Writes that clients have sent.
    pub written: u8,
}

impl State {
    /// Where all begins.
    pub fn initial(config: &Config) -> Self {
        let mut state = Self {
            replicas: [Replica::default(); MAX_NODES],
            epochs: [Opened::default(); MAX_EPOCHS],
            acknowledged: Log::EMPTY,
            seen: Log::EMPTY,
            candidate: None,
            floor: 0,
            begun: 0,
            written: 0,
        };
        if config.start == Start::Established {
            let log = Log::EMPTY.with(Entry { epoch: 1, write: 0 });
            for replica in &mut state.replicas[..config.nodes] {
                *replica = Replica { log, durable: log, promise: 1, durable_promise: 1, ..*replica };
            }
            state.replicas[0].role = Role::Leader;
            state.replicas[0].committed = 1;
            state.epochs[0] = Opened { phase: Phase::Open, log, committed: 1 };
            state.acknowledged = log;
            state.begun = 1;
        }
        state
    }

    /// The epoch of that number.
    pub fn epoch(&self, epoch: Epoch) -> &Opened {
        &self.epochs[usize::from(epoch - 1)]
    }

    /// The same, to change it.
    pub fn epoch_mut(&mut self, epoch: Epoch) -> &mut Opened {
        &mut self.epochs[usize::from(epoch - 1)]
    }

    /// The longest log that somebody outside was told of.
    pub fn shown(&self) -> Log {
        if self.seen == Log::EMPTY { self.acknowledged } else { self.seen }
    }

    /// Ends the read under way.
    pub fn end_read(&mut self) {
        self.candidate = None;
        self.floor = 0;
        for replica in &mut self.replicas {
            replica.answer = None;
        }
    }

    /// Forgets what cannot matter any more, so that fewer states differ.
    pub fn tidy(&mut self, nodes: usize) {
        for epoch in 1..=self.begun {
            let replicas = &mut self.replicas[..nodes];
            let opened = &mut self.epochs[usize::from(epoch - 1)];
            let (bit, slot) = (1 << (epoch - 1), usize::from(epoch - 1));
            let is_led = |role| replicas.iter().find(|peer| peer.role == role && peer.promise == epoch);
            let leader = is_led(Role::Leader).copied();
            let is_contended = is_led(Role::Contender).is_some();
            // Nobody follows this epoch any more, whatever it forgets.
            let is_fenced = replicas.iter().all(|peer| peer.durable_promise > epoch);
            if (opened.phase == Phase::Gathering && !is_contended) || is_fenced {
                *opened = Opened { phase: Phase::Closed, ..Opened::default() };
            }
            for peer in replicas {
                if !is_contended {
                    peer.granted &= !bit;
                }
                // A vote for what is committed already, or that nobody will count.
                if leader.is_none_or(|leader| peer.votes[slot] <= leader.committed) {
                    peer.votes[slot] = 0;
                }
            }
        }
        if self.acknowledged.holds(self.seen) {
            self.seen = Log::EMPTY;
        }
    }

    /// The form in which states are compared: replicas are told apart by what they hold only, so any order of them is
    /// the same state.
    #[must_use]
    pub fn canonical(mut self, nodes: usize) -> Self {
        self.replicas[..nodes].sort_unstable();
        self
    }

    /// A hash of 64 bits, by which states are told apart.
    pub fn fingerprint(&self, nodes: usize) -> u64 {
        let mut hash = Folded(0x9e37_79b9_7f4a_7c15);
        for replica in &self.replicas[..nodes] {
            replica.words().into_iter().for_each(|word| hash.add(word));
        }
        for epoch in &self.epochs[..usize::from(self.begun)] {
            hash.add(bytes([epoch.phase as u8, epoch.committed, 0, 0], epoch.log.bits()));
        }
        hash.add(u64::from(self.acknowledged.bits()) << 32 | u64::from(self.seen.bits()));
        let candidate =
            self.candidate.map_or((u8::MAX, Log::EMPTY), |candidate| (candidate.epoch, candidate.log));
        hash.add(bytes([candidate.0, self.floor, self.begun, self.written], candidate.1.bits()));
        hash.0
    }
}

impl Replica {
    /// All that it is, in three words.
    fn words(&self) -> [u64; 3] {
        let (settled, committed, log) = match self.answer {
            None => (2, 0, 0),
            Some(answer) => (u8::from(answer.settled), answer.committed, answer.log.bits()),
        };
        let promised = [self.promise, self.durable_promise, self.committed, 0];
        [
            u64::from(self.log.bits()) << 32 | u64::from(self.durable.bits()),
            bytes([settled, committed, self.role as u8, self.granted], log),
            bytes(promised, u32::from_le_bytes(self.votes)),
        ]
    }
}

fn bytes(high: [u8; 4], low: u32) -> u64 {
    u64::from(u32::from_le_bytes(high)) << 32 | u64::from(low)
}

/// Mixes words by multiplication to 128 bits, of which both halves are used.
struct Folded(u64);

impl Folded {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word).wrapping_mul(0xa076_1d64_78bd_642f_e703_7ed1_a0b4_28db);
        self.0 = ((product >> 64) as u64 ^ product as u64).rotate_left(23);
    }
}
