//! The state of the server: znodes and sessions, in memory.
//!
//! [`Tree::clone`] takes no time, however large the tree is: both share what neither changes. That is how a snapshot is
//! taken while the server goes on.
//!
//! Znodes are found by their whole path, in one ordered map: everything below a znode is one range of it.

mod apply;
mod idle;
mod node;
mod quota;
mod snapshot;
mod sums;

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

pub use node::{Names, Node};
pub use snapshot::DecodeError;

use self::sums::{Sum, Sums};
use crate::path;
use crate::txn::Owner;
use crate::wire::{Acl, Id, permission};

/// All znodes and sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    nodes: OrdMap<Arc<str>, Arc<Node>>,
    sessions: OrdMap<i64, Session>,
    /// The owner and the path of each ephemeral znode.
    ephemerals: OrdSet<(i64, Arc<str>)>,
    /// Containers that had children and have none.
    idle_containers: OrdSet<Arc<str>>,
    /// When the time of each TTL znode is up, and its path.
    deadlines: OrdSet<(i64, Arc<str>)>,
    /// Every ACL that some znode has, and how many have it.
    acls: OrdMap<Arc<[Acl]>, u64>,
    /// The roots of what quotas are set on.
    quotas: OrdSet<Arc<str>>,
    sums: Sums,
    /// Bytes of all paths and data.
    data_bytes: u64,
    last_zxid: i64,
    /// An empty string: where the ranges of `ephemerals` begin.
    nothing: Arc<str>,
}

/// A session, as it is kept beyond a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// Its timeout, in milliseconds.
    pub timeout_ms: i32,
    /// What a client has to know to go on with it.
    pub password: [u8; 16],
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// A tree of those znodes that are always there.
    #[must_use]
    pub fn new() -> Self {
        let mut tree = Self::empty();
        for path in [path::ROOT, path::SYSTEM, path::QUOTA, path::CONFIG] {
            tree.plant(path);
        }
        tree
    }

    fn empty() -> Self {
        Self {
            nodes: OrdMap::new(),
            sessions: OrdMap::new(),
            ephemerals: OrdSet::new(),
            idle_containers: OrdSet::new(),
            deadlines: OrdSet::new(),
            acls: OrdMap::new(),
            quotas: OrdSet::new(),
            sums: Sums::new(),
            data_bytes: 0,
            last_zxid: 0,
            nothing: Arc::from(""),
        }
    }

    /// Adds a znode that is there from the beginning. None of them counts as a creation: a new server's root shows a
    /// `cversion` of -1.
    fn plant(&mut self, path: &str) {
        let (acl, aversion) = if path == path::CONFIG {
            (vec![Acl { permissions: permission::READ, id: Id::anyone() }], -1)
        } else {
            (Acl::open(), 0)
        };
        let node = Node {
            data: Some(Bytes::new()),
            acl: self.share(&acl.into()),
            children: node::Children::none(),
            owner: Owner::Nobody,
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            aversion,
            creations: 0,
        };
        let key: Arc<str> = Arc::from(path);
        if let Some(parent) = path::parent(path).and_then(|parent| self.nodes.get_mut(parent)) {
            Arc::make_mut(parent).children.insert(Arc::clone(&key));
        }
        self.place(&key, node);
    }

    /// A znode. The empty path is the root's other name, as in ZooKeeper.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        let path = if path.is_empty() { path::ROOT } else { path };
        self.nodes.get(path).map(|node| &**node)
    }

    /// A znode and its path, shared.
    pub(crate) fn entry(&self, path: &str) -> Option<(&Arc<str>, &Node)> {
        self.nodes.get_key_value(path).map(|(path, node)| (path, &**node))
    }

    /// The last transaction that has been applied; 0: none.
    #[must_use]
    pub const fn last_zxid(&self) -> i64 {
        self.last_zxid
    }

    /// A session that has begun and has not ended.
    #[must_use]
    pub fn session(&self, id: i64) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// All sessions, by their ids.
    pub fn sessions(&self) -> impl Iterator<Item = (i64, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// The paths of a session's ephemeral znodes, in order.
    pub fn ephemerals_of(&self, session: i64) -> impl Iterator<Item = &str> {
        self.shared_ephemerals_of(session).map(|path| &**path)
    }

    pub(crate) fn shared_ephemerals_of(&self, session: i64) -> impl Iterator<Item = &Arc<str>> {
        self.ephemerals
            .range((session, Arc::clone(&self.nothing))..)
            .take_while(move |(owner, _)| *owner == session)
            .map(|(_, path)| path)
    }

    /// How many znodes there are. (ZooKeeper's `znode_count` is one more: it counts the root under both of its names.)
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many ephemeral znodes there are.
    #[must_use]
    pub fn ephemerals_len(&self) -> usize {
        self.ephemerals.len()
    }

    /// How many bytes the paths and the data of all znodes have.
    #[must_use]
    pub const fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// How many znodes are below a path, at any depth.
    #[must_use]
    pub fn all_children_number(&self, path: &str) -> usize {
        if matches!(path, "" | path::ROOT) { self.len() - 1 } else { self.sum_below(path).znodes }
    }

    /// The ACL, shared with all znodes that have an equal one. Each call is to have its [`Self::release`].
    fn share(&mut self, acl: &Arc<[Acl]>) -> Arc<[Acl]> {
        if let Some((shared, users)) = self.acls.get_key_value_mut(acl) {
            *users += 1;
            return Arc::clone(shared);
        }
        self.acls.insert(Arc::clone(acl), 1);
        Arc::clone(acl)
    }

    fn release(&mut self, acl: &[Acl]) {
        let users = self.acls.get_mut(acl).expect("an ACL that a znode has is known");
        *users -= 1;
        if *users == 0 {
            self.acls.remove(acl);
        }
    }

    /// Puts a znode where none is, and remembers what is told of it apart from itself.
    fn place(&mut self, path: &Arc<str>, node: Node) {
        self.index(path, &node);
        let sum = Sum::of(&node);
        self.nodes.insert(Arc::clone(path), Arc::new(node));
        self.add_to_sums(path, sum);
    }

    /// Remembers what is told of a znode apart from itself.
    fn index(&mut self, path: &Arc<str>, node: &Node) {
        self.data_bytes += bytes_of(path, node);
        if let Owner::Session(session) = node.owner {
            self.ephemerals.insert((session, Arc::clone(path)));
        }
        if let Some(deadline) = node.deadline() {
            self.deadlines.insert((deadline, Arc::clone(path)));
        }
        if node.is_idle_container() {
            self.idle_containers.insert(Arc::clone(path));
        }
        if let Some(root) = quota::root_of_limits(path) {
            self.quotas.insert(Arc::from(root));
        }
    }

    /// Forgets what is told of a znode apart from itself.
    fn unindex(&mut self, path: &Arc<str>, node: &Node) {
        self.take_from_sums(path, Sum::of(node));
        self.data_bytes -= bytes_of(path, node);
        self.release(&node.acl);
        if let Owner::Session(session) = node.owner {
            self.ephemerals.remove(&(session, Arc::clone(path)));
        }
        if let Some(deadline) = node.deadline() {
            self.deadlines.remove(&(deadline, Arc::clone(path)));
        }
        self.idle_containers.remove(path);
        if let Some(root) = quota::root_of_limits(path) {
            self.quotas.remove(root);
        }
    }
}

fn bytes_of(path: &str, node: &Node) -> u64 {
    (path.len() + node.data_len()) as u64
}
