//! What the replica wants done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorumkv_protocol::client::{Evidence, Versioned};
use quorumkv_protocol::entry::{Entry, Outcome};
use quorumkv_protocol::membership::Refusal;
use quorumkv_protocol::peer::{Compare, PeerEnvelope, SnapshotChunk, SnapshotPosition};
use quorumkv_protocol::{EntryId, Epoch, ErrorCode, NodeId, Version};

use crate::input::Token;

/// Numbers the batches that were handed to the log, 1, 2, 3 …
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PersistId(pub u64);

/// Everything that a round of inputs came to. The shell carries out the fields in any order and side by side, with
/// one exception that is the structure of this type: `when_durable` waits for `log`.
#[derive(Debug, Default)]
pub struct Effects {
    /// Append these to the log, in order, then report [`Input::Persisted`](crate::Input::Persisted) with `persist`.
    pub log: Vec<LogRecord>,
    /// Names this batch of `log` and `when_durable`; set exactly if one of them is not empty.
    pub persist: Option<PersistId>,
    /// Send these only when `log`, and the `log` of all batches before, is durable. Whatever may have come because of
    /// them is handled after [`Input::Persisted`](crate::Input::Persisted): a vote may be what acknowledges a write, and
    /// a read that begins after that must find the write durable here.
    pub when_durable: Vec<Outgoing>,
    /// Send these at once.
    pub sends: Vec<Outgoing>,
    /// Look at the state as it is when exactly this task's version is applied. Earlier ones that have not come to that are void.
    pub digest: Option<DigestTask>,
    /// These are committed: apply them to the state in order, then report [`Input::Applied`](crate::Input::Applied). They may
    /// lead past the version of `digest`, which the shell heeds first.
    pub apply: Vec<Arc<Entry>>,
    /// Answer these clients.
    pub replies: Vec<(Token, Reply)>,
    /// Read or write in the background.
    pub tasks: Vec<Task>,
    /// What happened, for logs, metrics and the election.
    pub notices: Vec<Notice>,
}

/// A message to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Whom it is for.
    pub to: NodeId,
    /// What to send. A reply goes back over the connection that its request came on, or is dropped with it.
    pub envelope: PeerEnvelope,
}

/// Something to be kept in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogRecord {
    /// The highest epoch promised so far.
    Promise(Epoch),
    /// An accepted entry. It replaces every entry at its version and after.
    Entry(Arc<Entry>),
    /// A snapshot up to this entry is now the state: everything before this record is void, but the promise.
    Base(EntryId),
}

/// The answer to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The write, or the change of the members, is committed.
    Written {
        /// What it came to.
        outcome: Outcome,
        /// The version of its entry.
        version: Version,
    },
    /// The value of the key that was to be read.
    Read {
        /// The value, or `None` if the key is absent.
        value: Option<Versioned>,
        /// How it was found, if that was asked for.
        evidence: Option<Evidence>,
    },
    /// The state of this node is fresh enough for the snapshot that was asked for.
    Ready,
    /// This node does not lead; nothing was logged.
    NotLeader {
        /// Who does, as far as it is known.
        leader: Option<NodeId>,
    },
    /// The members are not changed; nothing was logged.
    Refused(Refusal),
    /// The change of the members would be made; nothing was logged.
    Permitted,
    /// The request failed.
    Failed {
        /// Why, and with it what is certain about a write.
        code: ErrorCode,
        /// For corruption: the two members that hold different data under one id.
        differing: Option<(NodeId, NodeId)>,
        /// For reads: what was seen.
        evidence: Option<Evidence>,
    },
}

/// Work for the background.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Task {
    /// Read entries from the log on disk and report [`Input::LogRead`](crate::Input::LogRead).
    ReadLog(LogRead),
    /// Read a piece of the state and send it as [`PropagateReply::Chunk`](quorumkv_protocol::peer::PropagateReply).
    ServeChunk {
        /// Who asks.
        to: NodeId,
        /// Of its request.
        correlation: u64,
        /// Of its request.
        epoch: Epoch,
        /// Where to go on; `None` begins a new snapshot.
        resume: Option<SnapshotPosition>,
    },
    /// Store this piece of a snapshot beside the state and report [`Input::ChunkWritten`](crate::Input::ChunkWritten), or
    /// [`Input::ChunkRejected`](crate::Input::ChunkRejected). Pieces are stored one after the other, and each is reported
    /// exactly once, in that order. A piece with an empty cursor begins the snapshot anew.
    WriteChunk(SnapshotChunk),
    /// Put the complete snapshot in the place of the state, durably, after everything handed to `apply` so far, then
    /// report [`Input::Installed`](crate::Input::Installed).
    Install {
        /// The snapshot.
        snapshot: EntryId,
    },
}

/// A part of the state after one entry is to be digested, and reported with [`Input::Digested`](crate::Input::Digested). If the
/// state never is exactly there any more, nothing is reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DigestTask {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// What is asked.
    pub compare: Compare,
}

/// Entries that are to be read from the log on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRead {
    /// The first version to read.
    pub from: Version,
    /// Stop before the entries exceed this many bytes; but read at least one.
    pub max_bytes: usize,
    /// Who needs them.
    pub to: NodeId,
    /// What for.
    pub purpose: LogPurpose,
}

/// What entries are read from disk for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogPurpose {
    /// The leader streams to a replica that lags.
    Stream {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// A replica fetches what follows its log.
    Fetch {
        /// Of the request.
        correlation: u64,
        /// Of the request.
        epoch: Epoch,
    },
}

/// What happened, for people and for the election.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// This node promised to follow an epoch that another node wants to open.
    Promised {
        /// The epoch.
        epoch: Epoch,
    },
    /// A leader is followed for the first time in its epoch.
    Following {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The epoch that the election allocated is not above what this node has promised: allocate a higher one.
    EpochTooLow {
        /// What was promised.
        promise: Epoch,
    },
    /// The election chose this node, which has no vote by its log or was removed: another must lead.
    NotAVoter,
    /// This node asks for promises.
    Contending {
        /// Its epoch.
        epoch: Epoch,
    },
    /// A quorum has promised. If its own log is not the best, this node now pulls the best one.
    Promises {
        /// The epoch.
        epoch: Epoch,
        /// How many promised.
        granted: usize,
        /// How many voters there are.
        voters: usize,
        /// Where the best log is, if it is not this node's own, and how many versions it is ahead.
        behind: Option<(NodeId, u64)>,
    },
    /// The opening entry is committed: this node serves writes.
    Established {
        /// The epoch.
        epoch: Epoch,
        /// The opening entry's version.
        opening: Version,
    },
    /// This node led or contended, and no longer does.
    StoodDown {
        /// The epoch that it led or wanted to lead.
        epoch: Epoch,
        /// Why.
        reason: StoodDown,
    },
    /// The leader thinks that another node would serve better: the shell may resign.
    Unwell(Unwell),
    /// A quorum of voters, this node among them, doubts that the leader of this epoch is still there. Repeated while it does.
    /// The election gives its place to the next in line.
    Impeach {
        /// The epoch that this node has promised.
        epoch: Epoch,
    },
    /// A replica's log differed from the leader's and is brought in line from here.
    Diverged {
        /// The replica.
        node: NodeId,
        /// The last version that may match.
        from: Version,
    },
    /// A replica needs a snapshot.
    TooFarBehind {
        /// The replica.
        node: NodeId,
    },
    /// This node receives a snapshot.
    Restoring {
        /// From whom.
        source: NodeId,
    },
    /// This node installed a snapshot.
    Restored {
        /// The last entry that it covers.
        snapshot: EntryId,
    },
    /// A read met a conflict and samples again.
    ReadConflict {
        /// How many rounds it has sampled.
        rounds: u32,
    },
    /// A sample met a replica whose configuration is newer, or one that shows this node's own to be void: its reads
    /// sample again.
    SampleVoid {
        /// The replica's configuration.
        configuration: EntryId,
    },
    /// Another configuration counts from now on, committed or not: see
    /// [`Replica::configuration`](crate::Replica::configuration). The shell keeps links to all its members.
    Reconfigured {
        /// Its entry.
        id: EntryId,
    },
    /// A configuration is committed for good.
    ConfigurationCommitted {
        /// Its entry.
        id: EntryId,
    },
    /// This node was removed from the cluster, for certain. It refuses clients from now on; its process may end as soon as
    /// the effects that this comes with are carried out.
    Removed {
        /// The configuration that no longer has it.
        since: EntryId,
    },
    /// Two members hold different data under one entry id.
    Corruption {
        /// The two members.
        differing: (NodeId, NodeId),
        /// The entry.
        entry: EntryId,
    },
    /// This node's state is damaged. If there are other voters, it is not used from now on, but for votes, which need only the log,
    /// and is replaced by the leader's; else what can be read of it still is.
    Damaged(Damage),
    /// The damaged state was replaced by a snapshot.
    Repaired {
        /// The last entry that it covers.
        snapshot: EntryId,
    },
    /// The state of a replica differs from that of a quorum; it was told so.
    Differs {
        /// The replica.
        node: NodeId,
        /// After this version.
        version: Version,
    },
    /// The states of the replicas differ, and no quorum has the same: nobody can tell which is right.
    Undecided {
        /// The replicas, with those that agree side by side.
        groups: Vec<Vec<NodeId>>,
        /// After this version.
        version: Version,
    },
    /// A peer said something that no correct peer says; it was ignored.
    Absurd {
        /// The peer.
        node: NodeId,
        /// What was wrong.
        what: &'static str,
    },
}

/// Why a node stopped leading or contending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoodDown {
    /// A higher promise was seen.
    Fenced {
        /// The promise.
        by: Epoch,
    },
    /// The shell said so.
    Told,
    /// It was removed from the cluster.
    Removed,
    /// Its state is damaged.
    Damaged,
}

/// What is wrong with a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// A part of it cannot be read.
    Unreadable,
    /// It differs from that of a quorum.
    Differs,
}

/// Why a leader thinks that another node would serve better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwell {
    /// Too few members have answered for this long.
    NoQuorum {
        /// Voters heard, this node included if it is one.
        heard: usize,
        /// Voters needed.
        needed: usize,
    },
    /// Its own log has not synced for this long.
    LogStalled(Duration),
    /// Its disk is nearly full, and that of a voter which keeps up is not.
    DiskFull,
}

/// One key's record in the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The entry that wrote it.
    pub id: EntryId,
    /// The value.
    pub value: Bytes,
    checksum: u32,
}

impl Record {
    /// The record that an entry wrote.
    #[must_use]
    pub fn new(id: EntryId, value: Bytes) -> Self {
        let checksum = crc32c::crc32c(&value);
        Self { id, value, checksum }
    }

    /// CRC32C of the value, as it was when the record was made. Samples of reads carry it, so it is kept.
    #[must_use]
    pub const fn checksum(&self) -> u32 {
        self.checksum
    }
}
