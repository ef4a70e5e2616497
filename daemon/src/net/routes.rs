//! Where messages to the other members go.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use quorumkv_protocol::NodeId;
use quorumkv_protocol::peer::PeerEnvelope;
use quorumkv_replica::Outgoing;
use tokio::sync::mpsc::Sender;

/// Messages that may wait for one connection. Beyond it they are dropped: the protocol sends again what matters.
pub(crate) const QUEUE: usize = 4096;

/// The connections with each member: requests go over the one that this node opened, replies over the one that the
/// member opened. Messages without a connection are dropped, as they would be with one that breaks.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    members: RwLock<HashMap<NodeId, Route>>,
}

#[derive(Debug, Default)]
struct Route {
    requests: Option<Sender<PeerEnvelope>>,
    replies: Option<Sender<PeerEnvelope>>,
}

impl Routes {
    /// Sends a message without waiting.
    pub(crate) fn send(&self, message: Outgoing) {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let Some(route) = members.get(&message.to) else { return };
        let way = if message.envelope.body.is_reply() { &route.replies } else { &route.requests };
        if let Some(way) = way
            && way.try_send(message.envelope).is_err()
        {
            tracing::debug!(to = %message.to, "dropped a message: the connection is closed or too slow");
        }
    }

    /// Requests to the member go here from now on, or nowhere.
    pub(crate) fn set_requests(&self, node: NodeId, way: Option<Sender<PeerEnvelope>>) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).entry(node).or_default().requests = way;
    }

    /// Replies to the member go here from now on: it has opened a new connection.
    pub(crate) fn set_replies(&self, node: NodeId, way: Sender<PeerEnvelope>) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).entry(node).or_default().replies =
            Some(way);
    }
}
