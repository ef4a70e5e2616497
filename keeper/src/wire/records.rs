//! Records that requests and replies are made of.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::jute::{Decoder, Encoder, JuteError};

/// Who somebody is, in one scheme.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Id {
    /// `world`, `auth`, `digest`, `ip`, `x509` or `super`.
    pub scheme: String,
    /// What the scheme says of them, such as `user:digest`.
    pub id: String,
}

/// What somebody may do with a znode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Acl {
    /// A sum of [`permission`]s.
    pub permissions: i32,
    /// Who.
    pub id: Id,
}

/// An entry of a list as a client asks for it; either part of who it means may be null.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AskedAcl {
    /// A sum of [`permission`]s.
    pub permissions: i32,
    /// A scheme, as in [`Id::scheme`], or `auth`: whoever asks.
    pub scheme: Option<String>,
    /// As in [`Id::id`].
    pub id: Option<String>,
}

/// The bits of [`Acl::permissions`].
pub mod permission {
    /// Read data and list children.
    pub const READ: i32 = 1;
    /// Set data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the ACL.
    pub const ADMIN: i32 = 16;
    /// Everything.
    pub const ALL: i32 = 31;
}

impl Id {
    /// Makes one.
    #[must_use]
    pub fn new(scheme: impl Into<String>, id: impl Into<String>) -> Self {
        Self { scheme: scheme.into(), id: id.into() }
    }

    /// Everybody.
    #[must_use]
    pub fn anyone() -> Self {
        Self::new("world", "anyone")
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.string(&self.scheme).string(&self.id);
    }
}

impl Acl {
    /// Everybody may do everything.
    #[must_use]
    pub fn open() -> Vec<Self> {
        vec![Self { permissions: permission::ALL, id: Id::anyone() }]
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.int(self.permissions);
        self.id.encode(encoder);
    }
}

impl AskedAcl {
    /// Everybody may do everything.
    #[must_use]
    pub fn open() -> Vec<Self> {
        Acl::open().into_iter().map(Into::into).collect()
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, JuteError> {
        Ok(Self { permissions: decoder.int()?, scheme: decoder.nullable()?, id: decoder.nullable()? })
    }
}

impl From<Acl> for AskedAcl {
    fn from(Acl { permissions, id: Id { scheme, id } }: Acl) -> Self {
        Self { permissions, scheme: Some(scheme), id: Some(id) }
    }
}

/// What is told of a znode besides its data.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stat {
    /// The transaction that created it.
    pub czxid: i64,
    /// The transaction that last set its data.
    pub mzxid: i64,
    /// When it was created, in milliseconds since 1970.
    pub ctime: i64,
    /// When its data was last set, in milliseconds since 1970.
    pub mtime: i64,
    /// How many times its data was set.
    pub version: i32,
    /// How many times its children changed.
    pub cversion: i32,
    /// How many times its ACL was set.
    pub aversion: i32,
    /// The session that an ephemeral one belongs to; 0 for others, containers and TTL znodes among them.
    pub ephemeral_owner: i64,
    /// Bytes of data.
    pub data_length: i32,
    /// Its children.
    pub num_children: i32,
    /// The transaction that last changed its children.
    pub pzxid: i64,
}

impl Stat {
    pub(crate) fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder
            .long(self.czxid)
            .long(self.mzxid)
            .long(self.ctime)
            .long(self.mtime)
            .int(self.version)
            .int(self.cversion)
            .int(self.aversion)
            .long(self.ephemeral_owner)
            .int(self.data_length)
            .int(self.num_children)
            .long(self.pzxid);
    }
}

/// What happened to a znode, as watchers are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i32)]
pub enum EventKind {
    /// It was created.
    Created = 1,
    /// It was deleted.
    Deleted = 2,
    /// Its data was set.
    DataChanged = 3,
    /// A child was created or deleted.
    ChildrenChanged = 4,
}

/// What a client says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectRequest {
    /// Always 0.
    pub protocol_version: i32,
    /// The last transaction that the client has seen.
    pub last_zxid_seen: i64,
    /// The session timeout that it would like, in milliseconds.
    pub timeout_ms: i32,
    /// The session that it goes on with, or 0 for a new one.
    pub session: i64,
    /// That session's password.
    pub password: Bytes,
    /// Whether it is content with a server that cannot write. Old clients do not send this byte, and then must not be sent
    /// it either.
    pub read_only: Option<bool>,
}

impl ConnectRequest {
    /// Reads it.
    ///
    /// # Errors
    /// It is something else.
    pub fn decode(frame: &[u8]) -> Result<Self, JuteError> {
        let mut decoder = Decoder::new(frame);
        Ok(Self {
            protocol_version: decoder.int()?,
            last_zxid_seen: decoder.long()?,
            timeout_ms: decoder.int()?,
            session: decoder.long()?,
            password: decoder.buffer()?.unwrap_or_default(),
            read_only: if decoder.is_empty() { None } else { Some(decoder.boolean()?) },
        })
    }
}

/// The answer to a [`ConnectRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectResponse {
    /// The negotiated session timeout in milliseconds; 0: the session is over.
    pub timeout_ms: i32,
    /// The session; 0 with a timeout of 0.
    pub session: i64,
    /// Its password.
    pub password: [u8; 16],
    /// Whether to send the byte that says that this server can write: only if the client has sent its own.
    pub read_only: bool,
}

impl ConnectResponse {
    /// Writes it, without the frame's length.
    pub fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.int(0).int(self.timeout_ms).long(self.session).buffer(Some(&self.password));
        if self.read_only {
            encoder.boolean(false);
        }
    }
}
