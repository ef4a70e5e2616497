//! The shell around the replica: one owner task that brings it everything that happens and carries out what it says.

mod election;
mod form;
mod lost;
mod members;
mod mirror;
mod node;
mod open;
mod owner;
mod pending;
mod rejoin;
mod run;
mod story;
mod takeover;
mod upkeep;

pub use run::{RunError, run};

pub(crate) use node::{Leadership, Node};

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quorumkv_protocol::client::Request;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::Member;
use quorumkv_protocol::peer::{Digest, PeerEnvelope};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};
use quorumkv_replica::{DigestTask, LogRead, PersistId};

use crate::net::{ReplyTo, Scan};
use crate::state::View;
use upkeep::Looked;

/// Something from outside that the owner is told. The queue is bounded: whoever tells waits when the owner is behind.
#[derive(Debug)]
pub(crate) enum Event {
    /// A member's message.
    Peer { from: NodeId, envelope: PeerEnvelope },
    /// The link to a member is open.
    PeerUp(NodeId),
    /// The link to a member broke.
    PeerDown(NodeId),
    /// A member's system has refused a connection.
    PeerRefused(NodeId),
    /// A client's request that only the leader can answer: a write, or one about the members. `retried` if another leader may
    /// have got it before.
    ToLead { request: Request, deadline: Instant, reply: ReplyTo, retried: bool },
    /// This node is no member, and these are, as the leader says: whoever restores it has to be reached.
    Acquainted(Vec<Member>),
    /// Serve no clients and do not lead, or do so again.
    Drain { undo: bool },
    /// The state in this database is damaged, as what a client asked for shows: this, for people.
    StateDamaged { database: u64, what: String },
    /// A client's quorum read.
    Read { key: Bytes, evidence: bool, deadline: Instant, reply: ReplyTo },
    /// A client's linearizable scan.
    Scan { scan: Scan, deadline: Instant, reply: ReplyTo },
}

/// Something that the owner asked for is done. The queue has no bound of its own: it holds no more than the owner has
/// asked for.
#[derive(Debug)]
pub(crate) enum Done {
    /// The log is durable up to this batch.
    Persisted(PersistId),
    /// The state has applied everything up to here.
    Applied(Version),
    /// The state is durable up to here; `None` if it is damaged.
    StatePersisted(Option<EntryId>),
    /// The state is where a digest of it was asked for.
    StateAt { task: DigestTask, view: View },
    /// A part of the state in this database was digested.
    Digested { database: u64, epoch: Epoch, round: u64, digest: Digest, next: Option<Bytes> },
    /// The state in this database is damaged, as what was to be done with it shows: this, for people.
    StateDamaged { database: u64, what: String },
    /// Nothing can be applied to the state any more, because it is damaged.
    StateBroken { database: u64, what: String },
    /// A part of what is on the disk was read back.
    Looked(Box<Looked>),
    /// Entries were read from the log.
    LogRead { read: LogRead, entries: Vec<Arc<Entry>> },
    /// A piece of a snapshot was stored.
    ChunkWritten { snapshot: EntryId, next: Option<Bytes> },
    /// A piece of a snapshot could not be stored.
    ChunkRejected { snapshot: EntryId },
    /// A snapshot is the state now.
    Installed { snapshot: EntryId },
    /// ZooKeeper allocated an epoch, or did not.
    Epoch(Option<u64>),
    /// An attempt to impeach the leader came to its end.
    Impeached,
    /// An attempt to resign came to its end: whether the place in the election was given up.
    Resigned(bool),
    /// Free space on the disk was looked at.
    DiskFull(bool),
}
