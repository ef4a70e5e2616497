//! The nodes that a client knows, and which of them to ask next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorumkv_protocol::client::Request;
use quorumkv_protocol::client::Response;
use tokio::time::Instant;
use tracing::debug;

use crate::context::Context;
use crate::endpoint::Endpoint;
use crate::link::{Health, Link};
use crate::session::{ExchangeError, Session, Stay};

/// Requests in a row that go to the same of the given nodes: what is asked at the same time then goes out together.
const RUN: usize = 16;

/// Most nodes that are remembered besides the given ones; the oldest is forgotten.
const MAX_LEARNED: usize = 16;

/// One node: its address, and the connections to it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    links: Vec<Link>,
    turn: AtomicUsize,
    /// Whether it is one of the endpoints that the client was given.
    given: bool,
}

impl Node {
    /// The health of its best connection.
    fn health(&self) -> Health {
        self.links.iter().map(Link::health).min().unwrap_or(Health::Failed)
    }

    /// The next connection in turn, among those that are as good as the best.
    fn link(&self) -> &Link {
        let best = self.health().max(Health::Untried);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.links.len()).map(|step| &self.links[(turn + step) % self.links.len()]);
        in_turn.clone().find(|link| link.health() <= best).unwrap_or(&self.links[turn % self.links.len()])
    }

    /// An open connection to this node.
    pub(crate) async fn session(&self, deadline: Instant) -> Result<Arc<Session>, ExchangeError> {
        self.link().session(deadline).await
    }

    /// Asks this node something and waits for its answer.
    pub(crate) async fn exchange(
        &self,
        body: Request,
        deadline: Instant,
        stay: Stay,
    ) -> Result<Response, ExchangeError> {
        self.session(deadline).await?.exchange(body, deadline, stay).await
    }

    /// Has a lost connection opened again, for later requests.
    fn revive(&self) {
        self.links.iter().filter(|link| link.health() == Health::Failed).for_each(Link::want);
    }
}

/// The nodes that a client knows.
#[derive(Debug)]
pub(crate) struct Pool {
    given: Vec<Arc<Node>>,
    /// Nodes that were learned as leaders or asked for by address.
    learned: Mutex<VecDeque<Arc<Node>>>,
    leader: Mutex<Option<Arc<Node>>>,
    turn: AtomicUsize,
    connections: usize,
    /// Whether writes go to the leader.
    seeks_leader: bool,
    context: Arc<Context>,
}

impl Pool {
    pub(crate) fn new(
        endpoints: &[Endpoint],
        connections: usize,
        seeks_leader: bool,
        context: Arc<Context>,
    ) -> Self {
        let node = |endpoint: &Endpoint| Arc::new(new_node(endpoint.clone(), connections, true, &context));
        Self {
            given: endpoints.iter().map(node).collect(),
            learned: Mutex::new(VecDeque::new()),
            leader: Mutex::new(None),
            // Clients that start together spread over all nodes.
            turn: AtomicUsize::new(RUN * fastrand::usize(..endpoints.len())),
            connections,
            seeks_leader,
            context,
        }
    }

    /// The given nodes.
    pub(crate) fn given(&self) -> &[Arc<Node>] {
        &self.given
    }

    /// The node at this address, known or not.
    pub(crate) fn node(&self, endpoint: &Endpoint) -> Arc<Node> {
        let mut learned = lock(&self.learned);
        let known = self.given.iter().chain(learned.iter()).find(|node| node.endpoint == *endpoint);
        if let Some(node) = known {
            return Arc::clone(node);
        }
        let node = Arc::new(new_node(endpoint.clone(), self.connections, false, &self.context));
        if learned.len() == MAX_LEARNED {
            learned.pop_front();
        }
        learned.push_back(Arc::clone(&node));
        node
    }

    /// The next of the given nodes in turn. Nodes that are connected (or have never been tried) come before those
    /// that are not, and those that this operation has `tried` less often before the others.
    pub(crate) fn any(&self, tried: &[Endpoint]) -> Arc<Node> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) / RUN;
        let in_turn = (0..self.given.len()).map(|step| &self.given[(turn + step) % self.given.len()]);
        let chosen = in_turn.min_by_key(|node| {
            node.revive();
            let tries = tried.iter().filter(|endpoint| **endpoint == node.endpoint).count();
            (node.health() > Health::Untried, tries)
        });
        Arc::clone(chosen.expect("a client has at least one endpoint"))
    }

    /// Has the next requests go to another node than to the one whose turn it is.
    pub(crate) fn pass(&self) {
        self.turn.fetch_add(RUN, Ordering::Relaxed);
    }

    /// Where to send a write: to the leader, if it is known and within reach. Any other node forwards.
    ///
    /// Nodes name the leader by the address that they use among themselves, which clients cannot always reach. So
    /// one that was not given is used only once it is connected, and no write waits for that.
    pub(crate) fn leader_or_any(&self, tried: &[Endpoint]) -> Arc<Node> {
        let leader = lock(&self.leader).clone();
        if let Some(leader) = leader {
            let health = leader.health();
            if health == Health::Connected || (leader.given && health == Health::Untried) {
                return leader;
            }
            leader.links.iter().for_each(Link::want);
        }
        self.any(tried)
    }

    /// Takes note of who leads. An address that is none is ignored.
    pub(crate) fn learn_leader(&self, address: &str) {
        let known = || lock(&self.leader).as_ref().is_some_and(|leader| leader.endpoint.as_str() == address);
        if self.seeks_leader && !known() {
            let Ok(endpoint) = address.parse::<Endpoint>() else { return };
            debug!(leader = %endpoint, "writes go to the leader");
            let node = self.node(&endpoint);
            *lock(&self.leader) = Some(node);
        }
    }

    /// Forgets that the node at this address leads, if that was believed.
    pub(crate) fn forget_leader(&self, endpoint: &Endpoint) {
        let mut leader = lock(&self.leader);
        if leader.as_ref().is_some_and(|leader| leader.endpoint == *endpoint) {
            *leader = None;
        }
    }
}

fn new_node(endpoint: Endpoint, connections: usize, given: bool, context: &Arc<Context>) -> Node {
    let links = (0..connections).map(|_| Link::new(endpoint.clone(), Arc::clone(context))).collect();
    Node { endpoint, links, turn: AtomicUsize::new(0), given }
}

/// Nothing panics while these locks are held, so a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
