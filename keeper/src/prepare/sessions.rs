//! Changes that the server itself makes: sessions end, and znodes that nobody needs go.

use std::sync::Arc;

use super::Pending;
use super::pending::Created;
use crate::path;
use crate::tree::Tree;
use crate::txn::{Change, Owner};

/// Most bytes of paths that are deleted in one transaction when a session ends: below what the log takes in one piece.
const CLOSED_AT_ONCE: usize = 1 << 20;

/// What stands before each path in the log, at most.
const BEFORE_PATH: usize = 6;

impl Pending {
    /// Ends a session, and deletes its ephemeral znodes, those that it is only about to have included. From then on
    /// nothing is accepted from it.
    ///
    /// Returns the changes for the transactions from `zxid` on. The last one ends the session; before it come others only if
    /// the znodes' paths are too much for one transaction.
    pub fn close_session(&mut self, tree: &Tree, session: i64, mut zxid: i64) -> Vec<Change> {
        self.check_order(tree, zxid);
        let (applied, pending) = self.ephemerals_of(tree, session);
        let (mut changes, mut ephemerals, mut bytes) = (Vec::new(), Vec::new(), 0);
        for path in in_order(applied, pending) {
            if bytes + path.len() + BEFORE_PATH > CLOSED_AT_ONCE && !ephemerals.is_empty() {
                let delete = |path| Change::Delete { path };
                changes.push(Change::Multi(ephemerals.drain(..).map(delete).collect()));
                zxid += 1;
                bytes = 0;
            }
            bytes += path.len() + BEFORE_PATH;
            ephemerals.push(Arc::clone(&path));
            let parent = path::parent(&path).and_then(|parent| self.look(tree, parent));
            self.put_deleted(zxid, parent.expect("what is there has a parent"), path);
        }
        self.close(session, zxid);
        changes.push(Change::CloseSession { ephemerals });
        changes
    }

    /// Deletes a container that had children and has none, or a TTL znode without children that nobody has set for longer
    /// than its time to live; `None`: the znode is neither, after all that is pending.
    pub fn reap(&mut self, tree: &Tree, path: &str, zxid: i64, now_ms: i64) -> Option<Change> {
        self.check_order(tree, zxid);
        let (key, state) = self.look(tree, path)?;
        let is_due = match state.owner {
            Owner::Container => state.creations != 0,
            Owner::Ttl(ttl) => state.mtime.saturating_add(ttl) < now_ms,
            Owner::Nobody | Owner::Session(_) => false,
        };
        if !is_due || state.children > 0 {
            return None;
        }
        let parent = path::parent(path).and_then(|parent| self.look(tree, parent));
        self.put_deleted(zxid, parent.expect("what is there has a parent"), Arc::clone(&key));
        Some(Change::Delete { path: key })
    }
}

/// The order in which ZooKeeper deletes a session's znodes, which whoever watches several of them sees: that of a Java
/// `HashSet`, which it collects them in.
fn in_order(applied: Vec<Created<'_>>, pending: Vec<Created<'_>>) -> Vec<Arc<str>> {
    // A copy of a set has as many buckets as its elements need, and a new set has 16; both double when three quarters are
    // not enough.
    let copied = match applied.len() {
        0 => 16,
        length => (length * 4 / 3 + 1).next_power_of_two(),
    };
    let length = applied.len() + pending.len();
    let buckets = std::iter::successors(Some(copied), |buckets| Some(buckets * 2))
        .find(|buckets| length <= buckets * 3 / 4)
        .unwrap_or(copied);
    let mut paths: Vec<_> = applied
        .into_iter()
        .map(|(zxid, path)| (bucket(path, buckets), false, zxid, path))
        .chain(pending.into_iter().map(|(zxid, path)| (bucket(path, buckets), true, zxid, path)))
        .collect();
    paths.sort();
    paths.into_iter().map(|(_, _, _, path)| Arc::clone(path)).collect()
}

/// Where a Java `HashMap` of so many buckets, a power of two, puts a string.
fn bucket(path: &str, buckets: usize) -> usize {
    let hash = path.encode_utf16().fold(0_u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    (hash ^ (hash >> 16)) as usize & (buckets - 1)
}
