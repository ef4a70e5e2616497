//! What clients ask.

use bytes::Bytes;
use thiserror::Error;

use super::records::Acl;
use super::{ErrorCode, op};
use crate::jute::{Decoder, JuteError};

/// Begins every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// Chosen by the client; the reply bears it too.
    pub xid: i32,
    /// The [operation](op).
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
    pub acl: Vec<Acl>,
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
    pub acl: Vec<Acl>,
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

impl Request {
    /// Reads a packet: its header, and what is asked unless that cannot be understood.
    ///
    /// # Errors
    /// There is not even a header: then there is nothing to answer to.
    pub fn decode(packet: &[u8]) -> Result<(RequestHeader, Result<Self, RequestError>), JuteError> {
        let mut decoder = Decoder::new(packet);
        let header = RequestHeader { xid: decoder.int()?, op: decoder.int()? };
        Ok((header, body(header.op, &mut decoder)))
    }
}

/// Turns what went wrong while reading fields into what is wrong with the request.
trait OfOperation<T> {
    fn of(self, op: i32) -> Result<T, RequestError>;
}

impl<T> OfOperation<T> for Result<T, JuteError> {
    fn of(self, op: i32) -> Result<T, RequestError> {
        self.map_err(|source| RequestError::Malformed { op, source })
    }
}

fn body(op: i32, decoder: &mut Decoder<'_>) -> Result<Request, RequestError> {
    let request = match op {
        op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
            Request::Write(Write::Create(create(op, decoder)?))
        }
        op::DELETE => Request::Write(Write::Delete(delete(decoder).of(op)?)),
        op::SET_DATA => Request::Write(Write::SetData(set_data(decoder).of(op)?)),
        op::SET_ACL => Request::Write(Write::SetAcl(set_acl(decoder).of(op)?)),
        op::MULTI => Request::Write(Write::Multi(multi(decoder)?)),
        op::MULTI_READ => Request::MultiRead(multi_read(decoder)?),
        op::EXISTS => {
            let (path, watch) = path_and_watch(decoder).of(op)?;
            Request::Exists { path, watch }
        }
        op::GET_DATA => {
            let (path, watch) = path_and_watch(decoder).of(op)?;
            Request::GetData { path, watch }
        }
        op::GET_CHILDREN | op::GET_CHILDREN2 => {
            let (path, watch) = path_and_watch(decoder).of(op)?;
            Request::GetChildren { path, watch, with_stat: op == op::GET_CHILDREN2 }
        }
        op::GET_ACL => Request::GetAcl { path: decoder.string().of(op)? },
        op::GET_ALL_CHILDREN_NUMBER => Request::GetAllChildrenNumber { path: decoder.string().of(op)? },
        op::GET_EPHEMERALS => Request::GetEphemerals { prefix: prefix(decoder).of(op)? },
        op::SYNC => Request::Sync { path: decoder.string().of(op)? },
        op::AUTH => auth(decoder).of(op)?,
        op::WHO_AM_I => Request::WhoAmI,
        op::SET_WATCHES => Request::SetWatches(set_watches(decoder, false).of(op)?),
        op::SET_WATCHES2 => Request::SetWatches(set_watches(decoder, true).of(op)?),
        op::ADD_WATCH => {
            let (path, mode) = path_and_int(decoder).of(op)?;
            match mode {
                0 => Request::AddWatch { path, mode: WatchMode::Persistent },
                1 => Request::AddWatch { path, mode: WatchMode::Recursive },
                _ => return Err(RequestError::NoSuchKind { op }),
            }
        }
        op::CHECK_WATCHES | op::REMOVE_WATCHES => {
            let (path, kind) = path_and_int(decoder).of(op)?;
            let kind = watch_kind(kind).ok_or(RequestError::NoSuchKind { op })?;
            if op == op::CHECK_WATCHES {
                Request::CheckWatches { path, kind }
            } else {
                Request::RemoveWatches { path, kind }
            }
        }
        op::PING => Request::Ping,
        op::CLOSE_SESSION => Request::CloseSession,
        op::RECONFIG => Request::Reconfig,
        _ => return Err(RequestError::UnknownOperation(op)),
    };
    Ok(request)
}

/// The beginning of paths; null stands for any.
fn prefix(decoder: &mut Decoder<'_>) -> Result<String, JuteError> {
    match decoder.clone().int()? {
        -1 => decoder.int().map(|_| String::new()),
        _ => decoder.string(),
    }
}

fn path_and_watch(decoder: &mut Decoder<'_>) -> Result<(String, bool), JuteError> {
    Ok((decoder.string()?, decoder.boolean()?))
}

fn path_and_int(decoder: &mut Decoder<'_>) -> Result<(String, i32), JuteError> {
    Ok((decoder.string()?, decoder.int()?))
}

fn create(op: i32, decoder: &mut Decoder<'_>) -> Result<Create, RequestError> {
    let path = decoder.string().of(op)?;
    let data = decoder.buffer().of(op)?;
    let acl = decoder.vector(Acl::decode).of(op)?;
    let flags = decoder.int().of(op)?;
    let ttl = if op == op::CREATE_TTL { Some(decoder.long().of(op)?) } else { None };
    let kind = match (flags, ttl) {
        (0 | 2, None) => CreateKind::Persistent,
        (1 | 3, None) => CreateKind::Ephemeral,
        (4, None) => CreateKind::Container,
        (5 | 6, Some(ttl)) => CreateKind::Ttl(ttl),
        _ => CreateKind::Unknown,
    };
    Ok(Create { path, data, acl, kind, sequential: matches!(flags, 2 | 3 | 6), with_stat: op != op::CREATE })
}

fn delete(decoder: &mut Decoder<'_>) -> Result<Delete, JuteError> {
    Ok(Delete { path: decoder.string()?, version: decoder.int()? })
}

fn set_data(decoder: &mut Decoder<'_>) -> Result<SetData, JuteError> {
    Ok(SetData { path: decoder.string()?, data: decoder.buffer()?, version: decoder.int()? })
}

fn set_acl(decoder: &mut Decoder<'_>) -> Result<SetAcl, JuteError> {
    Ok(SetAcl { path: decoder.string()?, acl: decoder.vector(Acl::decode)?, version: decoder.int()? })
}

fn check(decoder: &mut Decoder<'_>) -> Result<Check, JuteError> {
    Ok(Check { path: decoder.string()?, version: decoder.int()? })
}

fn auth(decoder: &mut Decoder<'_>) -> Result<Request, JuteError> {
    // The first field is a type that nobody uses.
    decoder.int()?;
    Ok(Request::Auth { scheme: decoder.string()?, auth: decoder.buffer()?.unwrap_or_default() })
}

fn set_watches(decoder: &mut Decoder<'_>, with_persistent: bool) -> Result<SetWatches, JuteError> {
    let mut watches = SetWatches {
        relative_zxid: decoder.long()?,
        data: decoder.vector(Decoder::string)?,
        exist: decoder.vector(Decoder::string)?,
        child: decoder.vector(Decoder::string)?,
        ..SetWatches::default()
    };
    if with_persistent {
        watches.persistent = decoder.vector(Decoder::string)?;
        watches.recursive = decoder.vector(Decoder::string)?;
    }
    Ok(watches)
}

const fn watch_kind(number: i32) -> Option<WatchKind> {
    match number {
        1 => Some(WatchKind::Children),
        2 => Some(WatchKind::Data),
        3 => Some(WatchKind::Any),
        4 => Some(WatchKind::Persistent),
        5 => Some(WatchKind::Recursive),
        _ => None,
    }
}

/// The operations of a `multi`, each after a header of its own; the last header says that there are no more.
fn ops<T>(
    op: i32,
    decoder: &mut Decoder<'_>,
    read: impl Fn(i32, &mut Decoder<'_>) -> Result<T, RequestError>,
) -> Result<Vec<T>, RequestError> {
    let mut ops = Vec::new();
    loop {
        let (kind, done) = (decoder.int().of(op)?, decoder.boolean().of(op)?);
        // An error, which means nothing in a request.
        decoder.int().of(op)?;
        if done {
            return Ok(ops);
        }
        ops.push(read(kind, decoder)?);
    }
}

fn multi(decoder: &mut Decoder<'_>) -> Result<Vec<MultiOp>, RequestError> {
    ops(op::MULTI, decoder, |kind, decoder| match kind {
        op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
            let create = create(kind, decoder)?;
            match create.kind {
                // ZooKeeper looks at these flags before anything else.
                CreateKind::Unknown if kind != op::CREATE_TTL => Err(RequestError::NoSuchKind { op: kind }),
                _ => Ok(MultiOp::Create(create)),
            }
        }
        op::DELETE => Ok(MultiOp::Delete(delete(decoder).of(kind)?)),
        op::SET_DATA => Ok(MultiOp::SetData(set_data(decoder).of(kind)?)),
        op::CHECK => Ok(MultiOp::Check(check(decoder).of(kind)?)),
        _ => Err(RequestError::NoSuchKind { op: kind }),
    })
}

fn multi_read(decoder: &mut Decoder<'_>) -> Result<Vec<ReadOp>, RequestError> {
    ops(op::MULTI_READ, decoder, |kind, decoder| {
        let (path, _) = path_and_watch(decoder).of(kind)?;
        match kind {
            op::GET_CHILDREN => Ok(ReadOp::Children(path)),
            op::GET_DATA => Ok(ReadOp::Data(path)),
            _ => Err(RequestError::NoSuchKind { op: kind }),
        }
    })
}
