//! What can be wrong with a request, as clients are told.

use thiserror::Error;

/// ZooKeeper's error codes (`KeeperException.Code`), those that a server sends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
#[repr(i32)]
pub enum ErrorCode {
    /// Something is wrong with the server.
    #[error("system error")]
    SystemError = -1,
    /// An operation of a `multi` was not tried, since one before it (or after) failed.
    #[error("runtime inconsistency")]
    RuntimeInconsistency = -2,
    /// A request is not encoded as it should be.
    #[error("marshalling error")]
    MarshallingError = -5,
    /// There is no such operation.
    #[error("unimplemented")]
    Unimplemented = -6,
    /// An argument makes no sense.
    #[error("bad arguments")]
    BadArguments = -8,
    /// There is no such znode.
    #[error("no node")]
    NoNode = -101,
    /// The ACL does not permit it.
    #[error("not authenticated")]
    NoAuth = -102,
    /// The version is another.
    #[error("bad version")]
    BadVersion = -103,
    /// The parent is ephemeral.
    #[error("ephemeral nodes may not have children")]
    NoChildrenForEphemerals = -108,
    /// The znode exists.
    #[error("node exists")]
    NodeExists = -110,
    /// The znode has children.
    #[error("directory not empty")]
    NotEmpty = -111,
    /// The session is over.
    #[error("session expired")]
    SessionExpired = -112,
    /// The ACL makes no sense.
    #[error("invalid acl")]
    InvalidAcl = -114,
    /// Authentication failed.
    #[error("authentication failed")]
    AuthFailed = -115,
    /// The session is served over another connection.
    #[error("session moved")]
    SessionMoved = -118,
    /// There is no such watch.
    #[error("no such watcher")]
    NoWatcher = -121,
    /// The ensemble cannot be reconfigured.
    #[error("reconfiguration is disabled")]
    ReconfigDisabled = -123,
    /// A quota would be exceeded.
    #[error("quota exceeded")]
    QuotaExceeded = -125,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }
}
