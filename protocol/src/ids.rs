//! Identities and positions: every number with a meaning has a type of its own.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Declares a 64-bit random identity, written as 16 hexadecimal digits.
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number that was drawn at random or read back from where it was stored.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The number itself, for storage and for random draws.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            /// Parses hexadecimal digits, as [`Display`](fmt::Display) writes them.
            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                u64::from_str_radix(text, 16).map(Self)
            }
        }
    };
}

identity! {
    /// Identity of a replica. It is made at random together with the data directory and lives as long as it:
    /// a directory that is lost means a new identity (DESIGN 2).
    NodeId
}
identity! {
    /// Identity of a cluster, made at random with its first configuration. Nodes and clients of another cluster
    /// are refused in the handshake.
    ClusterId
}
identity! {
    /// Identity of one client instance, drawn at random when it starts. Request numbers are counted per client.
    ClientId
}

/// How far above the highest epoch a node has seen an epoch may lie and still be believed. Epochs grow by one per
/// election; a jump beyond this can only be a broken or hostile sender that would use up the number space.
const PLAUSIBLE_EPOCH_JUMP: u64 = 1 << 32;

/// The reign of one leader: a counter that grows with every election, and the node that leads.
///
/// Ordered by counter, then node. Two nodes that are handed the same counter (ZooKeeper was wiped, say) still hold
/// different epochs, so there is one leader per epoch by construction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Epoch {
    counter: u64,
    node: NodeId,
}

impl Epoch {
    /// Before any leader: lower than every epoch in which anything is written.
    pub const ZERO: Self = Self { counter: 0, node: NodeId::new(0) };

    /// The epoch of `node` with the counter that the election allocated to it.
    #[must_use]
    pub const fn new(counter: u64, node: NodeId) -> Self {
        Self { counter, node }
    }

    /// The number that grows with every election.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.counter
    }

    /// The node that leads, and alone may lead, in this epoch.
    #[must_use]
    pub const fn node(self) -> NodeId {
        self.node
    }

    /// Whether a node whose highest known epoch is `known` should believe this one: absurd counters would use up
    /// the number space for good.
    #[must_use]
    pub const fn is_plausible_after(self, known: Self) -> bool {
        self.counter <= known.counter.saturating_add(PLAUSIBLE_EPOCH_JUMP)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.counter, self.node)
    }
}

/// A position in the replicated log: 1, 2, 3 …; 0 stands before the first entry.
///
/// A key's version is that of the entry which last wrote it; 0 says that the key is absent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// Before the first entry; as the version of a key: absent.
    pub const ZERO: Self = Self(0);

    /// The position with this number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number of this position.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position after this one.
    ///
    /// # Panics
    /// When the 64-bit space is used up, which checks at the gateway make impossible in any real log.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a log holds fewer than 2^64 entries"))
    }

    /// The position before this one; zero stays zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many positions this one lies after `earlier`; zero if it does not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a log entry. Entries are compared by this, never by version alone: two epochs can use one version.
///
/// Ordered by epoch, then version. Along one log both grow, so within a log this is the order of the log; between
/// logs the greater last id is the better log (DESIGN 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EntryId {
    /// The epoch whose leader created the entry.
    pub epoch: Epoch,
    /// Its position in the log.
    pub version: Version,
}

impl EntryId {
    /// Before the first entry of every log.
    pub const ZERO: Self = Self { epoch: Epoch::ZERO, version: Version::ZERO };

    /// The entry that `epoch`'s leader put at `version`.
    #[must_use]
    pub const fn new(epoch: Epoch, version: Version) -> Self {
        Self { epoch, version }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of epoch {}", self.version, self.epoch)
    }
}

/// Identity of a write, chosen by the client: a retry carries the same one and returns the first result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId {
    /// Who asks.
    pub client: ClientId,
    /// Which of its requests, counted from 1.
    pub sequence: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.client, self.sequence)
    }
}
