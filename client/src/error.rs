//! Why operations fail: one enum per operation, made of a few small parts.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorumkv_protocol::client::{Evidence, Failure};
use quorumkv_protocol::frame::FrameError;
use quorumkv_protocol::membership;
use quorumkv_protocol::{Certainty, ClusterId, ErrorCode};
use thiserror::Error;

use crate::endpoint::{Endpoint, EndpointError};

/// Why a client could not be made.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConnectError {
    /// The list of endpoints is empty.
    #[error("no endpoints were given")]
    NoEndpoints,
    /// An address is not well formed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The client's name does not fit into the handshake.
    #[error("the client's name has {length} bytes; {limit} are permitted")]
    NameTooLong {
        /// Its length in bytes.
        length: usize,
        /// What is permitted.
        limit: usize,
    },
}

/// Why a write has no result.
///
/// A write is [`Unknown`](Self::Unknown) as soon as one attempt was sent and went without a definite answer, unless a
/// later attempt with the same request id brought the result: what a node says of one attempt (it does not lead, it
/// is overloaded, even that a later leader's log replaced it) says nothing about the others.
#[derive(Clone, Debug, Error)]
pub enum WriteError {
    /// It was not applied and never will be.
    #[error("not applied: {cause}")]
    NotApplied {
        /// Why.
        cause: Cause,
    },
    /// It may have been applied, or may yet be.
    #[error("outcome unknown, it may have been applied: {cause}")]
    Unknown {
        /// What left it in doubt.
        cause: Cause,
    },
    /// No node could be connected to, and nothing was sent: it was not applied and never will be.
    #[error("not applied, no node could be reached: {0}")]
    Unreachable(ConnectionError),
}

impl WriteError {
    /// What is certain about the write.
    #[must_use]
    pub const fn certainty(&self) -> Certainty {
        match self {
            Self::NotApplied { .. } | Self::Unreachable(_) => Certainty::NotApplied,
            Self::Unknown { .. } => Certainty::Unknown,
        }
    }

    /// The code that a node answered with, if that is why.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::NotApplied { cause } | Self::Unknown { cause } => cause.code(),
            Self::Unreachable(_) => None,
        }
    }
}

/// Why the members are not known to have been changed.
#[derive(Clone, Debug, Error)]
pub enum ChangeError {
    /// The leader does not do it: nothing was changed.
    #[error("{0}")]
    Refused(membership::Refusal),
    /// As for a write: not done, or unknown.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a read has no answer.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// The members sampled did not come to agree in time; the refusal carries the evidence.
    #[error("{0}")]
    Conflict(Refusal),
    /// No answer came before the deadline, or too few members answered the node.
    #[error("timed out: {cause}")]
    TimedOut {
        /// What the last attempt ended with; [`Cause::TimedOut`] if it got no answer.
        cause: Cause,
    },
    /// No node could be connected to, or none stayed connected.
    #[error("no node could be reached: {0}")]
    Unreachable(ConnectionError),
    /// A node refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The request is over a limit; it was not sent.
    #[error(transparent)]
    TooLarge(TooLarge),
    /// A node answered something that was not asked.
    #[error("{0} answered something else than it was asked")]
    UnexpectedAnswer(Endpoint),
}

impl ReadError {
    /// The code that a node answered with, if that is why.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Conflict(refusal) | Self::Refused(refusal) => Some(refusal.code),
            Self::TimedOut { cause } => cause.code(),
            Self::Unreachable(error) => error.failure.code(),
            Self::TooLarge(_) => Some(ErrorCode::TooLarge),
            Self::UnexpectedAnswer(_) => None,
        }
    }

    /// What the read had seen when it gave up, if a node reported it.
    #[must_use]
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Conflict(refusal)
            | Self::Refused(refusal)
            | Self::TimedOut { cause: Cause::Refused(refusal) } => refusal.evidence.as_deref(),
            Self::TimedOut { .. } | Self::Unreachable(_) | Self::TooLarge(_) | Self::UnexpectedAnswer(_) => {
                None
            }
        }
    }
}

/// Why one particular node did not do what it was asked (status, stop).
#[derive(Clone, Debug, Error)]
pub enum NodeError {
    /// The address is not well formed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The node could not be connected to; nothing was sent.
    #[error("{0}")]
    Unreachable(ConnectionError),
    /// The request was sent, and the connection was lost before the answer.
    #[error("{0}")]
    Lost(ConnectionError),
    /// No answer came before the deadline.
    #[error("{0} did not answer in time")]
    TimedOut(Endpoint),
    /// The node refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The node answered something that was not asked.
    #[error("{0} answered something else than it was asked")]
    UnexpectedAnswer(Endpoint),
}

/// Why an attempt did not succeed.
#[derive(Clone, Debug, Error)]
pub enum Cause {
    /// A node refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The request is over a limit; it was not sent.
    #[error("{0}")]
    TooLarge(TooLarge),
    /// The connection could not be made or was lost.
    #[error("{0}")]
    Connection(ConnectionError),
    /// The deadline passed.
    #[error("no answer before the deadline")]
    TimedOut,
    /// A node answered something that was not asked.
    #[error("{0} answered something else than it was asked")]
    UnexpectedAnswer(Endpoint),
}

impl Cause {
    /// The code that a node answered with, if that is why.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::TooLarge(_) => Some(ErrorCode::TooLarge),
            Self::Connection(error) => error.failure.code(),
            Self::TimedOut | Self::UnexpectedAnswer(_) => None,
        }
    }
}

/// A node's answer that it will not or cannot.
#[derive(Clone, Debug, Error)]
#[error("{endpoint}: {message} ({code})")]
pub struct Refusal {
    /// The node.
    pub endpoint: Endpoint,
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why and what to do, for people.
    pub message: String,
    /// What a read that gave up had seen.
    pub evidence: Option<Box<Evidence>>,
}

impl Refusal {
    pub(crate) fn new(endpoint: Endpoint, failure: Failure) -> Self {
        let Failure { code, message, leader: _, evidence } = failure;
        Self { endpoint, code, message, evidence: evidence.map(Box::new) }
    }
}

/// What a request has too much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limited {
    /// The key (or the prefix of a scan).
    Key,
    /// The value.
    Value,
    /// The whole frame.
    Frame,
}

impl Limited {
    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Frame => "request",
        }
    }
}

/// A request is over a limit that the node announced.
#[derive(Clone, Debug, Error)]
#[error("the {} has {size} bytes; {endpoint} takes at most {limit}", .what.name())]
pub struct TooLarge {
    /// The node that announced the limit.
    pub endpoint: Endpoint,
    /// What is too large.
    pub what: Limited,
    /// Its size in bytes.
    pub size: usize,
    /// The limit in bytes.
    pub limit: u32,
}

/// A connection that could not be made, or was lost.
#[derive(Clone, Debug, Error)]
#[error("{endpoint}: {failure}")]
pub struct ConnectionError {
    /// The node.
    pub endpoint: Endpoint,
    /// What happened.
    pub failure: ConnectionFailure,
}

/// What happened to a connection.
#[derive(Clone, Debug, Error)]
pub enum ConnectionFailure {
    /// Nobody could be connected to at this address.
    #[error("cannot connect: {0}")]
    Connect(Arc<io::Error>),
    /// Connecting and saying Hello took too long.
    #[error("not connected within {0:?}")]
    HelloTimedOut(Duration),
    /// The node refused the handshake.
    #[error("{message} ({code})")]
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
    /// The node chose a protocol version that this client does not speak.
    #[error("it speaks protocol version {0}, which this client does not")]
    Version(u16),
    /// The node belongs to another cluster than the one expected, or than the nodes met before.
    #[error("it belongs to cluster {actual}, and cluster {expected} is expected")]
    Cluster {
        /// The cluster expected.
        expected: ClusterId,
        /// The cluster of the node.
        actual: ClusterId,
    },
    /// The node sent bytes that are not the protocol's.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The node answered a request that was not asked, or answered twice.
    #[error("it answered request {0}, which is not waiting for an answer")]
    Correlation(u64),
    /// The node closed the connection.
    #[error("the node closed the connection")]
    Ended,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(Arc<io::Error>),
    /// Requests were waiting, a probe was sent, and for this long nothing came.
    #[error("the node has been silent for {0:?}")]
    Silent(Duration),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ConnectionFailure {
    /// The code by which the node, or the handshake with it, was refused. Trying again there will not help.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Version(_) => Some(ErrorCode::UnsupportedVersion),
            Self::Cluster { .. } => Some(ErrorCode::WrongCluster),
            Self::Connect(_)
            | Self::HelloTimedOut(_)
            | Self::Frame(_)
            | Self::Correlation(_)
            | Self::Ended
            | Self::Broken(_)
            | Self::Silent(_)
            | Self::Closed => None,
        }
    }

    /// Whether the same address would give the same answer again for a long time.
    pub(crate) const fn is_final(&self) -> bool {
        match self.code() {
            Some(code) => !code.is_worth_retrying(),
            None => matches!(self, Self::Closed),
        }
    }
}
