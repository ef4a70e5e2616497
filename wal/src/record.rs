//! What the log holds: the ids of entries, and the records.

use std::fmt;

use bytes::Bytes;

/// The reign of one leader. Ordered by counter, then by node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Grows with every leader.
    pub counter: u64,
    /// The leader's identity; tells apart two epochs of one counter.
    pub node: u64,
}

/// The id of an entry. Ordered by epoch, then by version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The epoch whose leader made the entry.
    pub epoch: Epoch,
    /// The entry's place in the log: 1, 2, 3 …; 0 stands before the first.
    pub version: u64,
}

impl Mark {
    /// The mark before the first entry of a fresh log.
    pub const ZERO: Mark = Mark { epoch: Epoch { counter: 0, node: 0 }, version: 0 };
}

/// An entry as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry's id.
    pub mark: Mark,
    /// The entry's content. Entries of one read share one buffer.
    pub payload: Bytes,
}

/// One thing to remember. The log is a sequence of records; a later one overrules an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry. Its version is at most one above the last one's; every entry at its version or above that was appended
    /// before is void. (The log then writes a [`Record::Truncate`] before it, so that on disk entries only ever follow.)
    Entry {
        /// The entry's id; its epoch is not below that of the entry before it.
        mark: Mark,
        /// The entry's content, opaque to the log.
        payload: Bytes,
    },
    /// The highest epoch that this replica has promised. Never goes back.
    Promise {
        /// The epoch promised.
        epoch: Epoch,
    },
    /// All entries before are void: a snapshot up to `mark` has taken their place. The promise stays.
    /// The next entry is at `mark.version + 1`.
    Base {
        /// The last entry that the snapshot covers.
        mark: Mark,
    },
    /// All entries after `to` are void.
    Truncate {
        /// The last entry that stays (or the mark before the first retained one).
        to: Mark,
    },
}

/// What a record does to the log's state: the record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Entry(Mark),
    Promise(Epoch),
    Base(Mark),
    Truncate(Mark),
}

impl Record {
    pub(crate) fn change(&self) -> Change {
        match self {
            Record::Entry { mark, .. } => Change::Entry(*mark),
            Record::Promise { epoch } => Change::Promise(*epoch),
            Record::Base { mark } => Change::Base(*mark),
            Record::Truncate { to } => Change::Truncate(*to),
        }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        match self {
            Record::Entry { payload, .. } => payload,
            Record::Promise { .. } | Record::Base { .. } | Record::Truncate { .. } => &[],
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.counter, self.node)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.version)
    }
}
