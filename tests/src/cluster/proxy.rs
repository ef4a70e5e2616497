//! Links between nodes that can be cut: every node advertises a proxy, which knows from the first frame of a
//! connection who has opened it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Mutex;

use bytes::BytesMut;
use quorumkv_client::NodeId;
use quorumkv_protocol::frame::{self, FrameDecoder, HELLO_FRAME_LIMIT};
use quorumkv_protocol::hello::{Hello, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ClusterError;
use crate::zookeeper::ReservedPort;

/// Bytes that a proxy takes in before it passes them on.
const BUFFER: usize = 64 << 10;

/// Links that are cut: who opened the connection, and to which node.
type Cuts = HashSet<(NodeId, usize)>;

/// All links of a cluster. Dropping this ends the proxies and their connections.
#[derive(Debug)]
pub(super) struct Links {
    cuts: watch::Sender<Cuts>,
    ids: Mutex<HashMap<usize, NodeId>>,
    _proxies: JoinSet<()>,
    _ports: Vec<ReservedPort>,
}

impl Links {
    /// Starts a proxy per node: `targets` are the proxies' ports and the nodes' own.
    pub(super) async fn start(targets: Vec<(ReservedPort, u16)>) -> Result<Self, ClusterError> {
        let (cuts, watched) = watch::channel(Cuts::new());
        let (mut proxies, mut ports) = (JoinSet::new(), Vec::new());
        for (node, (reserved, target)) in targets.into_iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", reserved.port())).await;
            let listener = listener
                .map_err(|source| ClusterError::Io { action: format!("listen for node {node}"), source })?;
            proxies.spawn(serve(listener, node, target, watched.clone()));
            ports.push(reserved);
        }
        Ok(Self { cuts, ids: Mutex::default(), _proxies: proxies, _ports: ports })
    }

    /// The identity of a node, if a link of its has been cut before.
    pub(super) fn id(&self, node: usize) -> Option<NodeId> {
        self.ids().get(&node).copied()
    }

    pub(super) fn cut(&self, from: usize, id: NodeId, to: usize) {
        self.ids().insert(from, id);
        self.cuts.send_if_modified(|cuts| cuts.insert((id, to)));
    }

    pub(super) fn heal(&self, from: usize, to: usize) {
        if let Some(id) = self.id(from) {
            self.cuts.send_if_modified(|cuts| cuts.remove(&(id, to)));
        }
    }

    pub(super) fn heal_all(&self) {
        self.cuts.send_modify(Cuts::clear);
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, HashMap<usize, NodeId>> {
        self.ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, node: usize, target: u16, cuts: watch::Receiver<Cuts>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let cuts = cuts.clone();
                connections.spawn(async move {
                    // Either side may end or break the connection at any time; the other is told by the drop.
                    let _ = pass_on(stream, node, target, cuts).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass_on(
    mut opener: TcpStream,
    node: usize,
    target: u16,
    cuts: watch::Receiver<Cuts>,
) -> io::Result<()> {
    opener.set_nodelay(true)?;
    let (who, first) = greet(&mut opener).await?;
    let gate = Gate { link: who.map(|who| (who, node)), cuts };
    let mut target = TcpStream::connect(("127.0.0.1", target)).await?;
    target.set_nodelay(true)?;
    gate.clone().open().await;
    target.write_all(&first).await?;
    let (opener_reads, opener_writes) = opener.split();
    let (target_reads, target_writes) = target.split();
    tokio::select! {
        ended = pump(opener_reads, target_writes, gate.clone()) => ended,
        ended = pump(target_reads, opener_writes, gate.clone()) => ended,
    }
}

/// Reads the first frame: the node that has opened the connection, and all bytes that were read.
async fn greet(opener: &mut TcpStream) -> io::Result<(Option<NodeId>, BytesMut)> {
    let mut received = BytesMut::new();
    loop {
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let body = FrameDecoder::new(HELLO_FRAME_LIMIT).decode(&mut received.clone()).map_err(malformed)?;
        if let Some(body) = body {
            let hello: Hello = frame::decode(&body).map_err(malformed)?;
            return Ok(match hello.role {
                Role::Peer { node } | Role::Forwarder { node } => (Some(node), received),
                Role::Client { .. } => (None, received),
            });
        }
        if opener.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Passes bytes on in one direction, as long as the link is not cut.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: Gate,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        gate.open().await;
        to.write_all(&buffer[..count]).await?;
    }
}

/// Whether one connection's link is cut.
#[derive(Clone)]
struct Gate {
    link: Option<(NodeId, usize)>,
    cuts: watch::Receiver<Cuts>,
}

impl Gate {
    /// Waits until the link is whole.
    async fn open(&mut self) {
        let Some(link) = self.link else { return };
        // It ends early only when the cluster does, and then nothing matters any more.
        let _ = self.cuts.wait_for(|cuts| !cuts.contains(&link)).await;
    }
}
