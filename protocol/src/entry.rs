//! What the replicated log holds.
//!
//! Effects are replicated, not commands: the leader evaluates a compare-and-set once against its own latest state,
//! so replicas apply without deciding anything (DESIGN 2).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::budget::bounded;
use crate::ids::{EntryId, RequestId, Version};
use crate::membership::Configuration;
use crate::slices;

/// Most effects in one entry; the same bound as etcd's for operations in a transaction.
pub const MAX_EFFECTS: usize = 128;

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
            Body::Open | Body::Configure(_) => &[],
            Body::Write(write) => &write.effects,
        }
    }

    /// The client's request that this carries out, with its result.
    #[must_use]
    pub fn answered(&self) -> Option<Answered> {
        match &self.body {
            Body::Open => None,
            Body::Write(EvaluatedWrite { request, floor, outcome, .. }) => {
                Some(Answered { request: *request, floor: *floor, outcome: *outcome })
            }
            Body::Configure(change) => change.asked.map(|Asked { request, floor }| Answered {
                request,
                floor,
                outcome: Outcome::Applied,
            }),
        }
    }

    /// The configuration that counts from this entry on, if it brings one.
    #[must_use]
    pub fn configuration(&self) -> Option<&Configuration> {
        match &self.body {
            Body::Configure(change) => Some(&change.configuration),
            Body::Open | Body::Write(_) => None,
        }
    }

    /// Whether this can be applied: what comes from the wire is checked before it reaches the log, so that applying
    /// cannot fail.
    #[must_use]
    pub fn is_applicable(&self) -> bool {
        let size = |effect: &Effect| effect.key().len() + effect.value().map_or(0, Bytes::len);
        self.effects().iter().all(|effect| is_key(effect.key()))
            && self.effects().iter().map(size).sum::<usize>() <= MAX_ENTRY_BYTES
            && self.configuration().is_none_or(|next| next.id == self.id && next.is_sound())
    }
}

/// What an entry does. Variants are stable: their order is the wire and disk format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// The first entry of an epoch. When it commits, the epoch is established.
    Open,
    /// A client's write, already evaluated.
    Write(EvaluatedWrite),
    /// The cluster's members change. The new configuration counts from the moment this is appended (DESIGN 8).
    Configure(Box<Reconfiguration>),
}

/// A change of the cluster's members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reconfiguration {
    /// Who asked for it; `None` where the leader takes the next step of a replacement by itself.
    pub asked: Option<Asked>,
    /// The members from this entry on. Its id is that of the entry.
    pub configuration: Configuration,
}

/// A client's request for something that is not a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Its identity; a retry with the same id is answered with the first result.
    pub request: RequestId,
    /// All requests of this client below this sequence number are finished and will never be retried.
    pub floor: u64,
}

/// A client's request that an entry carries out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered {
    /// Its identity.
    pub request: RequestId,
    /// All requests of this client below this sequence number are finished.
    pub floor: u64,
    /// Its result.
    pub outcome: Outcome,
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
        #[serde(deserialize_with = "slices::part")]
        key: Bytes,
        /// Its new value.
        #[serde(deserialize_with = "slices::part")]
        value: Bytes,
    },
    /// The key is absent from now on.
    Delete {
        /// The key.
        #[serde(deserialize_with = "slices::part")]
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
