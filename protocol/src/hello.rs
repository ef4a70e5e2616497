//! The first frame each way: who are you, which version do we speak, is this the right cluster?

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::ErrorCode;
use crate::ids::{ClusterId, NodeId, Version};

/// The first bytes of every connection's first body: a port scanner or a browser never sends them.
pub const MAGIC: [u8; 4] = *b"QKV\x01";

/// The protocol versions that this crate speaks.
///
/// | version | since | what it brought |
/// |---|---|---|
/// | 1 | 0.1.0 | the first |
pub const VERSIONS: VersionRange = VersionRange { lowest: 1, highest: 1 };

/// An inclusive range of protocol versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest version spoken.
    pub lowest: u16,
    /// The newest version spoken.
    pub highest: u16,
}

impl VersionRange {
    /// The highest version in both ranges.
    #[must_use]
    pub fn highest_common(self, other: Self) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest && highest >= other.lowest).then_some(highest)
    }
}

/// What the side that connects says first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Always [`MAGIC`].
    pub magic: [u8; 4],
    /// The versions that it speaks.
    pub versions: VersionRange,
    /// The cluster that it expects; `None` takes any (a client that was given only addresses).
    pub cluster: Option<ClusterId>,
    /// Who it is and which messages it will send.
    pub role: Role,
    /// Proof of who it is; empty where the cluster asks for none.
    pub credentials: Bytes,
}

impl Hello {
    /// A greeting in all versions of this crate, without credentials.
    #[must_use]
    pub const fn new(cluster: Option<ClusterId>, role: Role) -> Self {
        Self { magic: MAGIC, versions: VERSIONS, cluster, role, credentials: Bytes::new() }
    }
}

/// What a connection is for. It decides which messages may follow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Sends client requests; the name is for the other side's log.
    Client {
        /// Program and host, for people.
        name: String,
    },
    /// A node that forwards its clients' requests to the leader. They are not forwarded again.
    Forwarder {
        /// The node that forwards.
        node: NodeId,
    },
    /// A member that sends peer messages and receives the replies.
    Peer {
        /// The member.
        node: NodeId,
    },
}

/// What the side that was connected to answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HelloReply {
    /// The connection is open.
    Welcome(Welcome),
    /// The connection is closed after this.
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
}

/// The terms of an open connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version to speak from now on.
    pub version: u16,
    /// The cluster that this node belongs to; `None` while it is being formed.
    pub cluster: Option<ClusterId>,
    /// The node that answers.
    pub node: NodeId,
    /// A version that is committed: a write sent for the first time after this carries it as `since`.
    pub committed: Version,
    /// What this node takes from a client.
    pub limits: Limits,
}

/// What a node takes from a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Longest key, in bytes.
    pub key: u32,
    /// Longest value, in bytes.
    pub value: u32,
    /// Longest frame body, in bytes.
    pub frame: u32,
    /// Most requests without an answer on one connection.
    pub in_flight: u32,
}

impl Limits {
    /// The limits unless configured otherwise (DESIGN 10).
    pub const DEFAULT: Self = Self {
        key: u16::MAX as u32,
        value: 8 << 20,
        frame: crate::frame::CLIENT_FRAME_LIMIT,
        in_flight: 1024,
    };
}

/// Why a Hello is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HelloError {
    /// The first bytes are not those of this protocol.
    #[error("this is a quorumkv port, and the first frame is not a quorumkv Hello")]
    Magic,
    /// No version is spoken by both sides.
    #[error(
        "no common protocol version: this node speaks {} to {}, the other side {} to {}",
        VERSIONS.lowest, VERSIONS.highest, theirs.lowest, theirs.highest
    )]
    Version {
        /// What the other side speaks.
        theirs: VersionRange,
    },
    /// The other side belongs to another cluster.
    #[error("this node belongs to cluster {ours}, and the other side expects cluster {theirs}")]
    Cluster {
        /// The cluster of this node.
        ours: ClusterId,
        /// What the other side expects.
        theirs: ClusterId,
    },
}

impl HelloError {
    /// The code that goes over the wire.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Magic => ErrorCode::Malformed,
            Self::Version { .. } => ErrorCode::UnsupportedVersion,
            Self::Cluster { .. } => ErrorCode::WrongCluster,
        }
    }
}

/// Checks what the other side said first against what this node is; returns the protocol version to speak.
///
/// # Errors
/// What the other side is to be refused with.
pub fn negotiate(hello: &Hello, ours: Option<ClusterId>) -> Result<u16, HelloError> {
    if hello.magic != MAGIC {
        return Err(HelloError::Magic);
    }
    let version =
        VERSIONS.highest_common(hello.versions).ok_or(HelloError::Version { theirs: hello.versions })?;
    match (ours, hello.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(HelloError::Cluster { ours, theirs }),
        _ => Ok(version),
    }
}
