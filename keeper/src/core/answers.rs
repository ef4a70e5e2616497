//! The answers to what each connection has asked, in that order.

use super::connection::{Item, Queued};
use super::{ConnectionId, Keeper, reads};
use crate::txn::Outcome;
use crate::wire::{Create, CreateKind, ErrorCode, MultiOp, OpResult, Reply, Write, op};

/// Bytes of answers between two flushes, more or less, before the others have to wait for the next.
const ANSWERED_AT_ONCE: usize = 16 << 20;

/// What each answer counts for besides its bytes.
const ANSWER_BYTES: usize = 64;

/// How what a change came to is told.
#[derive(Debug)]
pub(super) enum Shape {
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
    pub(super) fn of(write: &Write) -> Self {
        match write {
            Write::Create(Create { with_stat: false, .. }) => Self::Path,
            Write::Create(Create { with_stat: true, .. }) => Self::PathAndStat,
            Write::Delete(_) | Write::SetData(_) | Write::SetAcl(_) => Self::Plain,
            Write::Multi(ops) => Self::Multi(ops.iter().map(result_type).collect()),
        }
    }

    pub(super) fn reply(&self, outcome: Outcome) -> Reply {
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
    /// Puts a change's reply in its place in the queue of whoever asked.
    pub(super) fn resolve(&mut self, id: ConnectionId, done: i64, result: Reply) {
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
    pub(super) fn release(&mut self, zxid: i64) {
        for id in self.waiting.remove(&zxid).unwrap_or_default() {
            self.drain(id);
        }
    }

    /// Answers what a connection has asked, in order, as far as it can be answered now.
    pub(super) fn drain(&mut self, id: ConnectionId) {
        let applied = self.tree.last_zxid();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        while connection.is_ready(applied) {
            if self.telling.is_some() || self.answered >= ANSWERED_AT_ONCE || connection.is_full() {
                self.full.insert(id);
                return;
            }
            let Some(Queued { asked, item }) = connection.pop() else { return };
            connection.mark(id, &mut self.dirty);
            let before = connection.out.len();
            let (zxid, result, is_last) = match item {
                Item::Connect { response, .. } => {
                    connection.connect_reply(&response);
                    continue;
                }
                Item::Write { zxid, reply } => {
                    (zxid, Ok(reply.unwrap_or(Reply::Empty)), asked.op == op::CLOSE_SESSION)
                }
                Item::After { result, last, .. } => (shown_zxid(asked.op, &result, applied), result, last),
                Item::Read(request) => {
                    (applied, reads::read(&self.tree, &mut self.watches, (id, connection), &request), false)
                }
            };
            connection.reply(asked.xid, zxid, &result);
            self.answered += connection.out.len() - before + ANSWER_BYTES;
            self.latency.add(connection.answered(&asked, zxid, self.now));
            if is_last {
                return self.leave(id);
            }
        }
    }
}
