//! What one client asked of one key, and what it heard.

use serde::{Deserialize, Serialize};

/// One operation of one client. What the client library sends again under the same request id is one operation, from the
/// first call to the last answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked. A client does one thing at a time.
    pub client: u32,
    /// What it asked about.
    pub key: String,
    /// When it asked: nanoseconds on a monotonic clock that all clients of the history share.
    pub called: u64,
    /// When it was answered, on the same clock. `None`: never; the operation may take effect at any time after `called`.
    pub returned: Option<u64>,
    /// What it asked for.
    pub action: Action,
    /// What it heard.
    pub outcome: Outcome,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Reads the key.
    Get,
    /// Writes a value that is written once only in the whole history.
    Put {
        /// The value.
        value: String,
    },
    /// Deletes the key.
    Delete,
    /// Writes a value, as [`Action::Put`] does, if the key is at a version; 0: if there is no such key.
    CompareAndSet {
        /// The version that the key must have.
        expected: u64,
        /// The value.
        value: String,
    },
}

/// What is heard. Versions are positions in the one log of the cluster, from 1 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A read found this.
    Found {
        /// The value.
        value: String,
        /// The version of the entry that wrote it.
        version: u64,
    },
    /// A read found no such key; or there was none to delete.
    Absent,
    /// The write was applied by the entry at this version.
    Applied {
        /// The entry's version.
        version: u64,
    },
    /// A compare-and-set found the key at another version; 0: there was no such key.
    Mismatch {
        /// The version that it found.
        actual: u64,
    },
    /// Nothing came of it, for certain: a read that was not answered, or a write that was refused.
    Failed,
    /// A write that may have been applied, or may still be.
    Unknown,
}
