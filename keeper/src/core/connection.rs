//! A client's connection: what it has asked, and what it is still to be sent.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use super::ConnectionId;
use super::out::Out;
use crate::wire::{ConnectResponse, ErrorCode, Id, Reply, Request, encode_reply, framed};

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It has not said which session it wants.
    Fresh,
    /// It serves this session, or will as soon as that is durable.
    Attached(i64),
    /// It is about to be closed: nothing that comes is of interest.
    Leaving,
}

/// What is to be answered, in the order in which it was asked.
#[derive(Debug)]
pub(super) enum Item {
    /// The session is to begin with this transaction.
    Connect {
        /// The transaction.
        zxid: i64,
        /// What is answered then.
        response: ConnectResponse,
    },
    /// A change with this transaction; what it came to, once it is applied.
    Write {
        /// The transaction.
        zxid: i64,
        /// What it came to.
        reply: Option<Reply>,
    },
    /// An answer that depends on everything up to this transaction, and so must not be given before it is durable.
    After {
        /// The transaction.
        zxid: i64,
        /// The answer.
        result: Result<Reply, ErrorCode>,
        /// Whether the connection is closed then.
        last: bool,
    },
    /// Something to be looked up when its turn comes.
    Read(Request),
}

/// What is to be known of a request to reply to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) xid: i32,
    pub(super) op: i32,
    pub(super) received_ms: u64,
    /// Bytes of the request.
    pub(super) bytes: usize,
}

/// An [`Item`] with what its reply needs.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) asked: Asked,
    pub(super) item: Item,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) phase: Phase,
    /// Who its client is, in every scheme that it has authenticated with.
    pub(super) ids: Vec<Id>,
    /// Random bytes: the password, if a session is made.
    pub(super) entropy: [u8; 16],
    pub(super) queue: VecDeque<Queued>,
    /// Bytes of the requests in it.
    pub(super) queued_bytes: usize,
    pub(super) out: Out,
    /// Whether it is among those that something may have to be sent over.
    pub(super) is_dirty: bool,
    pub(super) statistics: Statistics,
}

/// What is told of a connection by the four-letter words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// When it was opened, in milliseconds since 1970.
    pub opened_ms: i64,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// The last operation answered.
    pub last_op: i32,
    /// Its transaction id.
    pub last_xid: i32,
    /// The zxid that it was answered with.
    pub last_zxid: i64,
    /// When that was, in milliseconds since 1970.
    pub last_response_ms: i64,
    /// How long the last one took.
    pub last_latency_ms: u64,
    /// How long requests took.
    pub latency: Latency,
}

/// How long requests took, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// The quickest; 0 without any.
    pub min_ms: u64,
    /// The slowest.
    pub max_ms: u64,
    /// All together.
    pub total_ms: u64,
    /// How many.
    pub count: u64,
}

impl Statistics {
    pub(super) fn new(opened_ms: i64) -> Self {
        Self {
            opened_ms,
            received: 0,
            sent: 0,
            last_op: 0,
            last_xid: 0,
            last_zxid: -1,
            last_response_ms: 0,
            last_latency_ms: 0,
            latency: Latency::default(),
        }
    }
}

impl Latency {
    pub(super) fn add(&mut self, ms: u64) {
        self.min_ms = if self.count == 0 { ms } else { self.min_ms.min(ms) };
        self.max_ms = self.max_ms.max(ms);
        self.total_ms += ms;
        self.count += 1;
    }
}

impl Connection {
    pub(super) fn new(address: SocketAddr, ids: Vec<Id>, entropy: [u8; 16], wall_ms: i64) -> Self {
        let statistics = Statistics::new(wall_ms);
        Self {
            address,
            phase: Phase::Fresh,
            ids,
            entropy,
            queue: VecDeque::new(),
            queued_bytes: 0,
            out: Out::default(),
            is_dirty: false,
            statistics,
        }
    }

    /// Has it flushed.
    pub(super) fn mark(&mut self, id: ConnectionId, dirty: &mut Vec<ConnectionId>) {
        if !std::mem::replace(&mut self.is_dirty, true) {
            dirty.push(id);
        }
    }

    /// Whether so much is to be sent to it that answering has to wait until some of it has gone.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= super::OUT_BYTES
    }

    /// Whether the first in the queue can be answered when everything up to this transaction is applied.
    pub(super) fn is_ready(&self, applied: i64) -> bool {
        self.queue.front().is_some_and(|queued| match &queued.item {
            Item::Connect { zxid, .. } | Item::After { zxid, .. } => *zxid <= applied,
            Item::Write { reply, .. } => reply.is_some(),
            Item::Read(_) => true,
        })
    }

    pub(super) fn push(&mut self, queued: Queued) {
        self.queued_bytes += queued.asked.bytes;
        self.queue.push_back(queued);
    }

    /// Takes the first in the queue. An empty queue keeps no memory of a long one.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes -= queued.asked.bytes;
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        Some(queued)
    }

    pub(super) const fn session(&self) -> Option<i64> {
        match self.phase {
            Phase::Attached(session) => Some(session),
            Phase::Fresh | Phase::Leaving => None,
        }
    }

    pub(super) fn connect_reply(&mut self, response: &ConnectResponse) {
        self.statistics.sent += 1;
        framed(self.out.end(), |encoder| response.encode(encoder));
    }

    pub(super) fn reply(&mut self, xid: i32, zxid: i64, result: &Result<Reply, ErrorCode>) {
        self.statistics.sent += 1;
        encode_reply(self.out.end(), xid, zxid, result);
    }

    /// Tells of an event; the packet is sent to others too.
    pub(super) fn notify(&mut self, packet: &Bytes) {
        self.statistics.sent += 1;
        self.out.share(packet);
    }

    /// Notes down that a request has been answered. Returns how long that took, in milliseconds.
    pub(super) fn answered(&mut self, asked: &Asked, zxid: i64, now: super::Now) -> u64 {
        let latency_ms = now.monotonic_ms.saturating_sub(asked.received_ms);
        let statistics = &mut self.statistics;
        statistics.last_op = asked.op;
        statistics.last_xid = asked.xid;
        statistics.last_zxid = zxid;
        statistics.last_response_ms = now.wall_ms;
        statistics.last_latency_ms = latency_ms;
        statistics.latency.add(latency_ms);
        latency_ms
    }
}
