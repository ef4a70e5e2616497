//! Error codes: why a request was not answered as asked, and what that means for a write.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request failed. Variants are stable: their order is the wire format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The frame is not a message, or one that this connection's role may not send.
    Malformed,
    /// The two sides share no protocol version.
    UnsupportedVersion,
    /// The other side belongs to another cluster.
    WrongCluster,
    /// The caller may not do this.
    NotPermitted,
    /// A key, value, or number of results is over the limit.
    TooLarge,
    /// Too much is in flight; the same request may succeed in a moment.
    Overloaded,
    /// This node is not ready: the cluster is still being formed, the node is too far behind to know its members, or its state is
    /// damaged and about to be replaced.
    NotReady,
    /// The request came through another node, and this one does not lead.
    NotLeader,
    /// No leader with a quorum was found in time; nothing was logged.
    NoQuorum,
    /// The write was logged by a leader, and whether it will commit was not known in time.
    OutcomeUnknown,
    /// The write was logged, and a later leader's log replaced it: it will never be applied.
    Superseded,
    /// The request id is older than the results that are kept: whether it was applied can no longer be told.
    RequestExpired,
    /// The members sampled by a read did not come to agree in time.
    Conflict,
    /// Too few members answered a read in time.
    ReadTimedOut,
    /// Two replicas hold different data under one entry id.
    Corruption,
    /// The disk is nearly full: writes are refused, reads and deletes go on.
    DiskFull,
    /// The node is shutting down.
    ShuttingDown,
    /// This node does not belong to the cluster: it was removed, or has not been added yet.
    NotMember,
}

/// What is certain about a write that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certainty {
    /// It was not applied and never will be.
    NotApplied,
    /// It may have been applied, or may yet be.
    Unknown,
}

impl ErrorCode {
    /// What a write that was answered with this code came to, given that it was sent only once.
    #[must_use]
    pub const fn certainty(self) -> Certainty {
        match self {
            Self::OutcomeUnknown | Self::RequestExpired => Certainty::Unknown,
            Self::Malformed
            | Self::UnsupportedVersion
            | Self::WrongCluster
            | Self::NotPermitted
            | Self::TooLarge
            | Self::Overloaded
            | Self::NotReady
            | Self::NotLeader
            | Self::NoQuorum
            | Self::Superseded
            | Self::Conflict
            | Self::ReadTimedOut
            | Self::Corruption
            | Self::DiskFull
            | Self::ShuttingDown
            | Self::NotMember => Certainty::NotApplied,
        }
    }

    /// Whether the same request, at another node or a little later, may well succeed.
    #[must_use]
    pub const fn is_worth_retrying(self) -> bool {
        match self {
            Self::Overloaded
            | Self::NotReady
            | Self::NotLeader
            | Self::ShuttingDown
            | Self::Superseded
            | Self::NotMember => true,
            Self::Malformed
            | Self::UnsupportedVersion
            | Self::WrongCluster
            | Self::NotPermitted
            | Self::TooLarge
            | Self::NoQuorum
            | Self::OutcomeUnknown
            | Self::RequestExpired
            | Self::Conflict
            | Self::ReadTimedOut
            | Self::Corruption
            | Self::DiskFull => false,
        }
    }

    /// The code's name in JSON and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnsupportedVersion => "unsupported_version",
            Self::WrongCluster => "wrong_cluster",
            Self::NotPermitted => "not_permitted",
            Self::TooLarge => "too_large",
            Self::Overloaded => "overloaded",
            Self::NotReady => "not_ready",
            Self::NotLeader => "not_leader",
            Self::NoQuorum => "no_quorum",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Superseded => "superseded",
            Self::RequestExpired => "request_expired",
            Self::Conflict => "conflict",
            Self::ReadTimedOut => "read_timed_out",
            Self::Corruption => "corruption",
            Self::DiskFull => "disk_full",
            Self::ShuttingDown => "shutting_down",
            Self::NotMember => "not_member",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
