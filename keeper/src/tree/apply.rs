//! What a transaction does to the tree.
//!
//! Everything is decided by then. A change whose znode or parent is not there does nothing: that is so only for a change
//! that is applied for the second time.

use std::sync::Arc;

use bytes::Bytes;

use super::Tree;
use super::node::{Children, Node};
use crate::path;
use crate::txn::{Applied, Change, Event, Outcome, Owner, Txn};
use crate::wire::{Acl, EventKind};

/// The transaction that a change belongs to.
#[derive(Clone, Copy)]
struct At {
    zxid: i64,
    session: i64,
    time_ms: i64,
}

impl Tree {
    /// Does what a transaction says.
    ///
    /// # Panics
    /// If it does not come after the last one.
    pub fn apply(&mut self, txn: &Txn) -> Applied {
        assert!(txn.zxid > self.last_zxid, "transaction {} comes after {}", txn.zxid, self.last_zxid);
        let applied = self.redo(txn);
        self.last_zxid = txn.zxid;
        applied
    }

    /// Does what a transaction says, be it again.
    pub(crate) fn redo(&mut self, txn: &Txn) -> Applied {
        let mut events = Vec::new();
        let at = At { zxid: txn.zxid, session: txn.session, time_ms: txn.time_ms };
        let outcome = self.change(&txn.change, at, &mut events);
        Applied { outcome, events }
    }

    fn change(&mut self, change: &Change, at: At, events: &mut Vec<Event>) -> Outcome {
        match change {
            Change::CreateSession { timeout_ms, password } => {
                let session = super::Session { timeout_ms: *timeout_ms, password: *password };
                self.sessions.insert(at.session, session);
                Outcome::Done
            }
            Change::CloseSession { ephemerals } => {
                for path in ephemerals {
                    self.delete(path, at, events);
                }
                self.sessions.remove(&at.session);
                Outcome::Done
            }
            Change::Create { path, data, acl, owner, parent_creations } => {
                self.create(path, data.clone(), acl, *owner, *parent_creations, at, events)
            }
            Change::Delete { path } => {
                self.delete(path, at, events);
                Outcome::Done
            }
            Change::SetData { path, data, version } => {
                self.set_data(path, data.clone(), *version, at, events)
            }
            Change::SetAcl { path, acl, version } => self.set_acl(path, acl, *version),
            Change::Check => Outcome::Done,
            Change::Multi(changes) => {
                Outcome::Multi(changes.iter().map(|change| self.change(change, at, events)).collect())
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "they are the fields of a creation")]
    fn create(
        &mut self,
        path: &Arc<str>,
        data: Option<Bytes>,
        acl: &Arc<[Acl]>,
        owner: Owner,
        parent_creations: i32,
        at: At,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(parent_path) = path::parent(path) else { return Outcome::Done };
        let (key, before) = match self.nodes.get_key_value(path) {
            Some((key, node)) => (Arc::clone(key), Some(Arc::clone(node))),
            None => (Arc::clone(path), None),
        };
        let Some((parent_key, parent)) = self.nodes.get_key_value_mut(parent_path) else {
            return Outcome::Done;
        };
        let parent = Arc::make_mut(parent);
        parent.children.insert(Arc::clone(&key));
        parent.creations = parent_creations;
        parent.pzxid = at.zxid;
        if parent.owner == Owner::Container {
            self.idle_containers.remove(parent_path);
        }
        let (path_of_parent, parent_acl) = (Arc::clone(parent_key), Arc::clone(&parent.acl));
        let node = Node {
            data,
            acl: self.share(acl),
            children: before.as_ref().map_or_else(Children::none, |before| before.children.clone()),
            owner,
            czxid: at.zxid,
            mzxid: at.zxid,
            pzxid: at.zxid,
            ctime: at.time_ms,
            mtime: at.time_ms,
            version: 0,
            aversion: 0,
            creations: 0,
        };
        let (stat, bytes, node_acl) = (node.stat(), node.data_len(), Arc::clone(&node.acl));
        if let Some(before) = &before {
            self.unindex(&key, before);
        }
        self.place(&key, node);
        self.count_stats(path);
        self.account(path, i64::from(before.is_none()), before.map_or(0, |before| before.data_len()), bytes);
        events.push(Event { kind: EventKind::Created, path: Arc::clone(&key), acl: node_acl });
        events.push(Event { kind: EventKind::ChildrenChanged, path: path_of_parent, acl: parent_acl });
        Outcome::Created { path: key, stat }
    }

    fn delete(&mut self, path: &str, at: At, events: &mut Vec<Event>) {
        let Some((key, node)) = self.nodes.remove_with_key(path) else { return };
        self.unindex(&key, &node);
        self.account(path, -1, node.data_len(), 0);
        events.push(Event { kind: EventKind::Deleted, path: key, acl: Arc::clone(&node.acl) });

        let Some(parent_path) = path::parent(path) else { return };
        let Some((parent_key, parent)) = self.nodes.get_key_value_mut(parent_path) else { return };
        let parent = Arc::make_mut(parent);
        parent.children.remove(path);
        parent.pzxid = at.zxid;
        if parent.is_idle_container() {
            self.idle_containers.insert(Arc::clone(parent_key));
        }
        let (path, acl) = (Arc::clone(parent_key), Arc::clone(&parent.acl));
        events.push(Event { kind: EventKind::ChildrenChanged, path, acl });
    }

    fn set_data(
        &mut self,
        path: &str,
        data: Option<Bytes>,
        version: i32,
        at: At,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some((key, node)) = self.nodes.get_key_value_mut(path) else { return Outcome::Done };
        let node = Arc::make_mut(node);
        let (bytes_before, deadline_before) = (node.data_len(), node.deadline());
        node.data = data;
        node.version = version;
        node.mzxid = at.zxid;
        node.mtime = at.time_ms;
        let (stat, bytes) = (node.stat(), node.data_len());
        if let (Some(before), Some(deadline)) = (deadline_before, node.deadline()) {
            self.deadlines.remove(&(before, Arc::clone(key)));
            self.deadlines.insert((deadline, Arc::clone(key)));
        }
        let (key, acl) = (Arc::clone(key), Arc::clone(&node.acl));
        self.data_bytes = self.data_bytes - bytes_before as u64 + bytes as u64;
        self.change_sums(path, bytes_before, bytes);
        self.account(path, 0, bytes_before, bytes);
        events.push(Event { kind: EventKind::DataChanged, path: key, acl });
        Outcome::Stat(stat)
    }

    fn set_acl(&mut self, path: &str, acl: &Arc<[Acl]>, version: i32) -> Outcome {
        let shared = self.share(acl);
        let Some(node) = self.nodes.get_mut(path) else {
            self.release(&shared);
            return Outcome::Done;
        };
        let node = Arc::make_mut(node);
        let before = std::mem::replace(&mut node.acl, shared);
        node.aversion = version;
        let stat = node.stat();
        self.release(&before);
        Outcome::Stat(stat)
    }
}
