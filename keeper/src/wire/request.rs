//! What clients ask.

use bytes::Bytes;
use thiserror::Error;

use super::ErrorCode;
use super::records::AskedAcl;
use crate::jute::JuteError;

/// Begins every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// Chosen by the client; the reply bears it too.
    pub xid: i32,
    /// The [operation](super::op).
    pub op: i32,
}

/// Why a packet is no request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RequestError {
    /// The operation is unknown: ZooKeeper answers [`ErrorCode::Unimplemented`] and closes.
    #[error("there is no operation {0}")]
    UnknownOperation(i32),
    /// Its fields are not encoded as they should be: ZooKeeper answers [`ErrorCode::MarshallingError`].
    #[error("operation {op} is malformed: {source}")]
    Malformed {
        /// The operation.
        op: i32,
        /// What is wrong.
        source: JuteError,
    },
    /// It names a kind of watch, of znode or of operation that does not exist: ZooKeeper answers [`ErrorCode::MarshallingError`].
    #[error("operation {op} names a kind that does not exist")]
    NoSuchKind {
        /// The operation.
        op: i32,
    },
}

impl RequestError {
    /// What the client is told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::UnknownOperation(_) => ErrorCode::Unimplemented,
            Self::Malformed { .. } | Self::NoSuchKind { .. } => ErrorCode::MarshallingError,
        }
    }
}

/// The kinds of znodes that can be created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateKind {
    /// Stays until it is deleted.
    Persistent,
    /// Goes with its session.
    Ephemeral,
    /// Goes some time after its last child.
    Container,
    /// Goes when nothing has happened to it for so many milliseconds, and it has no children.
    Ttl(i64),
    /// These flags name no kind that the operation can create: it fails.
    Unknown,
}

/// Creates a znode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Create {
    /// Where; for a sequential one, the beginning of its name.
    pub path: String,
    /// What it holds; null stays null, as in ZooKeeper.
    pub data: Option<Bytes>,
    /// Who may do what.
    pub acl: Vec<AskedAcl>,
    /// What it is.
    pub kind: CreateKind,
    /// Whether a number is appended to its name.
    pub sequential: bool,
    /// Whether the reply has its stat (`create2`, `createContainer` and `createTTL`).
    pub with_stat: bool,
}

/// Deletes a znode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// Which.
    pub path: String,
    /// Its version, or -1 for any.
    pub version: i32,
}

/// Sets a znode's data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetData {
    /// Which.
    pub path: String,
    /// What it is to hold.
    pub data: Option<Bytes>,
    /// Its version, or -1 for any.
    pub version: i32,
}

/// Sets a znode's ACL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAcl {
    /// Which.
    pub path: String,
    /// Who may do what.
    pub acl: Vec<AskedAcl>,
    /// The version of its ACL, or -1 for any.
    pub version: i32,
}

/// Checks a znode's version. Only within a `multi`: by itself, ZooKeeper does not know the operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Which.
    pub path: String,
    /// Its version, or -1 for any.
    pub version: i32,
}

/// One operation of a `multi`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the types say it")]
pub enum MultiOp {
    Create(Create),
    Delete(Delete),
    SetData(SetData),
    Check(Check),
}

/// What changes something, and goes through the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the types say it")]
pub enum Write {
    Create(Create),
    Delete(Delete),
    SetData(SetData),
    SetAcl(SetAcl),
    /// All or none.
    Multi(Vec<MultiOp>),
}

/// One operation of a `multiRead`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOp {
    /// `getChildren` of a path.
    Children(String),
    /// `getData` of a path.
    Data(String),
}

/// Watches that a client brings from an earlier connection.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SetWatches {
    /// The last transaction that the client has seen: what happened since is told at once.
    pub relative_zxid: i64,
    /// Data watches.
    pub data: Vec<String>,
    /// Watches on znodes that did not exist.
    pub exist: Vec<String>,
    /// Child watches.
    pub child: Vec<String>,
    /// Persistent watches.
    pub persistent: Vec<String>,
    /// Persistent recursive watches.
    pub recursive: Vec<String>,
}

/// How long a watch stays and what it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WatchMode {
    /// Until it has fired once.
    Standard,
    /// Until it is removed.
    Persistent,
    /// Until it is removed, and everything below the path too.
    Recursive,
}

/// Which watches are checked for or removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchKind {
    /// On children (also persistent ones).
    Children,
    /// On data (also persistent ones).
    Data,
    /// All.
    Any,
    /// Persistent ones.
    Persistent,
    /// Persistent recursive ones.
    Recursive,
}

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are ZooKeeper's operations, under their own names")]
pub enum Request {
    Write(Write),
    Exists {
        path: String,
        watch: bool,
    },
    GetData {
        path: String,
        watch: bool,
    },
    GetAcl {
        path: String,
    },
    /// `getChildren`, or `getChildren2` if `with_stat`.
    GetChildren {
        path: String,
        watch: bool,
        with_stat: bool,
    },
    GetAllChildrenNumber {
        path: String,
    },
    GetEphemerals {
        prefix: String,
    },
    Sync {
        path: String,
    },
    MultiRead(Vec<ReadOp>),
    Auth {
        scheme: String,
        auth: Bytes,
    },
    WhoAmI,
    SetWatches(SetWatches),
    AddWatch {
        path: String,
        mode: WatchMode,
    },
    CheckWatches {
        path: String,
        kind: WatchKind,
    },
    RemoveWatches {
        path: String,
        kind: WatchKind,
    },
    Ping,
    CloseSession,
    /// Only an administrator of an ensemble may; here it is answered [`ErrorCode::ReconfigDisabled`].
    Reconfig,
}
