//! From a change that is decided to those whom it concerns: the log, the tree, the watches.

use std::collections::btree_set;
use std::sync::Arc;

use bytes::Bytes;

use super::answers::Shape;
use super::connection::{Item, Phase};
use super::{ConnectionId, Keeper};
use crate::acl::permits;
use crate::prepare::Caller;
use crate::txn::{Applied, Change, Event, Outcome, Txn};
use crate::wire::{Acl, ErrorCode, OpResult, Reply, Write, notification, permission};

/// Most containers and TTL znodes that are deleted in one go.
const REAPED_AT_ONCE: usize = 1000;

/// Bytes that watchers are told between two flushes, more or less, before the rest has to wait for the next.
const TOLD_AT_ONCE: usize = 4 << 20;

/// What applying a transaction, and telling one watcher, counts for besides the bytes of events.
const APPLIED_BYTES: usize = 1024;
const TOLD_BYTES: usize = 64;

/// A change on its way, and whom to answer.
#[derive(Debug)]
pub(super) struct Proposal {
    txn: Arc<Txn>,
    asker: Option<Asker>,
}

/// Whom to answer, and how.
#[derive(Debug)]
struct Asker {
    connection: ConnectionId,
    shape: Shape,
}

/// A change that is applied, and that not everybody who watches has been told. Until then nothing is answered: what is
/// answered may reveal the change.
#[derive(Debug)]
pub(super) struct Telling {
    proposal: Proposal,
    outcome: Outcome,
    /// What is still to be told of it.
    events: std::vec::IntoIter<Event>,
    /// What is being told, encoded once for all, and who may know.
    packet: Bytes,
    acl: Arc<[Acl]>,
    /// Whom that is still to be told.
    watchers: btree_set::IntoIter<ConnectionId>,
}

impl Keeper {
    /// Gives a change its place in the order.
    pub(super) fn propose(&mut self, session: i64, change: Change) -> i64 {
        self.propose_for(session, change, None)
    }

    fn propose_for(&mut self, session: i64, change: Change, asker: Option<Asker>) -> i64 {
        self.last_proposed += 1;
        let zxid = self.last_proposed;
        let txn = Arc::new(Txn { zxid, session, time_ms: self.now.wall_ms, change });
        self.log.push(Arc::clone(&txn));
        self.proposed.push_back(Proposal { txn, asker });
        zxid
    }

    /// A client wants to change something.
    pub(super) fn write(&mut self, id: ConnectionId, session: i64, write: Write) -> Item {
        if !self.sessions.is_open(session) {
            return self.after(Err(ErrorCode::SessionExpired));
        }
        let shape = Shape::of(&write);
        let ids = self.connections.get(&id).map(|connection| connection.ids.as_slice()).unwrap_or_default();
        let caller = Caller { session, ids, has_room: !self.disk_full };
        let zxid = self.last_proposed + 1;
        match self.pending.prepare(&self.tree, write, &caller, zxid, self.now.wall_ms) {
            Ok(change) => {
                let asker = Asker { connection: id, shape };
                let zxid = self.propose_for(session, change, Some(asker));
                Item::Write { zxid, reply: None }
            }
            // A failed `multi` is answered with success in the header, and with each operation's part in it, unless it was
            // not understood.
            Err(rejected) if !rejected.results.is_empty() => {
                let results = rejected.results.into_iter().map(OpResult::Error).collect();
                self.after(Ok(Reply::Multi(results)))
            }
            Err(rejected) => self.after(Err(rejected.code)),
        }
    }

    /// An answer that may depend on changes which are not durable yet.
    pub(super) const fn after(&self, result: Result<Reply, ErrorCode>) -> Item {
        Item::After { zxid: self.last_proposed, result, last: false }
    }

    /// Begins the end of a session; returns its transaction, unless it is ending already.
    pub(super) fn end_session(&mut self, session: i64, connection: Option<ConnectionId>) -> Option<i64> {
        if !self.sessions.close(session) {
            return None;
        }
        let zxid = self.last_proposed + 1;
        let mut changes = self.pending.close_session(&self.tree, session, zxid);
        let end = changes.pop().expect("the last change ends the session");
        for change in changes {
            self.propose(session, change);
        }
        let asker = connection.map(|connection| Asker { connection, shape: Shape::Plain });
        Some(self.propose_for(session, end, asker))
    }

    /// Deletes containers without children and TTL znodes whose time is up.
    pub(super) fn reap(&mut self) {
        for path in self.tree.idle(self.now.wall_ms, REAPED_AT_ONCE) {
            let zxid = self.last_proposed + 1;
            if let Some(change) = self.pending.reap(&self.tree, &path, zxid, self.now.wall_ms) {
                self.propose(0, change);
            }
        }
    }

    /// The log holds everything up to `zxid`: applies it, tells who watches, answers who asked. What is more than one turn's
    /// work is left: see [`Self::is_behind`].
    pub(super) fn durable(&mut self, zxid: i64) {
        self.durable = self.durable.max(zxid);
        while self.told < TOLD_AT_ONCE
            && let Some(mut telling) = self.telling.take().or_else(|| self.apply())
        {
            if self.tell(&mut telling) {
                self.settle(telling);
            } else {
                self.telling = Some(telling);
            }
        }
        self.pending.forget(self.tree.last_zxid());
        if self.proposed.is_empty() {
            debug_assert_eq!(self.tree.last_zxid(), self.last_proposed, "everything proposed is applied");
        }
    }

    /// Whether something that is durable is not applied, or not told to all who watch, since that would have been too much at
    /// once. Then, as soon as the effects of the last turn are carried out, `Input::Durable` is to come again (with the
    /// same zxid if there is no other), and until there is nothing left no more should be taken in.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let is_durable = |proposal: &Proposal| proposal.txn.zxid <= self.durable;
        self.telling.is_some() || self.proposed.front().is_some_and(is_durable)
    }

    /// Applies the next transaction, if it is durable.
    fn apply(&mut self) -> Option<Telling> {
        let durable = self.durable;
        let proposal = self.proposed.pop_front_if(|proposal| proposal.txn.zxid <= durable)?;
        let Applied { outcome, events } = self.tree.apply(&proposal.txn);
        self.told += APPLIED_BYTES;
        Some(Telling {
            proposal,
            outcome,
            events: events.into_iter(),
            packet: Bytes::new(),
            acl: Arc::default(),
            watchers: btree_set::IntoIter::default(),
        })
    }

    /// Tells those who watch, as many as one turn may. Whether all of them know.
    fn tell(&mut self, telling: &mut Telling) -> bool {
        loop {
            for watcher in &mut telling.watchers {
                let Some(connection) = self.connections.get_mut(&watcher) else { continue };
                if connection.phase != Phase::Leaving
                    && permits(&telling.acl, permission::READ, &connection.ids)
                {
                    connection.notify(&telling.packet);
                    connection.mark(watcher, &mut self.dirty);
                }
                self.told += telling.packet.len() + TOLD_BYTES;
                if self.told >= TOLD_AT_ONCE {
                    return false;
                }
            }
            let Some(event) = telling.events.next() else { return true };
            let watchers = self.watches.fire(&event);
            if !watchers.is_empty() {
                telling.packet = notification(telling.proposal.txn.zxid, event.kind, &event.path);
                telling.acl = event.acl;
                telling.watchers = watchers.into_iter();
            }
        }
    }

    /// All who watch have been told: answers who asked, and who waited for it.
    fn settle(&mut self, Telling { proposal: Proposal { txn, asker }, outcome, .. }: Telling) {
        let ended = match txn.change {
            Change::CloseSession { .. } => self.sessions.remove(txn.session),
            _ => None,
        };
        let asked_by = asker.as_ref().map(|asker| asker.connection);
        if let Some(Asker { connection, shape }) = asker {
            self.resolve(connection, txn.zxid, shape.reply(outcome));
            self.drain(connection);
        } else if let Change::CreateSession { .. } = txn.change
            && let Some(connection) = self.sessions.connection(txn.session)
        {
            self.drain(connection);
        }
        self.release(txn.zxid);
        // Whoever asked for the end is answered first, perhaps after much else.
        if let Some(connection) = ended
            && asked_by != Some(connection)
        {
            self.leave(connection);
        }
    }
}
