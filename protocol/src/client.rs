//! What clients ask, and what nodes answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::budget::bounded;
use crate::entry::Outcome;
use crate::error::ErrorCode;
use crate::ids::{ClusterId, EntryId, Epoch, NodeId, RequestId, Version};
use crate::membership::{ChangeRequest, Member, Refusal};

/// Most items in one page of a scan.
pub const MAX_SCAN_ITEMS: usize = 10_000;

/// Most members named in a read's evidence or in a status.
const MAX_WITNESSES: usize = 1024;

/// A request. Many may be in flight on a connection; answers come in any order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestEnvelope {
    /// Chosen by the client, repeated in the answer.
    pub correlation: u64,
    /// How long the client will wait, in milliseconds; the answer is sent before that.
    pub timeout_ms: u32,
    /// What it asks.
    pub body: Request,
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResponseEnvelope {
    /// The request's.
    pub correlation: u64,
    /// The answer.
    pub body: Response,
}

/// What a client asks. Variants are stable: their order is the wire format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Change something.
    Write(WriteRequest),
    /// Read one key.
    Get {
        /// The key.
        key: Bytes,
        /// How fresh the answer must be.
        consistency: Consistency,
        /// Whether the answer is to show which members said what.
        evidence: bool,
    },
    /// Read the keys that begin with a prefix, in order, from one snapshot.
    Scan {
        /// What the keys begin with.
        prefix: Bytes,
        /// Only keys after this one: the last key of the page before.
        after: Option<Bytes>,
        /// Most items to return; capped at [`MAX_SCAN_ITEMS`], and by the frame's size.
        limit: u32,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// How is this node?
    Status,
    /// Stop this daemon: resign, finish, exit. Answered before it dies.
    Stop {
        /// As SIGKILL does, instead: nothing is resigned, finished or answered.
        at_once: bool,
    },
    /// Who belongs to the cluster, and how far is everybody? The leader answers; others ask it.
    Members,
    /// Change who belongs to the cluster. The leader answers; others hand it on.
    Change {
        /// What to change.
        request: ChangeRequest,
        /// Whether only to say if it would be done.
        dry_run: bool,
    },
    /// Serve no clients and do not lead until told otherwise; go on voting.
    Drain {
        /// Serve and lead again.
        undo: bool,
    },
}

/// A write, and what makes its retries harmless.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Its identity: a retry carries the same.
    pub request: RequestId,
    /// All requests of this client with lower sequence numbers are finished and will never be retried.
    pub floor: u64,
    /// A version that the client knew to be committed before it sent this request for the first time. A node that
    /// has forgotten results from after it cannot tell a retry from a first try, and answers
    /// [`ErrorCode::RequestExpired`].
    pub since: Version,
    /// What to do.
    pub write: Write,
}

/// A change that a client asks for, before the leader evaluates it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Write {
    /// Set a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Set a key if it is at a version.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// The version that it must have; zero: it must be absent.
        expected: Version,
        /// Its new value.
        value: Bytes,
    },
}

impl Write {
    /// The key that it would change.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::CompareAndSet { key, .. } => key,
        }
    }

    /// The value that it would store.
    #[must_use]
    pub const fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Put { value, .. } | Self::CompareAndSet { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}

/// How fresh an answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Consistency {
    /// Linearizable: a random read quorum agrees.
    #[default]
    Quorum,
    /// What the asked node has applied: fast, and possibly old.
    Local,
}

/// What a node answers. Variants are stable: their order is the wire format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// The write is committed, or its condition did not hold.
    Written(Written),
    /// The key's state.
    Got(Got),
    /// One page of a scan.
    Scanned(Scanned),
    /// The node's status.
    Status(Box<NodeStatus>),
    /// The daemon is stopping.
    Stopping,
    /// The request was not answered as asked.
    Failed(Failure),
    /// The members, as the leader knows them.
    Members(Box<Members>),
    /// The members are not changed; nothing was logged.
    Refused(Refusal),
    /// The change would be made.
    Permitted,
    /// The node begins to do as it was told; its status says when it no longer leads.
    Draining,
}

/// A finished write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// What it came to.
    pub outcome: Outcome,
    /// The version of its log entry, and of the key if it was set.
    pub version: Version,
    /// Who led: a client goes there next time. `None` if the node that was asked leads itself.
    pub leader: Option<String>,
}

/// The state of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Got {
    /// The value with its version; `None` if the key is absent.
    pub value: Option<Versioned>,
    /// For a local read: milliseconds since this node last heard that it holds all that is committed. `None` if it has
    /// not since it started. A quorum read is never old.
    pub age_ms: Option<u64>,
    /// Who said what, if it was asked for.
    pub evidence: Option<Evidence>,
}

/// A value and the version of the entry that wrote it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Versioned {
    /// The version.
    pub version: Version,
    /// The value.
    pub value: Bytes,
}

/// One page of a scan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scanned {
    /// Keys in order, with their values.
    #[serde(deserialize_with = "bounded::<_, _, MAX_SCAN_ITEMS>")]
    pub items: Vec<Item>,
    /// Whether there are more after the last.
    pub more: bool,
    /// The version of the snapshot that this page shows.
    pub at: Version,
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Its value and version.
    pub value: Versioned,
}

/// How a quorum read came to its answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// The last answer of each member that was sampled.
    #[serde(deserialize_with = "bounded::<_, _, MAX_WITNESSES>")]
    pub witnesses: Vec<Witness>,
    /// How many answers had to come together.
    pub quorum: u32,
    /// How many times members were sampled.
    pub rounds: u32,
    /// How many of the rounds ended in a conflict.
    pub conflicts: u32,
    /// From the request's arrival to its answer, in microseconds.
    pub elapsed_us: u64,
    /// The rule by which the answer was given; `None` if the read gave up.
    pub rule: Option<Rule>,
}

/// The rule by which a quorum read was answered (DESIGN 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Rule {
    /// A member of the deciding epoch knew the entry to be committed.
    KnownCommitted,
    /// All members sampled had accepted it in the deciding epoch.
    Chosen,
}

/// What one member said in a sample.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Witness {
    /// The member.
    pub node: NodeId,
    /// The round in which it answered, from 1.
    pub round: u32,
    /// The last durable entry of its log.
    pub last: EntryId,
    /// The highest epoch that it has promised.
    pub promise: Epoch,
    /// The last version that it knew to be committed.
    pub committed: Version,
    /// The last entry that touched the key, if it is known.
    pub touched: Option<EntryId>,
    /// Whether it decided the answer.
    pub decided: bool,
}

/// Why a request was not answered as asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why and what to do, for people.
    pub message: String,
    /// Who leads, if this node knows and it would have helped to ask there.
    pub leader: Option<String>,
    /// What a read that gave up had seen.
    pub evidence: Option<Evidence>,
}

/// What a node is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NodeRole {
    /// The cluster has no configuration yet.
    Forming,
    /// It follows, or waits for a leader to follow.
    Follower,
    /// It gathers promises for its epoch, or adopts the best log.
    Contender,
    /// It leads an epoch whose opening entry is committed.
    Leader,
    /// It receives everything and does not vote.
    Learner,
    /// It does not belong to the cluster: it was not added yet, or was removed.
    Outsider,
}

impl NodeRole {
    /// The role's name in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forming => "forming",
            Self::Follower => "follower",
            Self::Contender => "contender",
            Self::Leader => "leader",
            Self::Learner => "learner",
            Self::Outsider => "outsider",
        }
    }
}

/// A node's account of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its identity.
    pub node: NodeId,
    /// Where members and forwarders reach it.
    pub address: String,
    /// The cluster that it belongs to.
    pub cluster: Option<ClusterId>,
    /// What it is doing.
    pub role: NodeRole,
    /// The epoch that it follows or leads: its promise.
    pub epoch: Epoch,
    /// The leader that it follows.
    pub leader: Option<NodeId>,
    /// Where that leader is reached.
    pub leader_address: Option<String>,
    /// Its last accepted version.
    pub last: Version,
    /// The last version that it knows to be committed.
    pub committed: Version,
    /// The last version that its state has applied.
    pub applied: Version,
    /// How many versions it is behind the leader's last, as it last heard.
    pub lag: u64,
    /// The 99th percentile of recent log syncs, in microseconds.
    pub sync_p99_us: u64,
    /// State of its ZooKeeper session, for people: `connected`, `disconnected`, `lost`, `connecting`.
    pub zookeeper: String,
    /// Whether it serves quorum reads and can reach a leader: what `/health/ready` says.
    pub ready: bool,
    /// Why it is not ready or not well, for people; empty if it is.
    pub remarks: String,
    /// Version of the daemon.
    pub software: String,
    /// Since it started, in seconds.
    pub uptime_s: u64,
    /// The members of its configuration: voters, then learners.
    #[serde(deserialize_with = "bounded::<_, _, MAX_WITNESSES>")]
    pub members: Vec<Member>,
    /// How this node last came to lead, if it has since it started.
    pub takeover: Option<Takeover>,
    /// Why this node last gave up the lead although nobody had asked it to, if it has since it started.
    pub gave_up: Option<GaveUp>,
    /// The last damage that this node found in what it has on disk, if it has since it started.
    pub damage: Option<DamageFound>,
}

/// A node found that a part of what it has on disk is damaged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DamageFound {
    /// Which part.
    pub part: DamagedPart,
    /// What was found, for people.
    pub what: String,
    /// How long ago that was, in seconds.
    pub ago_s: u64,
    /// How long ago it was repaired, in seconds, if it was.
    pub repaired_s: Option<u64>,
}

/// What can be damaged. Variants are stable: their order is the wire format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DamagedPart {
    /// The applied state. Another node's takes its place.
    State,
    /// The log. What is in the damaged part is needed no more once the state holds it durably.
    Log,
}

impl DamagedPart {
    /// Its name in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Log => "log",
        }
    }
}

/// A leader has given up its place because another node would serve better.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GaveUp {
    /// The epoch that it led.
    pub epoch: Epoch,
    /// What was wrong with it, for people.
    pub why: String,
    /// How long ago that was, in seconds.
    pub ago_s: u64,
}

/// How a node came to lead: when it was at each step, in microseconds since it noticed that there was no leader.
///
/// It notices that when its connection to the leader breaks, when a majority no longer hears the leader, or when its znode is the
/// lowest, whichever is first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Takeover {
    /// The epoch that it leads.
    pub epoch: Epoch,
    /// Its znode was the lowest.
    pub elected_us: u64,
    /// A quorum had promised to follow it in an epoch from ZooKeeper.
    pub promised_us: u64,
    /// It held all that may have been committed.
    pub caught_up_us: u64,
    /// The first entry of its epoch was committed: it serves.
    pub established_us: u64,
}

/// The members of the cluster, as the leader knows them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Members {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who says so.
    pub leader: NodeId,
    /// The epoch that it leads.
    pub epoch: Epoch,
    /// The configuration that counts.
    pub configuration: EntryId,
    /// Whether it is committed. Until then, no other change is made.
    pub committed: bool,
    /// The leader's last version.
    pub last: Version,
    /// Voters, then learners.
    #[serde(deserialize_with = "bounded::<_, _, MAX_WITNESSES>")]
    pub members: Vec<MemberStatus>,
}

/// What the leader knows of a member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Who it is.
    pub member: Member,
    /// Whether its votes count.
    pub votes: bool,
    /// The member whose place it takes when it has caught up.
    pub replaces: Option<NodeId>,
    /// Whether it answers the leader.
    pub live: bool,
    /// Whether it holds enough to vote.
    pub caught_up: bool,
    /// Versions of the leader's log that it is not known to hold.
    pub behind: u64,
    /// What it has been sent of a snapshot; `None` if it receives none from the leader.
    pub snapshot: Option<SnapshotProgress>,
}

/// How far a snapshot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotProgress {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes in all, about.
    pub total: u64,
}
