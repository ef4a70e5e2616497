//! What clients are sent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::records::{Acl, EventKind, Id, Stat};
use super::{ErrorCode, op, xid};
use crate::jute::Encoder;

/// What a request came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Nothing but the header (`delete`, `ping`, `auth`, `setWatches`, …).
    Empty,
    /// `create`, `sync`: a path.
    Path(Arc<str>),
    /// `create2`, `createContainer`, `createTTL`.
    PathAndStat(Arc<str>, Stat),
    /// `exists`, `setData`, `setACL`.
    Stat(Stat),
    /// `getData`.
    Data(Option<Bytes>, Stat),
    /// `getACL`.
    Acl(Vec<Acl>, Stat),
    /// `getChildren`, `getEphemerals`.
    Names(NameList),
    /// `getChildren2`.
    NamesAndStat(NameList, Stat),
    /// `getAllChildrenNumber`, `addWatch`.
    Number(i32),
    /// `whoAmI`: what is shown of each identity.
    Ids(Vec<Id>),
    /// `multi`, `multiRead`.
    Multi(Vec<OpResult>),
}

/// What one operation of a `multi` came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpResult {
    /// `create`, and also `create2`, `createContainer` and `createTTL` with their own type and a stat.
    Created {
        /// The type that the result is announced with.
        op: i32,
        /// The path, with its number if it is sequential.
        path: Arc<str>,
        /// Its stat, if the type has one.
        stat: Option<Stat>,
    },
    /// `delete`.
    Deleted,
    /// `setData`.
    Set(Stat),
    /// `check`.
    Checked,
    /// `getData`.
    Data(Option<Bytes>, Stat),
    /// `getChildren`.
    Names(NameList),
    /// The operation failed (or, with 0, would have succeeded, had not another failed).
    Error(i32),
}

/// Names or paths, as they are sent: how many, and each as a string.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameList(BytesMut);

impl NameList {
    /// How many bytes it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.raw(&self.0);
    }
}

impl<'a> FromIterator<&'a str> for NameList {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut list = BytesMut::new();
        let mut encoder = Encoder::new(&mut list);
        encoder.int(0);
        let mut count = 0_u32;
        for name in names {
            encoder.string(name);
            count += 1;
        }
        list[..4].copy_from_slice(&count.to_be_bytes());
        Self(list)
    }
}

/// Appends a framed reply to `out`.
pub fn encode_reply(out: &mut BytesMut, xid: i32, zxid: i64, result: &Result<Reply, ErrorCode>) {
    framed(out, |encoder| {
        let error = result.as_ref().err().map_or(0, |code| code.number());
        encoder.int(xid).long(zxid).int(error);
        if let Ok(reply) = result {
            reply.encode(encoder);
        }
    });
}

/// A framed watch event.
#[must_use]
pub fn notification(zxid: i64, kind: EventKind, path: &str) -> Bytes {
    /// `KeeperState.SyncConnected`.
    const CONNECTED: i32 = 3;
    let mut out = BytesMut::with_capacity(path.len() + 32);
    framed(&mut out, |encoder| {
        encoder.int(xid::NOTIFICATION).long(zxid).int(0);
        encoder.int(kind as i32).int(CONNECTED).string(path);
    });
    out.freeze()
}

/// Appends what `write` writes, with its length before it.
pub(crate) fn framed(out: &mut BytesMut, write: impl FnOnce(&mut Encoder<'_>)) {
    let start = out.len();
    let mut encoder = Encoder::new(out);
    encoder.int(0);
    write(&mut encoder);
    let length = u32::try_from(out.len() - start - 4).expect("a packet is not that long");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

impl Reply {
    fn encode(&self, encoder: &mut Encoder<'_>) {
        match self {
            Self::Empty => {}
            Self::Path(path) => {
                encoder.string(path);
            }
            Self::PathAndStat(path, stat) => stat.encode(encoder.string(path)),
            Self::Stat(stat) => stat.encode(encoder),
            Self::Data(data, stat) => stat.encode(encoder.buffer(data.as_deref())),
            Self::Acl(acl, stat) => {
                encoder.length(acl.len());
                acl.iter().for_each(|acl| acl.encode(encoder));
                stat.encode(encoder);
            }
            Self::Names(names) => names.encode(encoder),
            Self::NamesAndStat(names, stat) => {
                names.encode(encoder);
                stat.encode(encoder);
            }
            Self::Number(number) => {
                encoder.int(*number);
            }
            Self::Ids(ids) => {
                encoder.length(ids.len());
                ids.iter().for_each(|id| id.encode(encoder));
            }
            Self::Multi(results) => {
                results.iter().for_each(|result| result.encode(encoder));
                encoder.int(-1).boolean(true).int(-1);
            }
        }
    }
}

impl OpResult {
    fn encode(&self, encoder: &mut Encoder<'_>) {
        let (kind, error) = match self {
            Self::Created { op, .. } => (*op, 0),
            Self::Deleted => (op::DELETE, 0),
            Self::Set(_) => (op::SET_DATA, 0),
            Self::Checked => (op::CHECK, 0),
            Self::Data(..) => (op::GET_DATA, 0),
            Self::Names(_) => (op::GET_CHILDREN, 0),
            Self::Error(code) => (op::ERROR, *code),
        };
        encoder.int(kind).boolean(false).int(error);
        match self {
            Self::Created { path, stat, .. } => {
                encoder.string(path);
                if let Some(stat) = stat {
                    stat.encode(encoder);
                }
            }
            Self::Deleted | Self::Checked => {}
            Self::Set(stat) => stat.encode(encoder),
            Self::Data(data, stat) => stat.encode(encoder.buffer(data.as_deref())),
            Self::Names(names) => names.encode(encoder),
            Self::Error(code) => {
                encoder.int(*code);
            }
        }
    }
}
