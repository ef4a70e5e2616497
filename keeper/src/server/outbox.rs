//! What a connection is still to be sent, and the part of its task that sends it.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use super::connection::ConnectionError;
use super::owner::Event;
use crate::core::ConnectionId;

/// While more than this waits, no more requests are taken from the connection.
const MUCH: usize = 1 << 20;

/// What is smaller is put together with what follows it into one write.
const SMALL: usize = 16 << 10;

/// However much waits for all connections together, none is given up for which no more than this waits.
const LITTLE: usize = 64 << 10;

/// What it takes to queue packets, besides their bytes.
const OVERHEAD: usize = 64;

/// What a client has to take of what it is sent within the time that it gets for that, if it does not take all of it.
const PROGRESS: usize = 256 << 10;

/// A connection that is to be closed gets this long to take what it is still to be sent.
const FAREWELL: Duration = Duration::from_secs(5);

/// What waits for all connections together.
#[derive(Debug)]
pub(super) struct Total {
    bytes: AtomicUsize,
    /// More than this is too much.
    limit: usize,
}

impl Total {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), limit }
    }

    fn is_too_much(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.limit
    }
}

/// While too much waits altogether, gives up the connections for which most does. Returns which.
pub(super) fn relieve<'a, K: Copy>(
    total: &Total,
    outboxes: &(impl Iterator<Item = (K, &'a Outbox)> + Clone),
) -> Vec<K> {
    let mut given_up = Vec::new();
    while total.is_too_much() {
        let held = outboxes.clone().map(|(key, outbox)| (outbox.lock().bytes, key, outbox));
        let Some((bytes, key, outbox)) = held.max_by_key(|(bytes, ..)| *bytes) else { break };
        if bytes <= LITTLE {
            break;
        }
        outbox.give_up();
        given_up.push(key);
    }
    given_up
}

/// What waits for one connection. Filled by the owner, emptied by the connection's task.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
    closing: Notify,
    given_up: Notify,
    /// More than this (and the largest packet that waits) is too much.
    limit: usize,
    total: Arc<Total>,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Bytes>,
    /// Of what is queued and of what is being written. 0 for a connection that was given up.
    bytes: usize,
    /// The largest that was queued since nothing waited.
    largest: usize,
    end: Option<End>,
    /// Something was written since the owner has asked last.
    has_moved: bool,
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
}

impl Outbox {
    pub(super) fn new(limit: usize, total: Arc<Total>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            closing: Notify::new(),
            given_up: Notify::new(),
            limit,
            total,
        }
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
            drop(state);
            self.give_up();
            return false;
        }
        let size = bytes.len() + OVERHEAD;
        self.total.bytes.fetch_add(size, Ordering::Relaxed);
        state.bytes += size;
        state.largest = state.largest.max(size);
        state.queue.push(bytes);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Has the connection closed after what is queued.
    pub(super) fn close(&self) {
        self.lock().end.get_or_insert(End::Orderly);
        self.changed.notify_one();
        self.closing.notify_one();
    }

    /// Has the connection closed at once, and what waits for it forgotten.
    fn give_up(&self) {
        let mut state = self.lock();
        state.end = Some(End::Now);
        state.queue = Vec::new();
        self.total.bytes.fetch_sub(std::mem::take(&mut state.bytes), Ordering::Relaxed);
        drop(state);
        self.given_up.notify_one();
    }

    /// Whether there is room for answers to further requests. If not, the connection's task will tell when there is.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        state.wanted = state.bytes > MUCH;
        !state.wanted
    }

    /// Whether the client has taken anything since this was asked last.
    pub(super) fn has_moved(&self) -> bool {
        std::mem::take(&mut self.lock().has_moved)
    }

    async fn next(&self) -> Next {
        loop {
            {
                let mut state = self.lock();
                if !state.queue.is_empty() {
                    let queue = std::mem::take(&mut state.queue);
                    let overhead = queue.len() * OVERHEAD;
                    self.total.bytes.fetch_sub(overhead, Ordering::Relaxed);
                    state.bytes -= overhead;
                    return Next::Write(queue);
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
        if state.end == Some(End::Now) {
            return false;
        }
        self.total.bytes.fetch_sub(bytes, Ordering::Relaxed);
        state.bytes -= bytes;
        state.has_moved = true;
        if state.bytes == 0 {
            state.largest = 0;
        }
        let has_room = state.wanted && state.bytes <= MUCH / 2;
        if has_room {
            state.wanted = false;
        }
        has_room
    }

    /// Writes what is queued until the connection is to be closed. The owner is told when there is room again.
    pub(super) async fn drain(
        &self,
        half: &mut (impl AsyncWrite + Unpin),
        stall: Duration,
        owner: &RoomTeller<'_>,
    ) -> Result<(), ConnectionError> {
        let mut writes = pin!(self.write_on(half, stall, owner));
        tokio::select! {
            biased;
            () = self.given_up.notified() => return Err(ConnectionError::TooMuch),
            ended = &mut writes => return ended,
            () = self.closing.notified() => {}
        }
        tokio::select! {
            biased;
            () = self.given_up.notified() => Err(ConnectionError::TooMuch),
            ended = timeout(FAREWELL, writes) => ended.unwrap_or(Err(ConnectionError::Stalled)),
        }
    }

    async fn write_on(
        &self,
        half: &mut (impl AsyncWrite + Unpin),
        stall: Duration,
        owner: &RoomTeller<'_>,
    ) -> Result<(), ConnectionError> {
        let mut buffer = BytesMut::new();
        loop {
            let packets = match self.next().await {
                Next::Write(packets) => packets,
                Next::Finish => {
                    // Whoever is gone already has been sent everything.
                    let _ = half.shutdown().await;
                    return Ok(());
                }
            };
            let mut pace = Pace { stall, since: Instant::now(), taken: 0 };
            let mut packets = packets.into_iter().peekable();
            while let Some(packet) = packets.next() {
                let is_alone = buffer.is_empty() && (packet.len() >= SMALL || packets.peek().is_none());
                if is_alone {
                    self.write(half, &packet, &mut pace, owner).await?;
                } else {
                    buffer.extend_from_slice(&packet);
                    if buffer.len() >= SMALL || packets.peek().is_none() {
                        self.write(half, &buffer, &mut pace, owner).await?;
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
        pace: &mut Pace,
        owner: &RoomTeller<'_>,
    ) -> Result<(), ConnectionError> {
        while !bytes.is_empty() {
            // It may have taken enough until the time is up: the next turn tells.
            let Ok(written) = timeout(pace.patience()?, half.write(bytes)).await else { continue };
            let written = written?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            pace.taken += written;
            bytes = &bytes[written..];
            if self.written(written) {
                owner.tell().await;
            }
        }
        Ok(())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.total.bytes.fetch_sub(self.lock().bytes, Ordering::Relaxed);
    }
}

/// How fast a client takes what it is sent: fast enough, unless it holds memory for nothing.
struct Pace {
    /// In this time it has to take [`PROGRESS`].
    stall: Duration,
    since: Instant,
    taken: usize,
}

impl Pace {
    /// How much longer it has at the moment.
    fn patience(&mut self) -> Result<Duration, ConnectionError> {
        if self.since.elapsed() >= self.stall {
            if self.taken < PROGRESS {
                return Err(ConnectionError::Stalled);
            }
            (self.since, self.taken) = (Instant::now(), 0);
        }
        Ok(self.stall.saturating_sub(self.since.elapsed()))
    }
}

/// Sends what TLS has gathered; plain connections have nothing to do here.
async fn flush(half: &mut (impl AsyncWrite + Unpin), stall: Duration) -> Result<(), ConnectionError> {
    timeout(stall, half.flush()).await.map_err(|_| ConnectionError::Stalled)??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::time::sleep;

    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    /// Sends so many bytes to a client that takes so many of them a second, and has no room for more.
    async fn send(bytes: usize, taken_a_second: usize) -> Result<(), ConnectionError> {
        let outbox = Outbox::new(usize::MAX, Arc::new(Total::new(usize::MAX)));
        assert!(outbox.push(Bytes::from(vec![0; bytes])));
        let (mut half, mut client) = duplex(1);
        let (events, _held) = mpsc::channel(100);
        let owner = RoomTeller { connection: ConnectionId(1), events: &events };
        let client = tokio::spawn(async move {
            let mut buffer = vec![0; taken_a_second];
            while client.read_exact(&mut buffer).await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let sent = outbox.drain(&mut half, STALL, &owner);
        let all_taken = async {
            while outbox.lock().bytes > 0 {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let ended = tokio::select! { ended = sent => ended, () = all_taken => Ok(()) };
        client.abort();
        ended
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_to_take_what_it_is_sent_at_a_modest_rate() {
        assert!(matches!(send(2 << 20, 1000).await, Err(ConnectionError::Stalled)), "a trickle");
        assert!(send(20_000, 1000).await.is_ok(), "little, and all of it in time");
        assert!(send(2 << 20, 10_000).await.is_ok(), "slow, and not too slow");
    }

    /// Has an outbox written to a client that takes nothing, and `then` happen to it. How it ends, and after how long.
    async fn blocked(then: impl FnOnce(&Outbox)) -> (ConnectionError, Duration) {
        let outbox = Outbox::new(usize::MAX, Arc::new(Total::new(usize::MAX)));
        assert!(outbox.push(Bytes::from(vec![0; 1000])));
        let (mut half, _client) = duplex(1);
        let (events, _held) = mpsc::channel(100);
        let owner = RoomTeller { connection: ConnectionId(1), events: &events };
        let begun = Instant::now();
        let happens = async {
            sleep(Duration::from_secs(1)).await;
            then(&outbox);
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! { ended = outbox.drain(&mut half, STALL, &owner) => ended, () = happens => Ok(()) };
        (ended.expect_err("nothing is taken"), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_given_up_or_closed_does_not_wait_for_a_client_that_takes_nothing() {
        let (ended, after) = blocked(Outbox::give_up).await;
        assert!(matches!(ended, ConnectionError::TooMuch) && after.as_secs() == 1, "{ended} after {after:?}");
        let (ended, after) = blocked(Outbox::close).await;
        assert!(matches!(ended, ConnectionError::Stalled) && after.as_secs() == 6, "{ended} after {after:?}");
    }

    #[test]
    fn whom_most_waits_for_is_given_up_when_too_much_waits_altogether() {
        let total = Arc::new(Total::new(1 << 20));
        let outboxes = [0; 4].map(|_| Outbox::new(usize::MAX, Arc::clone(&total)));
        let relieved = || relieve(&total, &outboxes.iter().enumerate());
        assert!(outboxes[1].push(Bytes::from(vec![0; 700 << 10])));
        assert!(outboxes[2].push(Bytes::from(vec![0; 100 << 10])));
        assert!(relieved().is_empty(), "there is room");
        assert!(outboxes[3].push(Bytes::from(vec![0; 800 << 10])));
        assert!(outboxes[0].push(Bytes::from_static(b"a")));
        assert_eq!(relieved(), [3]);
        assert!(
            !outboxes[3].written(100) && outboxes[3].push(Bytes::from_static(b"late")),
            "it is forgotten"
        );
        assert_eq!(
            total.bytes.load(Ordering::Relaxed),
            outboxes.iter().map(|o| o.lock().bytes).sum::<usize>()
        );
        drop(outboxes);
        assert_eq!(total.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn small_packets_count_with_what_it_takes_to_queue_them() {
        let outbox = Outbox::new(10_000, Arc::new(Total::new(usize::MAX)));
        let pushed = (0..10_000).take_while(|_| outbox.push(Bytes::from_static(b"a"))).count();
        assert!((100..200).contains(&pushed), "{pushed}");
    }
}
