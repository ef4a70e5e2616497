//! What the replica is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorumkv_protocol::client::WriteRequest;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::ChangeRequest;
use quorumkv_protocol::peer::{Digest, PeerEnvelope};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};

use crate::effects::{LogRead, PersistId};
use crate::time::Timestamp;

/// Names a client's request between the shell and the replica. Each is answered exactly once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed. The shell says so every few milliseconds.
    Tick,
    /// A peer sent a message.
    Message {
        /// The peer, as its handshake named it.
        from: NodeId,
        /// What it said.
        envelope: PeerEnvelope,
    },
    /// The link to a peer is open: requests reach it.
    PeerUp(NodeId),
    /// The link to a peer broke: what was sent over it may be lost.
    PeerDown(NodeId),
    /// The system of a peer has refused a connection: its process does not run.
    PeerRefused(NodeId),
    /// Everything up to and including this batch of [`Effects::log`](crate::Effects::log) is durable.
    Persisted(PersistId),
    /// The state holds everything up to here.
    Applied(Version),
    /// The log on disk was trimmed: this entry is the one before the first that it still holds.
    Trimmed(EntryId),
    /// The election chose this node, and allocated to it an epoch with this counter.
    Lead {
        /// Greater than that of every epoch that was ever allocated.
        counter: u64,
    },
    /// Give up leading or contending.
    StandDown,
    /// The disk of this node is nearly full, or has room again.
    DiskFull(bool),
    /// A client wants to change something.
    Write {
        /// Names the request.
        token: Token,
        /// What it wants.
        request: WriteRequest,
        /// When the client stops waiting.
        deadline: Timestamp,
    },
    /// A client wants to change the cluster's members. Answered with [`Reply::Written`](crate::Reply::Written) once the
    /// change is committed, or with [`Reply::Refused`](crate::Reply::Refused).
    Change {
        /// Names the request.
        token: Token,
        /// What it wants.
        request: ChangeRequest,
        /// Whether only to say if it would be done: [`Reply::Permitted`](crate::Reply::Permitted).
        dry_run: bool,
        /// When the client stops waiting.
        deadline: Timestamp,
    },
    /// A client wants to read a key, linearizably.
    Read {
        /// Names the request.
        token: Token,
        /// The key.
        key: Bytes,
        /// Whether the answer is to show who said what.
        evidence: bool,
        /// When the client stops waiting.
        deadline: Timestamp,
    },
    /// A client wants to read several keys of one snapshot, linearizably: answered with
    /// [`Reply::Ready`](crate::Reply::Ready) as soon as the state of this node is fresh enough.
    Barrier {
        /// Names the request.
        token: Token,
        /// When the client stops waiting.
        deadline: Timestamp,
    },
    /// Entries were read from the log on disk, as [`Task::ReadLog`](crate::Task::ReadLog) asked.
    LogRead {
        /// What was asked.
        read: LogRead,
        /// The entries, in order from the version asked for; none if the log no longer has it.
        entries: Vec<Arc<Entry>>,
    },
    /// A snapshot's chunk was stored, as [`Task::WriteChunk`](crate::Task::WriteChunk) asked.
    ChunkWritten {
        /// The snapshot.
        snapshot: EntryId,
        /// Where its next chunk begins; `None` if it is complete.
        next: Option<Bytes>,
    },
    /// A snapshot could not be stored: its data was not a state.
    ChunkRejected {
        /// The snapshot.
        snapshot: EntryId,
    },
    /// A part of the state was digested, as [`Effects::digest`](crate::Effects::digest) asked.
    Digested {
        /// The task's epoch.
        epoch: Epoch,
        /// Its round.
        round: u64,
        /// The digest.
        digest: Digest,
        /// Where the next part begins; `None` if this was the last.
        next: Option<Bytes>,
    },
    /// A part of this node's state cannot be read any more, or nothing can be applied to it.
    StateDamaged,
    /// The snapshot is now this node's state, as [`Task::Install`](crate::Task::Install) asked.
    Installed {
        /// The snapshot.
        snapshot: EntryId,
    },
}

/// What is known of a node's log when it starts: all of it is durable.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The highest epoch promised.
    pub promise: Epoch,
    /// The entry before the first that the log holds.
    pub base: EntryId,
    /// The epochs of the entries that the log holds: each with its first version, in order.
    pub epochs: Vec<(Epoch, Version)>,
    /// The last entry that the log holds; equal to `base` if it holds none.
    pub last: EntryId,
    /// The last entry that the state has applied.
    pub applied: EntryId,
    /// All entries after `applied`, in order.
    pub unapplied: Vec<Arc<Entry>>,
    /// Whether the state was found to be [damaged](crate::Notice::Damaged) before the node ended, and was not repaired.
    pub damaged: bool,
}

impl Recovered {
    /// A node that starts for the first time.
    #[must_use]
    pub const fn fresh() -> Self {
        Self {
            promise: Epoch::ZERO,
            base: EntryId::ZERO,
            epochs: Vec::new(),
            last: EntryId::ZERO,
            applied: EntryId::ZERO,
            unapplied: Vec::new(),
            damaged: false,
        }
    }
}

/// Times and sizes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often the leader says that it leads.
    pub heartbeat: Duration,
    /// How long a leader may be silent before a follower doubts that it is there: several heartbeats.
    pub failover: Duration,
    /// How long a request to a peer may go unanswered before it is sent again.
    pub resend: Duration,
    /// How long a leader goes on without hearing a quorum before it wants to stand down.
    pub quorum_silence: Duration,
    /// How long a leader's own log may take to sync before it wants to stand down.
    pub sync_stall: Duration,
    /// Shortest time after which a read asks another member in place of one that has not answered.
    pub hedge: Duration,
    /// How long a replica holds back the answer to a sample until it has passed what the asker named.
    pub park: Duration,
    /// Appends to one peer without an answer. Beyond it, entries gather for the next append.
    pub pipeline: usize,
    /// Bytes of entries in one append.
    pub append_bytes: usize,
    /// Bytes of entries that may wait to be committed and applied. Beyond it, writes are refused as overload.
    pub backlog_bytes: usize,
    /// Bytes of applied entries that stay in memory for replicas that lag a little.
    pub cache_bytes: usize,
    /// Reads that may be in flight. Beyond it, reads are refused as overload.
    pub reads: usize,
    /// How often the leader has a part of all states compared. After the last part it rests for ten times as long.
    pub compare: Duration,
    /// Bytes of keys and values in one part.
    pub compare_bytes: u32,
    /// Versions of the leader's log that a learner may lack and still be promoted: so few that it soon has them.
    pub catch_up: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            failover: Duration::from_millis(500),
            resend: Duration::from_millis(500),
            quorum_silence: Duration::from_secs(3),
            sync_stall: Duration::from_secs(5),
            hedge: Duration::from_millis(20),
            park: Duration::from_secs(1),
            pipeline: 8,
            append_bytes: 1 << 20,
            backlog_bytes: 64 << 20,
            cache_bytes: 2 << 20,
            reads: 65_536,
            compare: Duration::from_secs(1),
            compare_bytes: 1 << 20,
            catch_up: 1024,
        }
    }
}
