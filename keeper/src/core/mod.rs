//! The keeper: sessions, the order of requests, watches. It is told what happened and says what to do; it owns no clock, no
//! random source, no socket, file or task.
//!
//! A request that changes something is prepared as soon as it comes ([`Pending`]), which gives it its place in the order of
//! all changes, and is applied, told to watchers, and answered when the log says that it is durable. A request that changes
//! nothing is answered at once, unless its connection still waits for something that it asked before: what one client asks is
//! answered in that order. So nothing is ever shown that a crash could take back.

mod answers;
mod connection;
mod out;
mod pipeline;
mod reads;
mod requests;
mod sessions;
mod views;
mod watches;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

pub use connection::{Latency, Statistics};
pub use views::ConnectionView;
pub use watches::WatchSummary;

use crate::prepare::Pending;
use crate::tree::Tree;
use crate::txn::Txn;
use crate::wire::Id;
use connection::{Connection, Phase};
use pipeline::{Proposal, Telling};
use sessions::Sessions;
use watches::Watches;

/// Bytes for one connection between two flushes beyond which nothing more is read from it.
const OUT_BYTES: usize = 1 << 20;

/// Names a connection; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// What the clocks say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds since some moment before the start; never goes back. Sessions expire by it.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970. Znodes show it.
    pub wall_ms: i64,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A client has connected.
    Opened {
        /// Names the connection.
        connection: ConnectionId,
        /// Where it comes from.
        address: SocketAddr,
        /// The subject of its certificate, if it has shown one.
        certificate: Option<String>,
        /// Random bytes, from which nothing else is made.
        entropy: [u8; 16],
    },
    /// A packet came, here without its length.
    Frame {
        /// Over which connection.
        connection: ConnectionId,
        /// The packet.
        frame: Bytes,
    },
    /// A client from which nothing is read at the moment lives: its requests wait for this server, or it takes what it is
    /// sent.
    Alive {
        /// Over which connection.
        connection: ConnectionId,
    },
    /// A connection has ended.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// The log holds everything up to this zxid durably. Only so much of it is applied and told at once: see
    /// [`Keeper::is_behind`].
    Durable(i64),
    /// The disk is nearly full, or has room again. Until then nothing is accepted that makes the data larger.
    DiskFull(bool),
    /// Time has passed.
    Tick,
}

/// What is to be done, in this order for each connection: send, then close.
#[derive(Debug, Default)]
pub struct Effects {
    /// Append these to the log, in order, and report [`Input::Durable`].
    pub log: Vec<Arc<Txn>>,
    /// Send these bytes, in order: one or more whole packets each.
    pub sends: Vec<(ConnectionId, Bytes)>,
    /// Close these connections, after what is sent to them.
    pub closes: Vec<ConnectionId>,
    /// These connections have more to be answered than is sent to them at once: call [`Keeper::resume`] as soon as they have
    /// room for it.
    pub waiting: Vec<ConnectionId>,
    /// What happened, for logs.
    pub notices: Vec<Notice>,
}

/// What happened, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A session has begun.
    SessionOpened {
        /// Which.
        session: i64,
        /// Its timeout, in milliseconds.
        timeout_ms: i32,
        /// Where its client is.
        address: SocketAddr,
    },
    /// A session has not been heard of in time.
    SessionExpired {
        /// Which.
        session: i64,
        /// Its timeout, in milliseconds.
        timeout_ms: i32,
    },
    /// A client wanted to go on with a session that is over, or with a wrong password.
    SessionRefused {
        /// Which.
        session: i64,
        /// Where the client is.
        address: SocketAddr,
    },
    /// A client has seen a transaction that this server does not have: it was here before data was lost, or elsewhere.
    FromTheFuture {
        /// Where the client is.
        address: SocketAddr,
        /// What it has seen.
        zxid: i64,
    },
    /// A packet was not understood, and its connection is closed.
    Malformed {
        /// Where it came from.
        address: SocketAddr,
        /// What was wrong.
        problem: String,
    },
}

/// How a keeper behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// ZooKeeper's tick, the unit of session timeouts, in milliseconds.
    pub tick_ms: u32,
    /// The shortest session timeout, in milliseconds; two ticks in ZooKeeper.
    pub min_session_ms: i32,
    /// The longest session timeout, in milliseconds; twenty ticks in ZooKeeper.
    pub max_session_ms: i32,
    /// `user:digest` of whom every ACL permits everything.
    pub super_digest: Option<String>,
    /// How often containers without children and TTL znodes are looked for, in milliseconds.
    pub reap_ms: u64,
    /// Requests of one connection that may wait; beyond them nothing more should be read from it.
    pub outstanding: usize,
}

impl Settings {
    /// What ZooKeeper does with this tick.
    ///
    /// # Panics
    /// If twenty ticks do not fit into 31 bits.
    #[must_use]
    pub fn with_tick(tick_ms: u32) -> Self {
        let ticks = |count: u32| i32::try_from(tick_ms * count).expect("a tick is shorter than a day");
        Self {
            tick_ms,
            min_session_ms: ticks(2),
            max_session_ms: ticks(20),
            super_digest: None,
            reap_ms: 60_000,
            outstanding: 1000,
        }
    }
}

/// The state of a server; see the [module](self).
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    now: Now,
    tree: Tree,
    pending: Pending,
    sessions: Sessions,
    watches: Watches,
    connections: HashMap<ConnectionId, Connection>,
    /// Changes that are in the log or on their way there, and not applied.
    proposed: VecDeque<Proposal>,
    /// The log holds everything up to this zxid.
    durable: i64,
    disk_full: bool,
    /// A change that is applied, but that not everybody who watches has been told.
    telling: Option<Telling>,
    /// Bytes that watchers have been told since the last flush, and bytes of answers.
    told: usize,
    answered: usize,
    /// Connections whose next answer waits for a transaction that somebody else asked for.
    waiting: BTreeMap<i64, Vec<ConnectionId>>,
    /// The last zxid that was given away.
    last_proposed: i64,
    /// The number for the next session.
    next_session: i64,
    reaped_ms: u64,
    /// Connections with something to be sent.
    dirty: Vec<ConnectionId>,
    /// Connections whose answers were interrupted, since they are many bytes already.
    full: BTreeSet<ConnectionId>,
    log: Vec<Arc<Txn>>,
    closes: Vec<ConnectionId>,
    notices: Vec<Notice>,
    latency: Latency,
}

impl Keeper {
    /// A server that was just started with this state. Sessions that lived before have their whole timeout to come back.
    #[must_use]
    pub fn new(tree: Tree, settings: Settings, now: Now) -> Self {
        let mut sessions = Sessions::new(u64::from(settings.tick_ms / 4));
        for (id, session) in tree.sessions() {
            sessions.add(id, session.timeout_ms, None, now.monotonic_ms);
        }
        // As in ZooKeeper: milliseconds since 1970 in the upper bits (the highest eight are for an ensemble's servers), so
        // that ids of an earlier run are not given again.
        let next_session = ((now.wall_ms << 24) & i64::MAX) >> 8;
        Self {
            now,
            pending: Pending::new(),
            sessions,
            watches: Watches::default(),
            connections: HashMap::new(),
            proposed: VecDeque::new(),
            durable: tree.last_zxid(),
            disk_full: false,
            telling: None,
            told: 0,
            answered: 0,
            waiting: BTreeMap::new(),
            last_proposed: tree.last_zxid(),
            next_session,
            reaped_ms: now.monotonic_ms,
            dirty: Vec::new(),
            full: BTreeSet::new(),
            log: Vec::new(),
            closes: Vec::new(),
            notices: Vec::new(),
            latency: Latency::default(),
            tree,
            settings,
        }
    }

    /// Takes in something that happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = Now { monotonic_ms: self.now.monotonic_ms.max(now.monotonic_ms), ..now };
        match input {
            Input::Opened { connection, address, certificate, entropy } => {
                self.open(connection, address, certificate, entropy);
            }
            Input::Frame { connection, frame } => self.frame(connection, &frame),
            Input::Alive { connection } => self.alive(connection),
            Input::Closed { connection } => self.forget(connection),
            Input::Durable(zxid) => self.durable(zxid),
            Input::DiskFull(full) => self.disk_full = full,
            Input::Tick => self.tick(),
        }
    }

    /// What everything since the last call comes to.
    pub fn flush(&mut self) -> Effects {
        (self.told, self.answered) = (0, 0);
        let mut sends = Vec::with_capacity(self.dirty.len());
        for id in std::mem::take(&mut self.dirty) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.is_dirty = false;
                sends.extend(connection.out.take().map(|bytes| (id, bytes)));
            }
        }
        let waiting = std::mem::take(&mut self.full).into_iter().collect();
        let closes = std::mem::take(&mut self.closes);
        for &id in &closes {
            self.forget(id);
        }
        let (log, notices) = (std::mem::take(&mut self.log), std::mem::take(&mut self.notices));
        Effects { log, sends, closes, waiting, notices }
    }

    /// Goes on with the answers of a connection that was among [`Effects::waiting`].
    pub fn resume(&mut self, connection: ConnectionId) {
        self.drain(connection);
    }

    /// The state, as far as it is durable.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether so many requests of a connection wait, or so many bytes for it since the last flush, that no more should be
    /// read from it.
    #[must_use]
    pub fn is_busy(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|connection| {
            connection.queue.len() >= self.settings.outstanding
                || connection.queued_bytes >= OUT_BYTES
                || connection.is_full()
        })
    }

    fn open(
        &mut self,
        id: ConnectionId,
        address: SocketAddr,
        certificate: Option<String>,
        entropy: [u8; 16],
    ) {
        let mut ids = vec![Id::new("ip", address.ip().to_canonical().to_string())];
        ids.extend(certificate.map(|subject| Id::new("x509", subject)));
        let before = self.connections.insert(id, Connection::new(address, ids, entropy, self.now.wall_ms));
        assert!(before.is_none(), "every connection has its own name");
    }

    fn alive(&mut self, id: ConnectionId) {
        if let Some(session) = self.connections.get(&id).and_then(Connection::session) {
            self.sessions.heard(session, self.now.monotonic_ms);
        }
    }

    /// A connection is gone, and with it its watches; its session lives on for a while.
    fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Some(session) = connection.session() {
            self.sessions.detach(session, id);
        }
        self.watches.remove_watcher(id);
        self.full.remove(&id);
    }

    /// Sends what there is for a connection, and closes it then.
    fn leave(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match std::mem::replace(&mut connection.phase, Phase::Leaving) {
            Phase::Leaving => return,
            Phase::Attached(session) => self.sessions.detach(session, id),
            Phase::Fresh => {}
        }
        connection.queue.clear();
        self.watches.remove_watcher(id);
        self.closes.push(id);
    }

    fn tick(&mut self) {
        for session in self.sessions.expired(self.now.monotonic_ms) {
            let timeout_ms = self.sessions.timeout_ms(session).unwrap_or_default();
            self.notices.push(Notice::SessionExpired { session, timeout_ms });
            self.end_session(session, None);
        }
        if self.now.monotonic_ms - self.reaped_ms >= self.settings.reap_ms {
            self.reaped_ms = self.now.monotonic_ms;
            self.reap();
        }
    }
}

#[cfg(test)]
mod burst_tests;
#[cfg(test)]
mod durable_tests;
#[cfg(test)]
mod tests;
