//! From a change that is decided to its answer: the log, the tree, the watches.

use std::sync::Arc;

use super::connection::{Item, Phase, Queued};
use super::{ConnectionId, Keeper};
use crate::acl::permits;
use crate::prepare::Caller;
use crate::txn::{Change, Outcome, Txn};
use crate::wire::{
    Create, CreateKind, ErrorCode, MultiOp, OpResult, Reply, Write, encode_notification, op, permission,
};

/// Most containers and TTL znodes that are deleted in one go.
const REAPED_AT_ONCE: usize = 1000;

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

/// How what a change came to is told.
#[derive(Debug)]
enum Shape {
    /// The path that was created.
    Path,
    /// The path and its stat.
    PathAndStat,
    /// A stat, if there is one; nothing otherwise.
    Plain,
    /// The types that the results of a `multi` are announced with.
    Multi(Vec<i32>),
}

impl Shape {
    fn of(write: &Write) -> Self {
        match write {
            Write::Create(Create { with_stat: false, .. }) => Self::Path,
            Write::Create(Create { with_stat: true, .. }) => Self::PathAndStat,
            Write::Delete(_) | Write::SetData(_) | Write::SetAcl(_) => Self::Plain,
            Write::Multi(ops) => Self::Multi(ops.iter().map(result_type).collect()),
        }
    }

    fn reply(&self, outcome: Outcome) -> Reply {
        match (self, outcome) {
            (Self::Path, Outcome::Created { path, .. }) => Reply::Path(path),
            (Self::PathAndStat, Outcome::Created { path, stat }) => Reply::PathAndStat(path, stat),
            (Self::Multi(types), Outcome::Multi(outcomes)) => {
                Reply::Multi(types.iter().zip(outcomes).map(|(&op, outcome)| result(op, outcome)).collect())
            }
            (_, Outcome::Stat(stat)) => Reply::Stat(stat),
            (_, Outcome::Done | Outcome::Created { .. } | Outcome::Multi(_)) => Reply::Empty,
        }
    }
}

/// The type that an operation's result is announced with. As in ZooKeeper 3.8, `create2` is announced as a plain create,
/// whose result is the path alone, where 3.9 adds the stat: clients of both understand the former. Containers and TTL
/// znodes are announced as `create2`, with their stat, by both.
const fn result_type(multi_op: &MultiOp) -> i32 {
    match multi_op {
        MultiOp::Create(Create { kind: CreateKind::Container | CreateKind::Ttl(_), .. }) => op::CREATE2,
        MultiOp::Create(_) => op::CREATE,
        MultiOp::Delete(_) => op::DELETE,
        MultiOp::SetData(_) => op::SET_DATA,
        MultiOp::Check(_) => op::CHECK,
    }
}

/// The transaction that the header of a reply names: the last one, but for replies that ZooKeeper gives ahead of its request
/// chain, which knows no transactions.
const fn shown_zxid(op: i32, result: &Result<Reply, ErrorCode>, applied: i64) -> i64 {
    match (op, result) {
        (op::AUTH, _) => 0,
        (_, Err(ErrorCode::Unimplemented)) => -1,
        _ => applied,
    }
}

fn result(op: i32, outcome: Outcome) -> OpResult {
    match outcome {
        Outcome::Created { path, stat } => {
            OpResult::Created { op, path, stat: (op == op::CREATE2).then_some(stat) }
        }
        Outcome::Stat(stat) => OpResult::Set(stat),
        Outcome::Done | Outcome::Multi(_) if op == op::CHECK => OpResult::Checked,
        Outcome::Done | Outcome::Multi(_) => OpResult::Deleted,
    }
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
        let caller = Caller { session, ids };
        let zxid = self.last_proposed + 1;
        match self.pending.prepare(&self.tree, write, &caller, zxid, self.now.wall_ms) {
            Ok(change) => {
                let asker = Asker { connection: id, shape };
                let zxid = self.propose_for(session, change, Some(asker));
                Item::Write { zxid, reply: None }
            }
            // A failed `multi` is answered with success in the header, and with each operation's part in it.
            Err(rejected) if matches!(shape, Shape::Multi(_)) => {
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

    /// The log holds everything up to `zxid`: apply it, tell who watches, answer who asked.
    pub(super) fn durable(&mut self, zxid: i64) {
        while self.proposed.front().is_some_and(|proposal| proposal.txn.zxid <= zxid) {
            let Some(proposal) = self.proposed.pop_front() else { return };
            self.apply(proposal);
        }
        self.pending.forget(self.tree.last_zxid());
        if self.proposed.is_empty() {
            // What waits for nothing but the order of all changes waits no longer.
            debug_assert_eq!(self.tree.last_zxid(), self.last_proposed, "everything proposed is applied");
        }
    }

    fn apply(&mut self, Proposal { txn, asker }: Proposal) {
        let applied = self.tree.apply(&txn);
        for event in &applied.events {
            for watcher in self.watches.fire(event) {
                let Some(connection) = self.connections.get_mut(&watcher) else { continue };
                if !permits(&event.acl, permission::READ, &connection.ids) {
                    continue;
                }
                connection.statistics.sent += 1;
                encode_notification(&mut connection.out, txn.zxid, event.kind, &event.path);
                self.dirty.insert(watcher);
            }
        }
        let ended = match txn.change {
            Change::CloseSession { .. } => self.sessions.remove(txn.session),
            _ => None,
        };
        let asked_by = asker.as_ref().map(|asker| asker.connection);
        if let Some(Asker { connection, shape }) = asker {
            self.resolve(connection, txn.zxid, shape.reply(applied.outcome));
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

    /// Puts a change's reply in its place in the queue of whoever asked.
    fn resolve(&mut self, id: ConnectionId, done: i64, result: Reply) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let waiting = connection.queue.iter_mut().find_map(|queued| match &mut queued.item {
            Item::Write { zxid, reply } if *zxid == done => Some(reply),
            _ => None,
        });
        if let Some(reply) = waiting {
            *reply = Some(result);
        }
    }

    /// Puts something at the end of a connection's queue, and answers it if its turn has come.
    pub(super) fn enqueue(&mut self, id: ConnectionId, queued: Queued) {
        let applied = self.tree.last_zxid();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Item::After { zxid, .. } = queued.item
            && zxid > applied
        {
            // Nothing of its own tells it when to go on.
            self.waiting.entry(zxid).or_default().push(id);
        }
        connection.push(queued);
        if connection.queue.len() == 1 {
            self.drain(id);
        }
    }

    /// Lets those go on who only waited for this transaction.
    fn release(&mut self, zxid: i64) {
        for id in self.waiting.remove(&zxid).unwrap_or_default() {
            self.drain(id);
        }
    }

    /// Answers what a connection has asked, in order, as far as it can be answered now.
    pub(super) fn drain(&mut self, id: ConnectionId) {
        loop {
            let applied = self.tree.last_zxid();
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if connection.phase == Phase::Leaving {
                return;
            }
            let is_ready = connection.queue.front().is_some_and(|queued| match &queued.item {
                Item::Connect { zxid, .. } | Item::After { zxid, .. } => *zxid <= applied,
                Item::Write { reply, .. } => reply.is_some(),
                Item::Read(_) => true,
            });
            if !is_ready {
                return;
            }
            if connection.is_full() {
                self.full.insert(id);
                return;
            }
            let Some(queued) = connection.pop() else { return };
            self.dirty.insert(id);
            self.answer(id, queued);
        }
    }

    fn answer(&mut self, id: ConnectionId, mut queued: Queued) {
        let applied = self.tree.last_zxid();
        let item = std::mem::replace(&mut queued.item, Item::Read(crate::wire::Request::Ping));
        let (zxid, result, last) = match item {
            Item::Connect { response, .. } => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.connect_reply(&response);
                }
                return;
            }
            Item::Write { zxid, reply } => {
                (zxid, Ok(reply.unwrap_or(Reply::Empty)), queued.op == op::CLOSE_SESSION)
            }
            Item::After { result, last, .. } => (shown_zxid(queued.op, &result, applied), result, last),
            Item::Read(request) => (applied, self.read(id, &request), false),
        };
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.reply(queued.xid, zxid, &result);
        let latency_ms = connection.answered(&queued, zxid, now);
        self.latency.add(latency_ms);
        if last {
            self.leave(id);
        }
    }
}
