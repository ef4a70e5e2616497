//! Where messages to the other members go.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use quorumkv_protocol::NodeId;
use quorumkv_protocol::peer::PeerEnvelope;
use quorumkv_replica::Outgoing;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Messages that may wait for one connection. Beyond it they are dropped: the protocol sends again what matters.
pub(crate) const QUEUE: usize = 4096;

/// Connections that members may have open to this node at the same time. Each member needs one.
const MAX_INBOUND: usize = 1024;

/// Bits of a correlation that are the sender's; above them stands the number of the connection.
const CORRELATION_BITS: u32 = 48;

/// The connections with each member: requests go over the one that this node opened, a reply over the one that its
/// request came on. Messages without a connection are dropped, as they would be with one that breaks.
///
/// A member has several connections open here while it replaces one that broke, or when somebody else claims to be it.
/// Its replies must not go astray then: another request may bear the same correlation over there.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    ways: RwLock<Ways>,
}

#[derive(Debug, Default)]
struct Ways {
    requests: HashMap<NodeId, Sender<PeerEnvelope>>,
    replies: HashMap<u16, (NodeId, Sender<PeerEnvelope>)>,
    /// The number for the next connection, unless it is taken: numbers are used again as late as possible.
    next: u16,
}

impl Routes {
    /// Sends a message without waiting.
    pub(crate) fn send(&self, message: Outgoing) {
        let Outgoing { to, mut envelope } = message;
        let ways = self.ways.read().unwrap_or_else(PoisonError::into_inner);
        let way = if envelope.body.is_reply() {
            let connection = take_connection(&mut envelope);
            ways.replies.get(&connection).filter(|(node, _)| *node == to).map(|(_, way)| way)
        } else {
            ways.requests.get(&to)
        };
        if let Some(way) = way
            && way.try_send(envelope).is_err()
        {
            tracing::debug!(%to, "dropped a message: the connection is closed or too slow");
        }
    }

    /// Requests to the node go over this connection from now on, until it ends.
    pub(crate) fn connect(self: &Arc<Self>, node: NodeId) -> (Outbound, Receiver<PeerEnvelope>) {
        let (way, requests) = channel(QUEUE);
        self.ways.write().unwrap_or_else(PoisonError::into_inner).requests.insert(node, way.clone());
        (Outbound { routes: Arc::clone(self), node, way }, requests)
    }

    /// Another node has opened a connection: the replies to what comes over it are in the queue. `None` if there are more
    /// than members ever need.
    pub(crate) fn accept(self: &Arc<Self>, node: NodeId) -> Option<(Inbound, Receiver<PeerEnvelope>)> {
        let (way, replies) = channel(QUEUE);
        let mut ways = self.ways.write().unwrap_or_else(PoisonError::into_inner);
        if ways.replies.len() >= MAX_INBOUND {
            return None;
        }
        while ways.replies.contains_key(&ways.next) {
            ways.next = ways.next.wrapping_add(1);
        }
        let connection = ways.next;
        ways.next = ways.next.wrapping_add(1);
        ways.replies.insert(connection, (node, way));
        Some((Inbound { routes: Arc::clone(self), connection }, replies))
    }
}

/// A connection to another node. Dropping it ends the way for requests, unless there is another by now.
#[derive(Debug)]
pub(crate) struct Outbound {
    routes: Arc<Routes>,
    node: NodeId,
    way: Sender<PeerEnvelope>,
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let requests = &mut self.routes.ways.write().unwrap_or_else(PoisonError::into_inner).requests;
        if requests.get(&self.node).is_some_and(|way| way.same_channel(&self.way)) {
            requests.remove(&self.node);
        }
    }
}

/// A connection that another node has opened. Dropping it ends the way for its replies.
#[derive(Debug)]
pub(crate) struct Inbound {
    routes: Arc<Routes>,
    connection: u16,
}

impl Inbound {
    /// Notes in a request that it came over this connection. False if its correlation leaves no room for that, which
    /// no member's does: they count from 1.
    pub(crate) fn mark(&self, request: &mut PeerEnvelope) -> bool {
        let is_small = request.correlation >> CORRELATION_BITS == 0;
        request.correlation |= u64::from(self.connection) << CORRELATION_BITS;
        is_small
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let mut ways = self.routes.ways.write().unwrap_or_else(PoisonError::into_inner);
        ways.replies.remove(&self.connection);
    }
}

/// The connection that was noted in the request; the correlation is as the member chose it again.
fn take_connection(reply: &mut PeerEnvelope) -> u16 {
    let connection = reply.correlation >> CORRELATION_BITS;
    reply.correlation &= (1 << CORRELATION_BITS) - 1;
    u16::try_from(connection).expect("64 - 48 bits are left")
}

#[cfg(test)]
mod tests {
    use quorumkv_protocol::peer::{HeartbeatReply, PeerMessage};
    use quorumkv_protocol::{EntryId, Epoch, Version};

    use super::*;

    fn reply(correlation: u64) -> PeerEnvelope {
        let (epoch, promise) = (Epoch::ZERO, Epoch::ZERO);
        let (durable, applied) = (EntryId::ZERO, Version::ZERO);
        let reply = HeartbeatReply {
            epoch,
            promise,
            durable,
            applied,
            restoring: false,
            disk_full: false,
            damaged: false,
            compared: None,
        };
        PeerEnvelope { correlation, body: PeerMessage::HeartbeatReply(reply) }
    }

    #[test]
    fn a_reply_goes_back_over_the_connection_that_its_request_came_on() {
        let (routes, member) = (Arc::<Routes>::default(), NodeId::new(7));
        let (first, mut first_replies) = routes.accept(member).expect("a connection");
        let (second, mut second_replies) = routes.accept(member).expect("another");
        let (mut one, mut two) = (reply(1), reply(1));
        assert!(first.mark(&mut one) && second.mark(&mut two));
        routes.send(Outgoing { to: NodeId::new(8), envelope: two.clone() });
        routes.send(Outgoing { to: member, envelope: two });
        assert!(first_replies.try_recv().is_err());
        assert_eq!(second_replies.try_recv().expect("a reply"), reply(1));

        drop(second);
        routes.send(Outgoing { to: member, envelope: one });
        assert_eq!(first_replies.try_recv().expect("a reply"), reply(1));
        assert!(!first.mark(&mut reply(1 << CORRELATION_BITS)));
    }

    #[test]
    fn connections_are_bounded_and_their_numbers_are_used_again() {
        let routes = Arc::<Routes>::default();
        let held: Vec<_> = (0..MAX_INBOUND).map_while(|_| routes.accept(NodeId::new(7))).collect();
        assert!(held.len() == MAX_INBOUND && routes.accept(NodeId::new(7)).is_none());
        drop(held);
        for _ in 0..=u32::from(u16::MAX) {
            assert!(routes.accept(NodeId::new(7)).is_some());
        }
    }
}
