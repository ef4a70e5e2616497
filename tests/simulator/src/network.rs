//! Links that delay, break, lose what is in flight, and work in one direction only.
//!
//! Every node has a connection of its own to each other node: it carries its requests and brings their replies. Within
//! a connection messages keep their order; a new one may overtake what is left of the one before it.

use std::collections::{BTreeMap, BTreeSet};

use quorumkv_protocol::NodeId;

/// From the node that made the connection to the one that it reaches.
pub(crate) type Pair = (NodeId, NodeId);

/// Names one connection for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ConnectionId(u64);

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Request,
    Reply,
}

/// A connection, as its maker sees it.
#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    /// When the last message of each way arrives: the next cannot arrive before.
    arrival: [u64; 2],
    /// Whether something was lost on each way: then so is everything after it.
    lost: [bool; 2],
}

/// All connections that stand, and what keeps others from being made.
#[derive(Default, Debug)]
pub(crate) struct Network {
    connections: BTreeMap<Pair, Connection>,
    /// Until when the requests of a broken connection still arrive.
    lingering: BTreeMap<ConnectionId, u64>,
    /// Directions in which everything takes longer by so much.
    pub(crate) slow: BTreeMap<Pair, u64>,
    /// Directions in which nothing gets through.
    pub(crate) blocked: BTreeSet<Pair>,
    made: u64,
}

/// What becomes of a message that is sent.
pub(crate) enum Fate {
    /// It arrives then.
    Arrives(u64),
    /// There is no connection.
    Unsent,
    /// It gets lost; if it is the first, the connection will be found broken.
    Lost { first: bool },
}

impl Network {
    pub(crate) fn is_connected(&self, pair: Pair) -> bool {
        self.connections.contains_key(&pair)
    }

    /// Whether a connection stands that has lost nothing. One that has will be found broken, and made anew.
    pub(crate) fn is_sound(&self, pair: Pair) -> bool {
        self.connections.get(&pair).is_some_and(|connection| connection.lost == [false; 2])
    }

    pub(crate) fn connection(&self, pair: Pair) -> Option<ConnectionId> {
        self.connections.get(&pair).map(|connection| connection.id)
    }

    pub(crate) fn pairs(&self) -> Vec<Pair> {
        self.connections.keys().copied().collect()
    }

    /// Whether a connection can be made.
    pub(crate) fn permits(&self, (from, to): Pair) -> bool {
        !self.blocked.contains(&(from, to)) && !self.blocked.contains(&(to, from))
    }

    pub(crate) fn connect(&mut self, pair: Pair) {
        self.made += 1;
        let id = ConnectionId(self.made);
        self.connections.insert(pair, Connection { id, arrival: [0; 2], lost: [false; 2] });
    }

    /// Takes a message over a pair's connection, to arrive at `arrival` or as soon after it as its order permits.
    pub(crate) fn send(&mut self, pair: Pair, id: ConnectionId, way: Way, arrival: u64) -> Fate {
        let direction = match way {
            Way::Request => pair,
            Way::Reply => (pair.1, pair.0),
        };
        let blocked = self.blocked.contains(&direction);
        let Some(connection) = self.connections.get_mut(&pair).filter(|connection| connection.id == id)
        else {
            return Fate::Unsent;
        };
        let lost = &mut connection.lost[way as usize];
        if blocked || *lost {
            let first = !*lost;
            *lost = true;
            return Fate::Lost { first };
        }
        let last = &mut connection.arrival[way as usize];
        *last = arrival.max(*last + 1);
        Fate::Arrives(*last)
    }

    /// Breaks a connection: replies in flight are lost, and requests that would arrive after `until`.
    pub(crate) fn sever(&mut self, pair: Pair, until: u64) {
        if let Some(connection) = self.connections.remove(&pair) {
            self.lingering.insert(connection.id, until);
        }
    }

    /// Whether a message that was taken does arrive now.
    pub(crate) fn delivers(&self, pair: Pair, id: ConnectionId, way: Way, now: u64) -> bool {
        let stands = self.connection(pair) == Some(id);
        stands || way == Way::Request && self.lingering.get(&id).is_some_and(|&until| now <= until)
    }
}
