//! Answering the samples of other nodes' reads, and of this node's own.
//!
//! Answers speak of durable entries only: what is not synced yet proves nothing.

use bytes::Bytes;
use quorumkv_mutants::Mutant;
use quorumkv_protocol::peer::{KeyAnswer, KeyProbe, PeerMessage, ReadSample, ReadSampleReply, Standing};
use quorumkv_protocol::{EntryId, NodeId, Version};

use crate::effects::Damage;
use crate::replica::Replica;
use crate::state::{StateView, Unreadable};
use crate::time::Timestamp;

/// Most samples that wait for this replica to pass an entry. Beyond it they are answered at once.
const MAX_PARKED: usize = 4096;

/// Bytes of values in an answer after which no further value is sent. With one more of the longest, and the ids of all
/// keys, an answer still fits a frame.
const REPLY_BYTES: usize = 4 << 20;

/// A sample that is answered when this replica has passed an entry.
#[derive(Debug)]
pub(crate) struct Parked {
    from: NodeId,
    correlation: u64,
    sample: ReadSample,
    pass: EntryId,
    until: Timestamp,
}

impl<S: StateView> Replica<S> {
    /// A reader asks what this replica holds.
    ///
    /// A member that has no vote shows nothing that could be counted, but tells an asker whose configuration is outdated so.
    pub(crate) fn on_sample(&mut self, from: NodeId, correlation: u64, sample: ReadSample) {
        if let Some(since) = self.excluding(from, sample.configuration) {
            return self.out.reply(
                from,
                correlation,
                PeerMessage::NotMember { since, named: sample.configuration },
            );
        }
        if !self.is_voter() && (!self.is_member() || self.configuration().id <= sample.configuration) {
            return;
        }
        if self.integrity.is_damaged() && !Mutant::DamagedShowsState.on() {
            // The reader asks another.
            return;
        }
        match sample.pass {
            Some(pass) if !self.has_passed(pass) && self.parked.len() < MAX_PARKED => {
                let until = self.now + self.settings.park;
                self.parked.push(Parked { from, correlation, sample, pass, until });
            }
            Some(_) | None => self.answer_sample(from, correlation, &sample),
        }
    }

    /// Answers the samples that have waited for what has happened by now.
    pub(crate) fn answer_parked(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let (ready, waiting) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked: &Parked| parked.until <= self.now || self.has_passed(parked.pass));
        self.parked = waiting;
        for parked in ready {
            self.answer_sample(parked.from, parked.correlation, &parked.sample);
        }
    }

    fn answer_sample(&mut self, to: NodeId, correlation: u64, sample: &ReadSample) {
        let mut value_bytes = 0;
        let answer = |probe: &KeyProbe| {
            Ok(match self.holding(&probe.key)? {
                KeyAnswer::Present { id, checksum, value: Some(value) } => {
                    // What would make the answer too long is left out; the asker asks again about that key alone.
                    let is_wanted = probe.held != Some(id) && value_bytes < REPLY_BYTES;
                    value_bytes += if is_wanted { value.len() } else { 0 };
                    KeyAnswer::Present { id, checksum, value: is_wanted.then_some(value) }
                }
                answer => answer,
            })
        };
        let Ok(keys) = sample.keys.iter().map(answer).collect::<Result<_, Unreadable>>() else {
            return self.integrity.found(Damage::Unreadable);
        };
        let configuration = self.configuration().id;
        let reply = ReadSampleReply { configuration, standing: self.standing(), keys };
        self.out.reply(to, correlation, PeerMessage::ReadSampleReply(reply));
    }

    /// Where this replica's durable log stands.
    pub(crate) fn standing(&self) -> Standing {
        let last = self.log.id_at(self.durable()).expect("what is durable is in the log");
        Standing { last, promise: self.promise, committed: self.committed }
    }

    /// What this replica holds for a key, by the last durable entry that touched it.
    pub(crate) fn holding(&self, key: &[u8]) -> Result<KeyAnswer, Unreadable> {
        let Some(version) = self.overlay.touched(key, self.durable()) else {
            return Ok(match self.state.get(key)? {
                Some(record) => {
                    let checksum = record.checksum();
                    KeyAnswer::Present { id: record.id, checksum, value: Some(record.value) }
                }
                None => KeyAnswer::Absent { deleted: None },
            });
        };
        let entry = self.log.entry(version).expect("the overlay speaks of entries in memory");
        let effect = entry.effects().iter().rev().find(|effect| effect.key() == key);
        Ok(match effect.and_then(|effect| effect.value()) {
            Some(value) => KeyAnswer::Present {
                id: entry.id,
                checksum: crc32c::crc32c(value),
                // Copied, since what is counted is its length: the entry's is part of a larger piece of memory.
                value: Some(Bytes::copy_from_slice(value)),
            },
            None => KeyAnswer::Absent { deleted: Some(entry.id) },
        })
    }

    /// Everything up to here is durable on this replica, or committed and so durable on a quorum.
    fn durable(&self) -> Version {
        if Mutant::SampleShowsUnsynced.on() {
            return self.log.last();
        }
        self.log.durable().max(self.committed)
    }

    /// Whether the durable log has reached an entry, or its epoch has moved on.
    fn has_passed(&self, entry: EntryId) -> bool {
        self.standing().last >= entry || self.promise > entry.epoch
    }
}
