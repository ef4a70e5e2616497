//! What the replicated log holds.
//!
//! Effects are replicated, not commands: the leader evaluates a compare-and-set once against its own latest state,
//! so replicas apply without deciding anything (DESIGN 2).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::budget::bounded;
use crate::ids::{EntryId, NodeId, RequestId, Version};

/// Most effects in one entry; the same bound as etcd's for operations in a transaction.
pub const MAX_EFFECTS: usize = 128;

/// Most members of a configuration.
pub const MAX_MEMBERS: usize = 64;

/// Longest key, in bytes; the shortest has one. The state keeps the length in 16 bits.
pub const MAX_KEY_LENGTH: usize = u16::MAX as usize;

/// Most bytes of keys and values in one entry: what a client's frame can carry, and what fits any log.
pub const MAX_ENTRY_BYTES: usize = 10 << 20;

/// Whether a key can be stored.
#[must_use]
pub const fn is_key(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY_LENGTH
}

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its identity: who created it, and where it stands.
    pub id: EntryId,
    /// What it does.
    pub body: Body,
}

impl Entry {
    /// The changes that this makes.
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        match &self.body {
            Body::Open => &[],
            Body::Write(write) => &write.effects,
        }
    }

    /// Whether this can be applied: what comes from the wire is checked before it reaches the log, so that applying
    /// cannot fail.
    #[must_use]
    pub fn is_applicable(&self) -> bool {
        let size = |effect: &Effect| effect.key().len() + effect.value().map_or(0, Bytes::len);
        self.effects().iter().all(|effect| is_key(effect.key()))
            && self.effects().iter().map(size).sum::<usize>() <= MAX_ENTRY_BYTES
    }
}

/// What an entry does. Variants are stable: their order is the wire and disk format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// The first entry of an epoch. When it commits, the epoch is established.
    Open,
    /// A client's write, already evaluated.
    Write(EvaluatedWrite),
}

/// A client's write after the leader evaluated it: applying it cannot fail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvaluatedWrite {
    /// Whose write this is; a retry with the same id is answered with `outcome` again.
    pub request: RequestId,
    /// All requests of this client below this sequence number are finished and will never be retried, so their
    /// results may be forgotten.
    pub floor: u64,
    /// The changes it came to; none if its condition did not hold.
    #[serde(deserialize_with = "bounded::<_, _, MAX_EFFECTS>")]
    pub effects: Vec<Effect>,
    /// The answer for the client.
    pub outcome: Outcome,
}

/// A change to one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Effect {
    /// The key now holds this value, at the version of the entry.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// The key is absent from now on.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Effect {
    /// The key that this changes.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// What the key holds afterwards; `None` if it is absent.
    #[must_use]
    pub const fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}

/// The result of a write, decided by the leader that evaluated it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The key was written or deleted; its version is that of the entry.
    Applied,
    /// The key to delete was absent; nothing changed.
    NotFound,
    /// The key was not at the expected version; nothing changed.
    Mismatch {
        /// The version that it had; zero if it was absent.
        actual: Version,
    },
}

/// The voting members of the cluster.
///
/// The first configuration is created exactly once through ZooKeeper and has the id [`EntryId::ZERO`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// The log entry that this configuration came from. Votes and samples carry it.
    pub id: EntryId,
    /// The voting replicas, ordered by id.
    #[serde(deserialize_with = "bounded::<_, _, MAX_MEMBERS>")]
    pub members: Vec<Member>,
}

/// A voting replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its identity.
    pub node: NodeId,
    /// Where it listens: `host:port`.
    pub address: String,
}

impl Configuration {
    /// Members whose votes commit a write, and members that a read samples: ⌊N/2⌋+1. It serves as Nw and as Nr,
    /// so that Nr + Nw > N and Nr ≥ Nw.
    #[must_use]
    pub const fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member with this identity.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }
}
