//! What the four-letter words tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::connection::{Latency, Statistics};
use super::watches::WatchSummary;
use super::{ConnectionId, Keeper};

/// What is told of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionView {
    /// Which.
    pub connection: ConnectionId,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Its session, if it has one.
    pub session: Option<i64>,
    /// The session's timeout, in milliseconds.
    pub timeout_ms: Option<i32>,
    /// Requests that wait.
    pub queued: usize,
    /// How it has been.
    pub statistics: Statistics,
}

impl Keeper {
    /// All connections, in the order in which they were opened.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionView> + '_ {
        let mut connections: Vec<_> = self.connections.iter().collect();
        connections.sort_unstable_by_key(|(id, _)| **id);
        connections.into_iter().map(|(&id, connection)| {
            let session = connection.session();
            ConnectionView {
                connection: id,
                address: connection.address,
                session,
                timeout_ms: session.and_then(|session| self.sessions.timeout_ms(session)),
                queued: connection.queue.len(),
                statistics: connection.statistics,
            }
        })
    }

    /// How many sessions live.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// When sessions expire unless they are heard of, in milliseconds from now.
    pub fn session_schedule(&self) -> impl Iterator<Item = (u64, Vec<i64>)> + '_ {
        self.sessions.schedule(self.now.monotonic_ms)
    }

    /// How many watches there are.
    #[must_use]
    pub fn watch_summary(&self) -> WatchSummary {
        self.watches.summary()
    }

    /// What each session watches.
    #[must_use]
    pub fn watches_by_session(&self) -> BTreeMap<i64, BTreeSet<Arc<str>>> {
        let session = |id: ConnectionId| self.connections.get(&id)?.session();
        let watches = self.watches.by_watcher().into_iter();
        watches.filter_map(|(id, paths)| Some((session(id)?, paths))).collect()
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.connections.values().map(|connection| connection.queue.len()).sum()
    }

    /// How long requests took, since the start or [`Self::reset_statistics`].
    #[must_use]
    pub const fn latency(&self) -> Latency {
        self.latency
    }

    /// Packets received and sent, over the connections that are open.
    #[must_use]
    pub fn packets(&self) -> (u64, u64) {
        let statistics = self.connections.values().map(|connection| &connection.statistics);
        statistics.fold((0, 0), |(received, sent), one| (received + one.received, sent + one.sent))
    }

    /// Forgets how long requests took.
    pub const fn reset_statistics(&mut self) {
        self.latency = Latency { min_ms: 0, max_ms: 0, total_ms: 0, count: 0 };
    }

    /// Forgets what has been counted for each connection.
    pub fn reset_connection_statistics(&mut self) {
        for connection in self.connections.values_mut() {
            connection.statistics = Statistics::new(connection.statistics.opened_ms);
        }
    }
}
