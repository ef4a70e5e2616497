//! A znode.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdSet;
use imbl::ordset;

use crate::path;
use crate::txn::Owner;
use crate::wire::{Acl, Stat};

/// A list of children that is longer than this is kept as a tree of its own.
const MANY: usize = 32;

/// A znode, without its path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub(super) data: Option<Bytes>,
    /// Shared with all znodes that have an equal one.
    pub(super) acl: Arc<[Acl]>,
    pub(super) children: Children,
    pub(super) owner: Owner,
    pub(super) czxid: i64,
    pub(super) mzxid: i64,
    pub(super) pzxid: i64,
    pub(super) ctime: i64,
    pub(super) mtime: i64,
    pub(super) version: i32,
    pub(super) aversion: i32,
    pub(super) creations: i32,
}

impl Node {
    /// What it holds; null is not the same as empty.
    #[must_use]
    pub const fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// Who may do what with it.
    #[must_use]
    pub fn acl(&self) -> &[Acl] {
        &self.acl
    }

    pub(crate) const fn shared_acl(&self) -> &Arc<[Acl]> {
        &self.acl
    }

    /// What it is.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// How many children it has had, which its next sequential child is named after.
    #[must_use]
    pub const fn creations(&self) -> i32 {
        self.creations
    }

    /// The names of its children, in order.
    #[must_use]
    pub fn children(&self) -> Names<'_> {
        self.children.names()
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn data_len(&self) -> usize {
        self.data.as_ref().map_or(0, Bytes::len)
    }

    /// What is told of it. Nothing there tells containers and TTL znodes from others.
    ///
    /// # Panics
    /// If it has more children or bytes than fit into 31 bits, which no znode has.
    #[must_use]
    pub fn stat(&self) -> Stat {
        let num_children = i32::try_from(self.children.len()).expect("children fit into 31 bits");
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            // Each creation and each deletion counts, and what was created and is not there was deleted.
            cversion: self.creations.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner: match self.owner {
                Owner::Session(session) => session,
                Owner::Nobody | Owner::Container | Owner::Ttl(_) => 0,
            },
            data_length: i32::try_from(self.data_len()).expect("data fits into 31 bits"),
            num_children,
            pzxid: self.pzxid,
        }
    }

    /// Whether it is a container that had children and has none.
    pub(super) fn is_idle_container(&self) -> bool {
        self.owner == Owner::Container && self.creations != 0 && self.children.len() == 0
    }

    /// When its time is up, if it is a TTL znode.
    pub(super) const fn deadline(&self) -> Option<i64> {
        match self.owner {
            Owner::Ttl(ttl) => Some(self.mtime.saturating_add(ttl)),
            Owner::Nobody | Owner::Session(_) | Owner::Container => None,
        }
    }
}

/// The paths of a znode's children, in order. They are the very strings that the tree finds the children by.
///
/// Most znodes have few or none: those take the least memory as a plain list. A long list would be copied as a whole when
/// one child changes while a snapshot holds on to it, and so is a persistent set.
#[derive(Clone, Debug)]
pub(super) enum Children {
    Few(Vec<Arc<str>>),
    Many(OrdSet<Arc<str>>),
}

impl Children {
    pub(super) const fn none() -> Self {
        Self::Few(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(paths) => paths.len(),
            Self::Many(paths) => paths.len(),
        }
    }

    pub(super) fn insert(&mut self, path: Arc<str>) {
        match self {
            Self::Few(paths) => {
                let Err(index) = paths.binary_search(&path) else { return };
                if paths.len() < MANY {
                    paths.insert(index, path);
                } else {
                    let mut many: OrdSet<Arc<str>> = paths.drain(..).collect();
                    many.insert(path);
                    *self = Self::Many(many);
                }
            }
            Self::Many(paths) => {
                paths.insert(path);
            }
        }
    }

    pub(super) fn remove(&mut self, path: &str) {
        match self {
            Self::Few(paths) => {
                if let Ok(index) = paths.binary_search_by(|child| (**child).cmp(path)) {
                    paths.remove(index);
                }
            }
            Self::Many(paths) => {
                paths.remove(path);
                // Half as many as make it a set, so that it does not change at every turn.
                if paths.len() <= MANY / 2 {
                    *self = Self::Few(paths.iter().cloned().collect());
                }
            }
        }
    }

    pub(super) fn names(&self) -> Names<'_> {
        match self {
            Self::Few(paths) => Names(Paths::Few(paths.iter())),
            Self::Many(paths) => Names(Paths::Many { left: paths.len(), iter: paths.iter() }),
        }
    }
}

impl PartialEq for Children {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.names().eq(other.names())
    }
}

impl Eq for Children {}

/// The names of a znode's children, in order.
#[derive(Clone)]
pub struct Names<'a>(Paths<'a>);

#[derive(Clone)]
enum Paths<'a> {
    Few(std::slice::Iter<'a, Arc<str>>),
    Many { left: usize, iter: ordset::Iter<'a, Arc<str>, imbl::shared_ptr::DefaultSharedPtr> },
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let child = match &mut self.0 {
            Paths::Few(iter) => iter.next()?,
            Paths::Many { left, iter } => {
                let child = iter.next()?;
                *left -= 1;
                child
            }
        };
        Some(path::name(child))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Paths::Few(iter) => iter.len(),
            Paths::Many { left, .. } => *left,
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Names<'_> {}
