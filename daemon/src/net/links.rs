//! The connection that this node keeps open to each other member: for its requests and their replies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quorumkv_protocol::frame::PEER_FRAME_LIMIT;
use quorumkv_protocol::hello::{Hello, Role};
use quorumkv_protocol::membership::Member;
use quorumkv_protocol::peer::PeerEnvelope;
use quorumkv_protocol::{ClusterId, NodeId};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::frames::{self, COALESCED_MESSAGES, ConnectionError, Reader};
use crate::shell::{Event, Node};

/// Pause between attempts to connect: it doubles from the first to the second of these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The links to the other members: one for each.
#[derive(Debug)]
pub(crate) struct Links {
    node: Arc<Node>,
    /// All links end with it.
    closing: CancellationToken,
    open: BTreeMap<NodeId, CancellationToken>,
}

impl Links {
    pub(crate) const fn new(node: Arc<Node>, closing: CancellationToken) -> Self {
        Self { node, closing, open: BTreeMap::new() }
    }

    /// Opens links to the members that have none, and closes those to nodes that are no members; returns the latter.
    pub(crate) fn keep(&mut self, cluster: ClusterId, members: &BTreeMap<NodeId, Member>) -> Vec<NodeId> {
        let me = self.node.id;
        let gone: Vec<_> = self.open.extract_if(.., |node, _| !members.contains_key(node)).collect();
        gone.iter().for_each(|(_, link)| link.cancel());
        for member in members.values().filter(|member| member.node != me) {
            self.open.entry(member.node).or_insert_with(|| {
                let until = self.closing.child_token();
                let (node, member) = (Arc::clone(&self.node), member.clone());
                self.node.tasks.spawn(until.clone().run_until_cancelled_owned(run(node, cluster, member)));
                until
            });
        }
        gone.into_iter().map(|(node, _)| node).collect()
    }

    /// Whether there is to be a link to this node.
    pub(crate) fn include(&self, node: NodeId) -> bool {
        self.open.contains_key(&node)
    }
}

/// Keeps the link to `member` open for ever; tells the owner when it is up and when it is down.
async fn run(node: Arc<Node>, cluster: ClusterId, member: Member) {
    let hello = Hello::new(Some(cluster), Role::Peer { node: node.id });
    let events = &node.events;
    let mut pause = SHORTEST_PAUSE;
    let mut reported = false;
    loop {
        match open(&hello, &member).await {
            Ok((reader, writer)) => {
                tracing::info!(peer = %member.node, address = member.address, "connected");
                (pause, reported) = (SHORTEST_PAUSE, false);
                let (connection, messages) = node.routes.connect(member.node);
                if events.send(Event::PeerUp(member.node)).await.is_err() {
                    return;
                }
                let ended = tokio::select! {
                    ended = read(reader, member.node, events) => ended,
                    ended = write(writer, messages) => ended,
                };
                drop(connection);
                tracing::info!(peer = %member.node, address = member.address, "disconnected: {ended}");
                if events.send(Event::PeerDown(member.node)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if reported {
                    tracing::debug!(peer = %member.node, "cannot connect: {error}");
                } else {
                    reported = true;
                    tracing::info!(peer = %member.node, address = member.address, "cannot connect, and goes on trying: {error}");
                }
                if error.is_no_process() && events.send(Event::PeerRefused(member.node)).await.is_err() {
                    return;
                }
            }
        }
        // Nodes that lost each other at the same moment should not try again at the same moment.
        sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn open(
    hello: &Hello,
    member: &Member,
) -> Result<(Reader, tokio::net::tcp::OwnedWriteHalf), ConnectionError> {
    let (reader, writer, welcome) = frames::connect(&member.address, hello, PEER_FRAME_LIMIT).await?;
    if welcome.node != member.node {
        let message = format!("{} is node {}, not {}", member.address, welcome.node, member.node);
        return Err(ConnectionError::Refused(message));
    }
    Ok((reader, writer))
}

/// Hands the member's replies to the owner until the connection ends.
async fn read(mut reader: Reader, from: NodeId, events: &Sender<Event>) -> ConnectionError {
    loop {
        match frames::receive_entries::<PeerEnvelope>(&mut reader).await {
            Ok(envelope) if envelope.body.is_reply() => {
                if events.send(Event::Peer { from, envelope }).await.is_err() {
                    return ConnectionError::Closed;
                }
            }
            Ok(_) => return ConnectionError::Refused("it sent a request where replies are due".to_owned()),
            Err(error) => return error,
        }
    }
}

/// Writes what is queued until the connection ends.
pub(super) async fn write(
    mut writer: tokio::net::tcp::OwnedWriteHalf,
    mut messages: Receiver<PeerEnvelope>,
) -> ConnectionError {
    let (mut batch, mut buffer) = (Vec::new(), BytesMut::new());
    while messages.recv_many(&mut batch, COALESCED_MESSAGES).await > 0 {
        if let Err(error) = frames::send_all(&mut writer, batch.drain(..), &mut buffer).await {
            return error;
        }
    }
    ConnectionError::Closed
}
