//! Operations of a random sequence, and how they are encoded.

use crate::raw::{Entry, body, op};

/// What one step of a sequence is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Requests of one session, sent at once; then all replies are read.
    Requests {
        /// Which session.
        session: usize,
        /// What, each with a number that stays when others are removed.
        requests: Vec<(usize, Request)>,
    },
    /// A session's connection is cut and it goes on over another.
    Reattach {
        /// Which session.
        session: usize,
    },
    /// A session is closed, and another takes its place.
    Replace {
        /// Which session.
        session: usize,
        /// The number of the closing operation.
        number: usize,
    },
}

/// One request. Paths begin with `/r`, in place of which stands a znode of the run's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// `create`, `create2`, `createContainer` and `createTTL`.
    Create { op: i32, path: String, data: Option<Vec<u8>>, acl: Vec<Entry>, flags: i32, ttl: i64 },
    /// `setData`.
    Set { path: String, data: Option<Vec<u8>>, version: i32 },
    /// `setACL`.
    SetAcl { path: String, acl: Vec<Entry>, version: i32 },
    /// What takes a path and a flag that asks for a watch.
    Watched { op: i32, path: String, watch: bool },
    /// What takes a path and a number: a version, a mode or a kind.
    Numbered { op: i32, path: String, number: i32 },
    /// What takes a path.
    Path { op: i32, path: String },
    /// What takes nothing.
    Nothing { op: i32 },
    /// `auth`.
    Auth { scheme: String, auth: Vec<u8> },
    /// `multi` and `multiRead`.
    Multi { op: i32, requests: Vec<Request> },
    /// `setWatches` and `setWatches2`: relative to the state after a step.
    SetWatches { op: i32, since: usize, lists: Vec<Vec<String>> },
}

impl Request {
    /// The operation's number.
    pub(crate) const fn op(&self) -> i32 {
        match self {
            Self::Create { op, .. }
            | Self::Watched { op, .. }
            | Self::Numbered { op, .. }
            | Self::Path { op, .. }
            | Self::Nothing { op }
            | Self::Multi { op, .. }
            | Self::SetWatches { op, .. } => *op,
            Self::Set { .. } => op::SET_DATA,
            Self::SetAcl { .. } => op::SET_ACL,
            Self::Auth { .. } => op::AUTH,
        }
    }

    /// The operations of a multi.
    pub(crate) fn parts(&self) -> Vec<i32> {
        match self {
            Self::Multi { requests, .. } => requests.iter().map(Self::op).collect(),
            _ => Vec::new(),
        }
    }

    /// The body on the wire. `path` says what stands in place of a path, `zxid` what the state after a step is called.
    pub(crate) fn body(&self, path: &impl Fn(&str) -> String, zxid: &impl Fn(usize) -> i64) -> Vec<u8> {
        match self {
            Self::Create { op, path: at, data, acl, flags, ttl } => {
                let at = path(at);
                if *op == op::CREATE_TTL {
                    body::create_ttl(&at, data.as_deref(), acl, *flags, *ttl)
                } else {
                    body::create(&at, data.as_deref(), acl, *flags)
                }
            }
            Self::Set { path: at, data, version } => body::set(&path(at), data.as_deref(), *version),
            Self::SetAcl { path: at, acl, version } => body::set_acl(&path(at), acl, *version),
            Self::Watched { path: at, watch, .. } => body::watched(&path(at), *watch),
            Self::Numbered { path: at, number, .. } => body::numbered(&path(at), *number),
            Self::Path { path: at, .. } => body::path(&path(at)),
            Self::Nothing { .. } => Vec::new(),
            Self::Auth { scheme, auth } => body::auth(scheme, auth),
            Self::Multi { requests, .. } => {
                let parts: Vec<_> = requests.iter().map(|part| (part.op(), part.body(path, zxid))).collect();
                body::multi(&parts)
            }
            Self::SetWatches { since, lists, .. } => {
                let lists: Vec<Vec<String>> =
                    lists.iter().map(|list| list.iter().map(|at| path(at)).collect()).collect();
                body::set_watches(zxid(*since), &lists)
            }
        }
    }

    /// Whether it changes something when it succeeds.
    pub(crate) const fn writes(&self) -> bool {
        matches!(
            self.op(),
            op::CREATE
                | op::CREATE2
                | op::CREATE_CONTAINER
                | op::CREATE_TTL
                | op::DELETE
                | op::SET_DATA
                | op::SET_ACL
                | op::MULTI
                | op::CLOSE_SESSION
        )
    }
}
