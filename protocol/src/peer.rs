//! What nodes say to each other: Vote, Propagate, ReadSample and Heartbeat, request and reply (DESIGN 4).
//!
//! Every message carries the epoch that it speaks for, so that late, repeated and reordered messages are harmless.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::budget::{bounded, bounded_shared};
use crate::entry::Entry;
use crate::ids::{EntryId, Epoch, Version};

/// Most entries in one [`Append`].
pub const MAX_ENTRIES: usize = 16_384;

/// Most keys in one [`ReadSample`].
pub const MAX_KEYS: usize = 4096;

/// A message between members. Replies go back over the connection that the request came on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerEnvelope {
    /// Chosen by the sender of the request, below 2^48, and repeated in its reply.
    pub correlation: u64,
    /// The message.
    pub body: PeerMessage,
}

/// The four families, request and reply. Variants are stable: their order is the wire format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Asks for a promise or for durable acceptance.
    Vote(Vote),
    /// Answers a [`Vote`].
    VoteReply(VoteReply),
    /// Spreads what is committed, and restores who lags.
    Propagate(Propagate),
    /// Answers a [`Propagate`].
    PropagateReply(PropagateReply),
    /// A reader asks what a replica holds.
    ReadSample(ReadSample),
    /// Answers a [`ReadSample`].
    ReadSampleReply(ReadSampleReply),
    /// The leader says that it leads.
    Heartbeat(Heartbeat),
    /// Answers a [`Heartbeat`].
    HeartbeatReply(HeartbeatReply),
    /// Answers a [`Vote::Lead`] or a [`ReadSample`] of a node that was removed from the cluster and does not know it.
    NotMember {
        /// The committed configuration without it.
        since: EntryId,
        /// The configuration that the node named, which cannot count any more. If another has come since, this says nothing.
        named: EntryId,
    },
    /// A voter does not hear the leader of this epoch, which it has promised. Repeated while it does not; needs no reply.
    Doubt {
        /// The epoch.
        epoch: Epoch,
    },
}

impl PeerMessage {
    /// Whether this answers a request, and so goes back over the connection that the request came on.
    #[must_use]
    pub const fn is_reply(&self) -> bool {
        match self {
            Self::Vote(_)
            | Self::Propagate(_)
            | Self::ReadSample(_)
            | Self::Heartbeat(_)
            | Self::Doubt { .. } => false,
            Self::VoteReply(_)
            | Self::PropagateReply(_)
            | Self::ReadSampleReply(_)
            | Self::HeartbeatReply(_)
            | Self::NotMember { .. } => true,
        }
    }
}

impl From<VoteReply> for PeerMessage {
    fn from(reply: VoteReply) -> Self {
        Self::VoteReply(reply)
    }
}

impl From<PropagateReply> for PeerMessage {
    fn from(reply: PropagateReply) -> Self {
        Self::PropagateReply(reply)
    }
}

/// Asks for a vote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Vote {
    /// Will you follow this epoch? Sent by a contender whose own promise is durable.
    Lead {
        /// The epoch that it wants to open.
        epoch: Epoch,
        /// The newest configuration of its log, in which it counts votes.
        configuration: EntryId,
    },
    /// Accept these entries durably. Sent by the leader to replicas that keep up.
    Write(Append),
}

/// Entries to be accepted after `previous`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Append {
    /// The sender's epoch: a replica that promised a higher one refuses.
    pub epoch: Epoch,
    /// The entry before the first of `entries`: the replica's log must hold it.
    pub previous: EntryId,
    /// Entries in order, without gaps; none to ask whether the logs match at `previous`.
    #[serde(deserialize_with = "bounded_shared::<_, _, MAX_ENTRIES>")]
    pub entries: Vec<Arc<Entry>>,
    /// Everything up to here is committed.
    pub committed: Version,
}

/// Answers a vote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VoteReply {
    /// The promise to follow `epoch` is durable, and so is every entry up to `last`.
    Granted {
        /// The promised epoch.
        epoch: Epoch,
        /// The last entry of this replica's log; its epoch is the accepted epoch.
        last: EntryId,
        /// What this replica knows to be committed.
        committed: Version,
    },
    /// See [`AppendReply`].
    Write(AppendReply),
    /// This replica has promised a higher epoch.
    Refused {
        /// The epoch that was refused.
        epoch: Epoch,
        /// What it promised.
        promise: Epoch,
    },
}

/// Answers an [`Append`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AppendReply {
    /// Everything that the leader of `epoch` has up to `durable` is durable here. Cumulative.
    Accepted {
        /// The epoch of the append.
        epoch: Epoch,
        /// The last version that is durable and equal to the leader's.
        durable: Version,
    },
    /// The logs differ at the append's `previous`.
    Diverged {
        /// The epoch of the append.
        epoch: Epoch,
        /// The version at which they differ.
        at: Version,
        /// The last entry of this replica at or before it that might match.
        hint: EntryId,
    },
}

/// Spreads what is committed, and restores who lags.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Propagate {
    /// Everything up to here is committed. Needs no reply.
    Committed {
        /// The leader's epoch.
        epoch: Epoch,
        /// The last committed version.
        committed: Version,
    },
    /// Committed entries for a replica that lags: nothing is left to vote on.
    Entries(Append),
    /// What this replica misses is no longer in the leader's log: pull a snapshot with [`Propagate::Fetch`].
    Restore {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// Give me what follows `after`. Sent by a new leader to the replica with the best log, and by a replica that was
    /// told to restore.
    Fetch {
        /// The epoch that the asker has promised: a source that promised a higher one refuses.
        epoch: Epoch,
        /// The last entry that the asker holds.
        after: EntryId,
        /// Where to go on in a snapshot that was begun.
        resume: Option<SnapshotPosition>,
        /// Whether entries do not help: the asker's state is damaged, and only a whole one can take its place.
        whole: bool,
    },
    /// Most replicas hold another state than this one: it is to be set aside and replaced. Needs no reply; what is lost is found
    /// again by the next comparison.
    Differs {
        /// The leader's epoch.
        epoch: Epoch,
        /// The comparison that showed it.
        round: u64,
        /// What most replicas hold. Who answers the same by now is right: what was compared was a state that it had before.
        right: Digest,
    },
}

/// How far a snapshot has been received.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotPosition {
    /// The last entry that the snapshot covers: its identity.
    pub snapshot: EntryId,
    /// Where the next chunk begins; opaque to everybody but the source.
    pub cursor: Bytes,
}

/// Answers a [`Propagate`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PropagateReply {
    /// Answers [`Propagate::Entries`].
    Entries(AppendReply),
    /// Answers [`Propagate::Fetch`]: entries that follow what the asker holds.
    Fetched {
        /// The epoch of the fetch.
        epoch: Epoch,
        /// The entry before the first of `entries`, at or before the fetch's `after`.
        previous: EntryId,
        /// Entries in order, without gaps; none if the source has no more.
        #[serde(deserialize_with = "bounded_shared::<_, _, MAX_ENTRIES>")]
        entries: Vec<Arc<Entry>>,
    },
    /// Answers [`Propagate::Fetch`] where the source's log no longer reaches back: a piece of its state instead.
    Chunk {
        /// The epoch of the fetch.
        epoch: Epoch,
        /// The piece.
        chunk: SnapshotChunk,
    },
    /// Answers [`Propagate::Fetch`]: the source cannot serve now.
    Unavailable {
        /// The epoch of the fetch.
        epoch: Epoch,
    },
    /// This replica has promised a higher epoch.
    Refused {
        /// The epoch that was refused.
        epoch: Epoch,
        /// What it promised.
        promise: Epoch,
    },
}

/// A piece of the state as of one entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Identity of the snapshot, and where this piece begins; an empty cursor begins it.
    pub position: SnapshotPosition,
    /// Where the next piece begins; `None` ends the snapshot.
    pub next: Option<Bytes>,
    /// Part of the state, in the form of the state store.
    pub data: Bytes,
    /// CRC32C of `data`.
    pub checksum: u32,
}

/// A reader asks what a replica holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadSample {
    /// The newest configuration of the asker's log. An answer with a newer one voids the sample.
    pub configuration: EntryId,
    /// Answer when your durable log has passed this entry or your epoch has moved on, or after a short while.
    pub pass: Option<EntryId>,
    /// The keys asked about; none asks only about the whole log.
    #[serde(deserialize_with = "bounded::<_, _, MAX_KEYS>")]
    pub keys: Vec<KeyProbe>,
}

/// A key, and what the asker holds of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyProbe {
    /// The key.
    pub key: Bytes,
    /// The entry that last wrote it at the asker; the value is sent back only if the replica holds another.
    pub held: Option<EntryId>,
}

/// What a replica holds durably, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadSampleReply {
    /// The newest configuration of the replica's log.
    pub configuration: EntryId,
    /// Its position in the log.
    pub standing: Standing,
    /// One answer for each key asked about, in order.
    #[serde(deserialize_with = "bounded::<_, _, MAX_KEYS>")]
    pub keys: Vec<KeyAnswer>,
}

/// Where a replica's durable log stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// The last durable (or committed) entry. Its epoch is the accepted epoch, its version is L of DESIGN 6.
    pub last: EntryId,
    /// The highest epoch that this replica has promised to follow.
    pub promise: Epoch,
    /// The last version that it knows to be committed: C of DESIGN 6.
    pub committed: Version,
}

impl Standing {
    /// Whether the log's last entry was accepted as a vote in the epoch that the replica still follows: it holds that
    /// epoch's opening entry and has promised nobody else.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.promise == self.last.epoch
    }
}

/// What a replica holds for a key, by its last durable accepted entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KeyAnswer {
    /// The key is absent.
    Absent {
        /// The entry that deleted it. `None` if that, if ever, was applied (and so committed) long ago.
        deleted: Option<EntryId>,
    },
    /// The key has a value.
    Present {
        /// The entry that wrote it.
        id: EntryId,
        /// CRC32C of the value. Two different ones under one id are corruption.
        checksum: u32,
        /// The value; `None` if the asker holds the same entry's, or if the answer would become too long.
        value: Option<Bytes>,
    },
}

impl KeyAnswer {
    /// The last entry that touched the key, as far as it is known.
    #[must_use]
    pub const fn id(&self) -> Option<EntryId> {
        match self {
            Self::Absent { deleted } => *deleted,
            Self::Present { id, .. } => Some(*id),
        }
    }
}

/// The leader says that it leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its epoch.
    pub epoch: Epoch,
    /// Everything up to here is committed, as far as the replica's log is known to equal the leader's.
    pub committed: Version,
    /// The leader's last version: what a replica lags behind.
    pub last: Version,
    /// A part of the state that all replicas are to compare now. Repeated until the leader has their answers.
    pub compare: Option<Compare>,
}

/// Asks for the digest of a part of the state after one entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compare {
    /// Which comparison of the epoch this is, counted from 1.
    pub round: u64,
    /// The state after this version. It is not committed yet when the leader first asks, so no replica has gone past it.
    pub version: Version,
    /// Where the part begins: a cursor as in [`SnapshotPosition`].
    pub begin: Bytes,
    /// The part ends before the row with which its keys and values would be longer than this, but has one row at least.
    pub bytes: u32,
}

/// Most bytes that one [`Compare`] may ask for.
pub const MAX_COMPARED_BYTES: u32 = 64 << 20;

/// XXH3 (128 bits) of the rows of a part of a state, as a [`SnapshotChunk`] would carry them: equal states have equal digests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Digest(pub u128);

/// Answers a [`Compare`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// Its round.
    pub round: u64,
    /// The digest of that part of this replica's state.
    pub digest: Digest,
}

/// Answers a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// The epoch of the heartbeat.
    pub epoch: Epoch,
    /// The highest epoch that this replica has promised; higher than `epoch` tells the sender to stand down.
    pub promise: Epoch,
    /// Its last durable entry.
    pub durable: EntryId,
    /// The last version that its state has applied.
    pub applied: Version,
    /// Whether it is receiving a snapshot.
    pub restoring: bool,
    /// Whether its disk is nearly full: the leader then takes nothing that makes the data larger.
    pub disk_full: bool,
    /// Whether its state is damaged: it votes, and cannot lead or show anything until it is repaired.
    pub damaged: bool,
    /// The answer to the heartbeat's comparison, once it is there.
    pub compared: Option<Compared>,
}
