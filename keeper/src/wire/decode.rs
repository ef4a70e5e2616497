//! How requests are read.

use super::op;
use super::records::AskedAcl;
use super::request::{
    Check, Create, CreateKind, Delete, MultiOp, ReadOp, Request, RequestError, RequestHeader, SetAcl,
    SetData, SetWatches, WatchKind, WatchMode, Write,
};
use crate::jute::{Decoder, JuteError};

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
    Ok(decoder.nullable()?.unwrap_or_default())
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
    let acl = decoder.vector(AskedAcl::decode).of(op)?;
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
    Ok(SetAcl { path: decoder.string()?, acl: decoder.vector(AskedAcl::decode)?, version: decoder.int()? })
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
