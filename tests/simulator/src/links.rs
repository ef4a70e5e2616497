//! What the nodes do with their connections to each other.

use std::collections::BTreeMap;

use quorumkv_protocol::NodeId;
use quorumkv_protocol::peer::PeerEnvelope;
use quorumkv_replica::{Input, Outgoing};

use crate::network::{ConnectionId, Fate, Pair, Way};
use crate::world::{Event, World};

/// Requests that a node may still answer: where each came from, by the correlation that its replica knows it under.
///
/// The replica is given correlations that never repeat. A node that starts anew counts its own from the beginning, so an
/// answer that the replica held back could otherwise be taken for that to a later request.
#[derive(Default)]
pub(crate) struct Requests {
    open: BTreeMap<u64, (Pair, ConnectionId, u64)>,
    received: u64,
}

impl Requests {
    fn receive(&mut self, pair: Pair, id: ConnectionId, correlation: u64) -> u64 {
        self.received += 1;
        self.open.insert(self.received, (pair, id, correlation));
        self.received
    }
}

impl World {
    /// Sends a request over the node's own connection, a reply over the one that its request came on.
    pub(crate) fn send(&mut self, from: NodeId, message: Outgoing) {
        self.invariants.sent(from, &message, &self.nodes);
        let Outgoing { to, mut envelope } = message;
        let (pair, id, way) = if envelope.body.is_reply() {
            let node = self.node(from);
            let Some(process) = &mut node.process else { return };
            let Some((pair, id, original)) = process.requests.open.remove(&envelope.correlation) else {
                return;
            };
            assert_eq!(pair, (to, from), "a reply goes to who asked");
            envelope.correlation = original;
            (pair, id, Way::Reply)
        } else {
            let Some(id) = self.network.connection((from, to)) else { return };
            ((from, to), id, Way::Request)
        };
        let slow = self.network.slow.get(&(from, to)).copied().unwrap_or(0);
        let far = self.plan.delayed;
        let delay = slow
            + self.rng.u64(50..=self.plan.delay)
            + if self.chance(far, 1000) { self.rng.u64(0..300_000) } else { 0 };
        match self.network.send(pair, id, way, self.now + delay) {
            Fate::Arrives(time) => {
                if way == Way::Request && self.chance(self.plan.duplicated, 1000) {
                    let late = time - self.now + self.rng.u64(0..200_000);
                    self.schedule(late, Event::Arrival { pair, id, way, envelope: envelope.clone() });
                }
                self.schedule(time - self.now, Event::Arrival { pair, id, way, envelope });
            }
            Fate::Lost { first: true } => {
                let noticed = self.rng.u64(20_000..800_000);
                self.schedule(noticed, Event::Break(pair, id));
            }
            Fate::Lost { first: false } | Fate::Unsent => {}
        }
    }

    pub(crate) fn arrive(&mut self, pair: Pair, id: ConnectionId, way: Way, mut envelope: PeerEnvelope) {
        if !self.network.delivers(pair, id, way, self.now) {
            return;
        }
        let (from, to) = match way {
            Way::Request => pair,
            Way::Reply => (pair.1, pair.0),
        };
        let Some(process) = &mut self.node(to).process else { return };
        if way == Way::Request {
            envelope.correlation = process.requests.receive(pair, id, envelope.correlation);
        }
        self.input(to, Input::Message { from, envelope });
    }

    pub(crate) fn connect(&mut self, pair: Pair) {
        let runs = |node: NodeId| self.nodes[&node].process.is_some();
        if self.network.is_connected(pair) || !runs(pair.0) || !runs(pair.1) {
            return;
        }
        if self.network.permits(pair) {
            self.network.connect(pair);
            self.input(pair.0, Input::PeerUp(pair.1));
        } else {
            let again = self.rng.u64(10_000..100_000);
            self.schedule(again, Event::Connect(pair));
        }
    }

    /// Breaks a connection; its maker notices, and makes another. That may take long, though the other node's own
    /// connection in the opposite direction stands.
    pub(crate) fn sever(&mut self, pair: Pair) {
        let linger = if self.rng.bool() { self.rng.u64(0..300_000) } else { 0 };
        self.network.sever(pair, self.now + linger);
        self.note(|_| format!("{} loses its connection to {}", pair.0, pair.1));
        self.input(pair.0, Input::PeerDown(pair.1));
        let is_slow = !self.healed && self.chance(1, 4);
        let again = if is_slow { self.rng.u64(100_000..2_000_000) } else { self.rng.u64(1_000..100_000) };
        self.schedule(again, Event::Connect(pair));
    }
}
