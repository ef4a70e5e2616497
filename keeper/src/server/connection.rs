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
use super::outbox::{Outbox, RoomTeller, Total};
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
    pub(super) outboxes: Arc<Total>,
}

/// The owner's handle of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) outbox: Outbox,
    /// Gets a permit when the owner has taken in all packets that it was handed.
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
    let outbox = Outbox::new(context.limits.outbox_bytes, Arc::clone(&context.outboxes));
    let link = Arc::new(Link { outbox, gate: Semaphore::new(0) });
    let entropy = rand::random();
    send(&context, Event::Opened { peer, entropy, link: Arc::clone(&link) }).await?;
    let stall = context.limits.progress_timeout;
    let owner = RoomTeller { connection, events: &context.events };
    let ended = tokio::select! {
        ended = read_on(&context, connection, &link, &mut frames, batch) => Err(ended),
        ended = link.outbox.drain(&mut write, stall, &owner) => ended,
    };
    // An owner that has stopped knows.
    let _ = send(&context, Event::Closed(connection)).await;
    if ended.is_ok() {
        let _ = timeout(LINGER, frames.discard()).await;
    }
    ended
}

/// Hands packets to the owner, and reads on when it has taken them in: what waits to be taken in, and the memory that it
/// has from the budget, is never more than what was read at once.
async fn read_on<R: AsyncRead + Unpin>(
    context: &Context,
    connection: ConnectionId,
    link: &Link,
    frames: &mut Frames<R>,
    mut batch: Batch,
) -> ConnectionError {
    loop {
        if send(context, Event::Packets { connection, batch }).await.is_err() {
            // The owner has stopped. What it has put into the outbox is still to be sent.
            std::future::pending::<()>().await;
        }
        link.gate.acquire().await.expect("the gate is never closed").forget();
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, duplex, split};

    use super::super::Limits;
    use super::*;

    const PACKET: [u8; 8] = [0, 0, 0, 4, 1, 2, 3, 4];

    #[tokio::test]
    async fn what_the_owner_has_answered_is_sent_even_when_it_has_stopped() {
        let (events, mut owner) = mpsc::channel(10);
        let limits = Limits::default();
        let context = Context {
            events,
            whitelist: Whitelist::default(),
            budget: Budget::new(limits.packet_bytes),
            outboxes: Arc::new(Total::new(limits.all_outbox_bytes)),
            limits,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let peer = Peer { connection: ConnectionId(1), address, certificate: None };
        let (mut client, server) = duplex(100);
        let serving = tokio::spawn(serve(context, peer, split(server)));
        client.write_all(&PACKET).await.expect("written");
        let Some(Event::Opened { link, .. }) = owner.recv().await else { panic!("there is a connection") };
        assert!(matches!(owner.recv().await, Some(Event::Packets { .. })));
        link.gate.add_permits(1);
        assert!(link.outbox.push(Bytes::from(vec![7; 10_000])));
        link.outbox.close();
        drop(owner);
        // The client asks on: that nobody takes it must not end what is under way.
        client.write_all(&PACKET).await.expect("written");
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.expect("read");
        assert_eq!(received.len(), 10_000);
        drop(client);
        serving.await.expect("ended").expect("in good order");
    }
}
