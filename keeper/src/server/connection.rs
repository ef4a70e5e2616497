//! One connection: a task that reads packets for the owner, and writes what the owner has put into its outbox.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::Limits;
use super::four_letter::{Whitelist, Word};
use super::frames::{Batch, Budget, Frames};
use super::outbox::{Outbox, RoomTeller};
use super::owner::Event;
use crate::core::ConnectionId;

/// After the last byte was sent, the other side gets this long to close too: what it has sent meanwhile would otherwise have
/// the system take back what was sent to it.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    /// The other side closed it.
    #[error("the client closed it")]
    Closed,
    /// The network failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A length that no packet has.
    #[error("a packet announces {} bytes", i32::from_be_bytes(*.0))]
    Length([u8; 4]),
    /// The client has not said what it wants.
    #[error("no request to connect came in time")]
    Silent,
    /// A packet is not completed, or the client takes nothing of what it is sent.
    #[error("it made no progress")]
    Stalled,
    /// The client does not take what it is sent.
    #[error("the client takes too little of what it is sent")]
    TooMuch,
}

/// What the connections of a server have in common.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) whitelist: Whitelist,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
}

/// The owner's handle of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) outbox: Outbox,
    /// Holds a permit while the owner has room for packets of this connection.
    pub(super) gate: Semaphore,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) connection: ConnectionId,
    pub(super) address: SocketAddr,
    /// The subject of its certificate, if it has shown one.
    pub(super) certificate: Option<String>,
}

/// Serves a connection until it ends.
pub(super) async fn serve<R, W>(
    context: Context,
    peer: Peer,
    (read, mut write): (R, W),
) -> Result<(), ConnectionError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut frames = Frames::new(read, context.budget.clone(), context.limits.progress_timeout);
    let first = timeout(context.limits.connect_timeout, frames.batch()).await;
    let batch = match first.unwrap_or(Err(ConnectionError::Silent)) {
        Ok(batch) => batch,
        Err(ConnectionError::Length(header)) => {
            let Some(word) = Word::parse(header) else { return Err(ConnectionError::Length(header)) };
            let text = answer(&context, word, peer.address).await?;
            let farewell = async {
                write.write_all(text.as_bytes()).await?;
                write.shutdown().await
            };
            timeout(context.limits.connect_timeout, farewell)
                .await
                .map_err(|_| ConnectionError::Stalled)??;
            let _ = timeout(LINGER, frames.discard()).await;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let connection = peer.connection;
    let link = Arc::new(Link { outbox: Outbox::new(context.limits.outbox_bytes), gate: Semaphore::new(1) });
    let entropy = rand::random();
    send(&context, Event::Opened { peer, entropy, link: Arc::clone(&link) }).await?;
    let stall = context.limits.progress_timeout;
    let owner = RoomTeller { connection, events: &context.events };
    let ended = tokio::select! {
        ended = read_on(&context, connection, &link, &mut frames, batch) => Err(ended),
        ended = link.outbox.drain(&mut write, stall, &owner) => ended,
    };
    send(&context, Event::Closed(connection)).await?;
    if ended.is_ok() {
        let _ = timeout(LINGER, frames.discard()).await;
    }
    ended
}

/// Hands packets to the owner, as fast as it takes them.
async fn read_on<R: AsyncRead + Unpin>(
    context: &Context,
    connection: ConnectionId,
    link: &Link,
    frames: &mut Frames<R>,
    mut batch: Batch,
) -> ConnectionError {
    loop {
        link.gate.acquire().await.expect("the gate is never closed").forget();
        if let Err(error) = send(context, Event::Packets { connection, batch }).await {
            return error;
        }
        batch = match frames.batch().await {
            Ok(batch) => batch,
            Err(error) => return error,
        };
    }
}

async fn send(context: &Context, event: Event) -> Result<(), ConnectionError> {
    context.events.send(event).await.map_err(|_| ConnectionError::Closed)
}

/// What a four-letter word is answered that came from this address.
async fn answer(context: &Context, word: Word, from: SocketAddr) -> Result<String, ConnectionError> {
    if !context.whitelist.permits(word) {
        return Ok(format!("{word} is not executed because it is not in the whitelist.\n"));
    }
    let (reply, answer) = oneshot::channel();
    send(context, Event::Word { word, from, reply }).await?;
    answer.await.map_err(|_| ConnectionError::Closed)
}
