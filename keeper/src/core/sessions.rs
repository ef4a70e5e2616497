//! Sessions as long as they live: when they expire, and over which connection they are served.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ConnectionId;

/// A session that lives.
#[derive(Debug)]
struct Live {
    timeout_ms: i32,
    /// When it expires unless it is heard of, a multiple of the interval.
    deadline_ms: u64,
    connection: Option<ConnectionId>,
    /// Whether its end is in the log already.
    closing: bool,
}

/// All sessions that live, by the time at which they expire.
///
/// Deadlines are rounded up to a common interval, so that hearing of a session costs next to nothing most of the time.
#[derive(Debug)]
pub(super) struct Sessions {
    interval_ms: u64,
    live: HashMap<i64, Live>,
    by_deadline: BTreeMap<u64, BTreeSet<i64>>,
}

impl Sessions {
    pub(super) fn new(interval_ms: u64) -> Self {
        Self { interval_ms: interval_ms.max(1), live: HashMap::new(), by_deadline: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    fn deadline(interval_ms: u64, timeout_ms: i32, now_ms: u64) -> u64 {
        let exact = now_ms + u64::try_from(timeout_ms).unwrap_or(0);
        (exact / interval_ms + 1) * interval_ms
    }

    /// A session begins, or is known from before a restart.
    pub(super) fn add(&mut self, id: i64, timeout_ms: i32, connection: Option<ConnectionId>, now_ms: u64) {
        let deadline_ms = Self::deadline(self.interval_ms, timeout_ms, now_ms);
        let before = self.live.insert(id, Live { timeout_ms, deadline_ms, connection, closing: false });
        assert!(before.is_none(), "a session begins once");
        self.by_deadline.entry(deadline_ms).or_default().insert(id);
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.live.contains_key(&id)
    }

    /// Whether it lives and its end has not begun.
    pub(super) fn is_open(&self, id: i64) -> bool {
        self.live.get(&id).is_some_and(|live| !live.closing)
    }

    pub(super) fn connection(&self, id: i64) -> Option<ConnectionId> {
        self.live.get(&id)?.connection
    }

    pub(super) fn timeout_ms(&self, id: i64) -> Option<i32> {
        Some(self.live.get(&id)?.timeout_ms)
    }

    /// A client goes on with its session over another connection; returns the one before.
    pub(super) fn attach(
        &mut self,
        id: i64,
        connection: ConnectionId,
        timeout_ms: i32,
        now_ms: u64,
    ) -> Option<ConnectionId> {
        let live = self.live.get_mut(&id).expect("only sessions that live are attached");
        live.timeout_ms = timeout_ms;
        let before = live.connection.replace(connection);
        self.heard(id, now_ms);
        before
    }

    /// A connection has ended; its session lives on for a while.
    pub(super) fn detach(&mut self, id: i64, connection: ConnectionId) {
        if let Some(live) = self.live.get_mut(&id)
            && live.connection == Some(connection)
        {
            live.connection = None;
        }
    }

    /// Something came from the session's client.
    pub(super) fn heard(&mut self, id: i64, now_ms: u64) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let deadline_ms = Self::deadline(self.interval_ms, live.timeout_ms, now_ms);
        if live.deadline_ms == deadline_ms || live.closing {
            return;
        }
        let before = std::mem::replace(&mut live.deadline_ms, deadline_ms);
        self.unschedule(before, id);
        self.by_deadline.entry(deadline_ms).or_default().insert(id);
    }

    fn unschedule(&mut self, deadline_ms: u64, id: i64) {
        if let Some(ids) = self.by_deadline.get_mut(&deadline_ms) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_deadline.remove(&deadline_ms);
            }
        }
    }

    /// The session's end goes into the log: it takes no more requests. False if it is not open.
    pub(super) fn close(&mut self, id: i64) -> bool {
        let Some(live) = self.live.get_mut(&id) else { return false };
        if std::mem::replace(&mut live.closing, true) {
            return false;
        }
        let deadline_ms = live.deadline_ms;
        self.unschedule(deadline_ms, id);
        true
    }

    /// The session is over. Returns the connection that it was served over.
    pub(super) fn remove(&mut self, id: i64) -> Option<ConnectionId> {
        let live = self.live.remove(&id)?;
        self.unschedule(live.deadline_ms, id);
        live.connection
    }

    /// Sessions that have not been heard of in time.
    pub(super) fn expired(&self, now_ms: u64) -> Vec<i64> {
        self.by_deadline.range(..=now_ms).flat_map(|(_, ids)| ids.iter().copied()).collect()
    }

    /// Deadlines, in milliseconds from now, with their sessions.
    pub(super) fn schedule(&self, now_ms: u64) -> impl Iterator<Item = (u64, Vec<i64>)> + '_ {
        self.by_deadline
            .iter()
            .map(move |(&at, ids)| (at.saturating_sub(now_ms), ids.iter().copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ConnectionId = ConnectionId(1);

    #[test]
    fn a_session_expires_only_after_its_timeout_without_a_sign_of_life() {
        let mut sessions = Sessions::new(100);
        sessions.add(1, 1000, Some(HERE), 0);
        assert_eq!(sessions.expired(1000), [0; 0], "not before its timeout is over");
        sessions.heard(1, 950);
        assert_eq!(sessions.expired(1900), [0; 0]);
        assert_eq!(sessions.expired(2000), [1]);
        assert!(sessions.close(1) && !sessions.close(1), "it is closed once");
        assert_eq!(sessions.expired(9000), [0; 0]);
        assert!(sessions.contains(1) && !sessions.is_open(1));
        assert_eq!(sessions.remove(1), Some(HERE));
        assert!(!sessions.contains(1) && sessions.by_deadline.is_empty());
    }

    #[test]
    fn a_session_moves_to_another_connection() {
        let mut sessions = Sessions::new(100);
        sessions.add(1, 1000, Some(HERE), 0);
        assert_eq!(sessions.attach(1, ConnectionId(2), 4000, 500), Some(HERE));
        sessions.detach(1, HERE);
        assert_eq!(
            sessions.connection(1),
            Some(ConnectionId(2)),
            "the old connection's end is of no interest"
        );
        assert_eq!(sessions.expired(4500), [0; 0]);
        assert_eq!(sessions.expired(4600), [1]);
        sessions.detach(1, ConnectionId(2));
        assert_eq!(sessions.connection(1), None);
    }
}
