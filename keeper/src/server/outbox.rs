//! What a connection is still to be sent, and the part of its task that sends it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::connection::ConnectionError;
use super::owner::Event;
use crate::core::ConnectionId;

/// While more than this waits, no more requests are taken from the connection.
const MUCH: usize = 1 << 20;

/// What is smaller is put together with what follows it into one write.
const SMALL: usize = 16 << 10;

/// A connection that is to be closed gets this long to take what it is still to be sent.
const FAREWELL: Duration = Duration::from_secs(5);

/// What waits for one connection. Filled by the owner, emptied by the connection's task.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
    /// More than this (and the largest packet that waits) is too much.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Bytes>,
    /// Of what is queued and of what is being written.
    bytes: usize,
    /// The largest that was queued since nothing waited.
    largest: usize,
    end: Option<End>,
    /// The owner wants to hear when there is room again.
    wanted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// After everything that is queued.
    Orderly,
    /// At once.
    Now,
}

/// Tells the owner that there is room in a connection's outbox again.
#[derive(Debug)]
pub(super) struct RoomTeller<'a> {
    pub(super) connection: ConnectionId,
    pub(super) events: &'a mpsc::Sender<Event>,
}

impl RoomTeller<'_> {
    async fn tell(&self) {
        // Without an owner the connection ends anyway.
        let _ = self.events.send(Event::Room(self.connection)).await;
    }
}

/// What the connection's task has to do next.
enum Next {
    Write(Vec<Bytes>),
    Finish,
    Abort,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds whole packets. False if the connection has taken so little of what it was sent that it is given up.
    pub(super) fn push(&self, bytes: Bytes) -> bool {
        let mut state = self.lock();
        if state.end.is_some() {
            return true;
        }
        if state.bytes > self.limit.saturating_add(state.largest) {
            state.end = Some(End::Now);
            state.queue.clear();
        } else {
            state.bytes += bytes.len();
            state.largest = state.largest.max(bytes.len());
            state.queue.push(bytes);
        }
        let is_open = state.end.is_none();
        drop(state);
        self.changed.notify_one();
        is_open
    }

    /// Has the connection closed after what is queued.
    pub(super) fn close(&self) {
        self.lock().end.get_or_insert(End::Orderly);
        self.changed.notify_one();
    }

    /// Whether there is room for answers to further requests. If not, the connection's task will tell when there is.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        state.wanted = state.bytes > MUCH;
        !state.wanted
    }

    async fn next(&self) -> Next {
        loop {
            {
                let mut state = self.lock();
                if state.end == Some(End::Now) {
                    return Next::Abort;
                }
                if !state.queue.is_empty() {
                    return Next::Write(std::mem::take(&mut state.queue));
                }
                if state.end.is_some() {
                    return Next::Finish;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Notes that bytes were written. True if the owner waits to hear of it.
    fn written(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        state.bytes -= bytes;
        if state.bytes == 0 {
            state.largest = 0;
        }
        let has_room = state.wanted && state.bytes <= MUCH / 2;
        if has_room {
            state.wanted = false;
        }
        has_room
    }

    fn is_closing(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Writes what is queued until the connection is to be closed. The owner is told when there is room again.
    pub(super) async fn drain(
        &self,
        half: &mut (impl AsyncWrite + Unpin),
        stall: Duration,
        owner: &RoomTeller<'_>,
    ) -> Result<(), ConnectionError> {
        let mut buffer = BytesMut::new();
        loop {
            let packets = match self.next().await {
                Next::Write(packets) => packets,
                Next::Abort => return Err(ConnectionError::TooMuch),
                Next::Finish => {
                    let _ = timeout(FAREWELL, half.shutdown()).await;
                    return Ok(());
                }
            };
            let mut packets = packets.into_iter().peekable();
            while let Some(packet) = packets.next() {
                let is_alone = buffer.is_empty() && (packet.len() >= SMALL || packets.peek().is_none());
                if is_alone {
                    self.write(half, &packet, stall, owner).await?;
                } else {
                    buffer.extend_from_slice(&packet);
                    if buffer.len() >= SMALL || packets.peek().is_none() {
                        self.write(half, &buffer, stall, owner).await?;
                        buffer = BytesMut::new();
                    }
                }
            }
            flush(half, stall).await?;
        }
    }

    async fn write(
        &self,
        half: &mut (impl AsyncWrite + Unpin),
        mut bytes: &[u8],
        stall: Duration,
        owner: &RoomTeller<'_>,
    ) -> Result<(), ConnectionError> {
        while !bytes.is_empty() {
            let patience = if self.is_closing() { FAREWELL } else { stall };
            let written =
                timeout(patience, half.write(bytes)).await.map_err(|_| ConnectionError::Stalled)??;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            bytes = &bytes[written..];
            if self.written(written) {
                owner.tell().await;
            }
        }
        Ok(())
    }
}

/// Sends what TLS has gathered; plain connections have nothing to do here.
async fn flush(half: &mut (impl AsyncWrite + Unpin), stall: Duration) -> Result<(), ConnectionError> {
    timeout(stall, half.flush()).await.map_err(|_| ConnectionError::Stalled)??;
    Ok(())
}
