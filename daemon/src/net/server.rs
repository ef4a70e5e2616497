//! The listener: takes connections, hears who is there, and hands each to whom it concerns.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::NodeId;
use quorumkv_protocol::frame::PEER_FRAME_LIMIT;
use quorumkv_protocol::hello::{Hello, HelloReply, Limits, Role, Welcome, negotiate};
use quorumkv_protocol::peer::PeerEnvelope;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frames::{self, ConnectionError, HELLO_TIMEOUT, Reader};
use super::routes::Inbound;
use super::{Clients, links};
use crate::shell::Event;

/// Connections that may be saying Hello at the same time. Beyond it, the one that has been silent for longest is closed,
/// so that silence keeps nobody out.
const GREETINGS: usize = 1024;

/// Pause after the system had no file descriptor or memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Serves one port.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    clients: Clients,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    pub(crate) fn new(
        clients: Clients,
        max_connections: usize,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(max_connections));
        Self { clients, connections, tasks, stop }
    }

    /// Takes connections until the node stops.
    pub(crate) async fn run(self, listener: TcpListener) {
        let mut greetings = Greetings::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (server, greeting) = (self.clone(), greetings.begin());
                    self.tasks.spawn(async move {
                        if let Err(error) = server.serve(stream, address, greeting).await {
                            tracing::debug!(%address, "connection ended: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    async fn serve(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        greeting: Greeting,
    ) -> Result<(), ConnectionError> {
        let (mut reader, mut writer) = frames::split(stream)?;
        let hello = tokio::select! {
            hello = timeout(HELLO_TIMEOUT, frames::receive::<Hello>(&mut reader)) => hello,
            // An error would mean that the listener has ended, and the node with it.
            _ = greeting => return Err(ConnectionError::Crowded),
        };
        let hello = match hello.unwrap_or(Err(ConnectionError::Silent)) {
            Ok(hello) => hello,
            Err(error @ ConnectionError::Frame(_)) => {
                let message = format!("this is a quorumkv port, and the first frame is no Hello: {error}");
                refuse(&mut writer, ErrorCode::Malformed, message).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let ours = self.clients.node.cluster();
        let version = match negotiate(&hello, ours) {
            Ok(version) => version,
            Err(error) => {
                tracing::warn!(%address, "refused a connection: {error}");
                return Ok(refuse(&mut writer, error.code(), error.to_string()).await?);
            }
        };
        let welcome = HelloReply::Welcome(Welcome {
            version,
            cluster: ours,
            node: self.clients.node.id,
            committed: self.clients.node.committed(),
            limits: Limits::DEFAULT,
        });
        match hello.role {
            Role::Peer { node } => {
                if let Some((code, message)) = self.objection(node) {
                    return Ok(refuse(&mut writer, code, message).await?);
                }
                let served = self.serve_peer(node, &welcome, reader, writer);
                self.stop.run_until_cancelled(served).await.unwrap_or(Ok(()))
            }
            Role::Client { .. } | Role::Forwarder { .. } => {
                let Ok(_connection) = self.connections.try_acquire() else {
                    let message =
                        "this node has as many connections as it takes: try another, or later".to_owned();
                    return Ok(refuse(&mut writer, ErrorCode::Overloaded, message).await?);
                };
                frames::send(&mut writer, &welcome).await?;
                let forwarded = matches!(hello.role, Role::Forwarder { .. });
                self.clients.serve(reader, writer, address, forwarded, &self.stop).await
            }
        }
    }

    /// Why a node may not send peer messages here. That it is no member here is no reason: it may be one by a configuration
    /// that this node does not have yet, and one that was removed has to be told so.
    fn objection(&self, node: NodeId) -> Option<(ErrorCode, String)> {
        if self.clients.node.cluster().is_none() {
            return Some((ErrorCode::NotReady, "this node does not belong to a cluster yet".to_owned()));
        }
        let is_this = node == self.clients.node.id;
        is_this.then(|| (ErrorCode::NotPermitted, format!("node {node} is this node itself")))
    }

    /// Takes a member's requests; the replies go back over this connection.
    async fn serve_peer(
        &self,
        node: NodeId,
        welcome: &HelloReply,
        mut reader: Reader,
        mut writer: OwnedWriteHalf,
    ) -> Result<(), ConnectionError> {
        let Some((inbound, replies)) = self.clients.node.routes.accept(node) else {
            let message = "this node has more connections of members than members need".to_owned();
            return Ok(refuse(&mut writer, ErrorCode::Overloaded, message).await?);
        };
        frames::send(&mut writer, welcome).await?;
        reader.open_up(PEER_FRAME_LIMIT, None);
        tokio::select! {
            ended = read_requests(reader, node, &inbound, self.clients.node.events.clone()) => Err(ended),
            ended = links::write(writer, replies) => Err(ended),
        }
    }
}

/// Tells a connection that has not said Hello that others need its place.
type Greeting = oneshot::Receiver<()>;

/// The connections that have not said Hello yet, oldest first, among some that have.
#[derive(Default)]
struct Greetings(VecDeque<oneshot::Sender<()>>);

impl Greetings {
    /// One more; if there are too many, the oldest has to go.
    fn begin(&mut self) -> Greeting {
        while self.0.front().is_some_and(oneshot::Sender::is_closed) {
            self.0.pop_front();
        }
        if self.0.len() >= GREETINGS {
            self.0.retain(|greeting| !greeting.is_closed());
        }
        if self.0.len() >= GREETINGS
            && let Some(oldest) = self.0.pop_front()
        {
            // It may have said Hello just now: then nobody listens.
            let _ = oldest.send(());
        }
        let (end, greeting) = oneshot::channel();
        self.0.push_back(end);
        greeting
    }
}

async fn refuse(writer: &mut OwnedWriteHalf, code: ErrorCode, message: String) -> std::io::Result<()> {
    frames::send(writer, &HelloReply::Refused { code, message }).await
}

/// Hands a member's requests to the owner until the connection ends.
async fn read_requests(
    mut reader: Reader,
    from: NodeId,
    inbound: &Inbound,
    events: mpsc::Sender<Event>,
) -> ConnectionError {
    loop {
        match frames::receive_entries::<PeerEnvelope>(&mut reader).await {
            Ok(mut envelope) if !envelope.body.is_reply() => {
                if !inbound.mark(&mut envelope) {
                    return ConnectionError::Refused("the number of its request is too large".to_owned());
                }
                if events.send(Event::Peer { from, envelope }).await.is_err() {
                    return ConnectionError::Closed;
                }
            }
            Ok(_) => return ConnectionError::Refused("it sent a reply where requests are due".to_owned()),
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_keeps_nobody_out_and_costs_those_who_spoke_nothing() {
        let mut greetings = Greetings::default();
        let mut silent: Vec<Greeting> = (0..GREETINGS).map(|_| greetings.begin()).collect();
        // The second says Hello, so that there is room for one more.
        drop(silent.remove(1));
        silent.push(greetings.begin());
        assert!(silent.iter_mut().all(|greeting| greeting.try_recv().is_err()), "nobody has to go yet");
        silent.push(greetings.begin());
        assert_eq!(silent[0].try_recv(), Ok(()), "the oldest goes");
        assert!(silent[1..].iter_mut().all(|greeting| greeting.try_recv().is_err()), "and nobody else");
    }
}
