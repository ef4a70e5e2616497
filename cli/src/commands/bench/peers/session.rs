//! A session with one ZooKeeper server on which requests are sent ahead.
//!
//! Smaller and quicker than a client for every purpose: what several clients ask at the same moment leaves in one
//! write, and nothing is retried, so that what is measured is the server.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorumkv_client::Endpoint;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

/// What a session asks for, in milliseconds. The server may give it more or less.
const TIMEOUT_MS: i32 = 10_000;

/// Requests that wait to be written. Whoever has one more waits.
const QUEUE: usize = 1024;

/// Longest answer that is believed.
const LONGEST: usize = 64 << 20;

/// The id of a request, the server's transaction and an error: what every answer begins with.
const HEADER: usize = 16;

/// The error of an answer that says that all is well.
const OK: i32 = 0;

const PING_XID: i32 = -2;

/// What is asked, with its number in the protocol.
mod op {
    pub(super) const CREATE: i32 = 1;
    pub(super) const GET_DATA: i32 = 4;
    pub(super) const SET_DATA: i32 = 5;
    pub(super) const SYNC: i32 = 9;
    pub(super) const PING: i32 = 11;
    pub(super) const CLOSE: i32 = -11;
}

/// Why something was not done.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    /// There is no connection.
    #[error("{0}")]
    Connect(io::Error),
    /// It closes the connection instead of giving a session.
    #[error("it gives no session: it may have no quorum, or too many connections")]
    NoSession,
    /// What it answers is no answer.
    #[error("its answer makes no sense")]
    Nonsense,
    /// The connection has ended.
    #[error("the connection is lost")]
    Lost,
    /// The server refuses.
    #[error("{} ({code})", name(*code))]
    Refused {
        /// The error's number in the protocol.
        code: i32,
    },
}

impl SessionError {
    pub(super) const NO_NODE: i32 = -101;
    pub(super) const NO_AUTH: i32 = -102;
    pub(super) const NODE_EXISTS: i32 = -110;
    pub(super) const AUTH_FAILED: i32 = -115;
    pub(super) const NEEDS_SASL: i32 = -124;

    /// Whether the server refuses for this reason.
    pub(super) fn is(&self, reason: i32) -> bool {
        matches!(self, Self::Refused { code } if *code == reason)
    }
}

const fn name(code: i32) -> &'static str {
    match code {
        -4 => "connection loss",
        -7 => "operation timeout",
        SessionError::NO_NODE => "no such znode",
        SessionError::NO_AUTH => "not permitted",
        SessionError::NODE_EXISTS => "the znode exists",
        -112 => "the session has expired",
        SessionError::AUTH_FAILED => "authentication failed",
        -119 => "the server is read-only",
        SessionError::NEEDS_SASL => "SASL is required",
        -125 => "a quota is exceeded",
        _ => "an error",
    }
}

/// A session. Ends with its last clone.
#[derive(Clone)]
pub(super) struct Session {
    requests: mpsc::Sender<Outbound>,
    _task: Arc<AbortOnDrop>,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Outbound {
    frame: BytesMut,
    /// None for what is answered without being waited for.
    reply: Option<Reply>,
}

/// The error of an answer, and what follows it.
type Reply = oneshot::Sender<(i32, Bytes)>;

/// Who waits for answers, in the order of their requests. As many as there are clients, or those who fill keys.
type Waiting = Mutex<VecDeque<Reply>>;

/// A request that is on its way.
pub(super) struct Pending(oneshot::Receiver<(i32, Bytes)>);

impl Pending {
    /// What follows the header of the answer.
    pub(super) async fn done(self) -> Result<Bytes, SessionError> {
        match self.0.await {
            Ok((OK, body)) => Ok(body),
            Ok((code, _)) => Err(SessionError::Refused { code }),
            Err(_) => Err(SessionError::Lost),
        }
    }
}

impl Session {
    /// A new session. That is a write of the whole ensemble, too.
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, SessionError> {
        let mut stream = TcpStream::connect(endpoint.as_str()).await.map_err(SessionError::Connect)?;
        stream.set_nodelay(true).map_err(SessionError::Connect)?;
        let ping_each = shake_hands(&mut stream).await?;
        let (requests, received) = mpsc::channel(QUEUE);
        let (read, write) = stream.into_split();
        let task = tokio::spawn(async move {
            let waiting = Waiting::default();
            // When one of them ends, nobody waits any longer.
            tokio::select! {
                _ = write_requests(write, received, &waiting, ping_each) => {}
                () = read_replies(read, &waiting) => {}
            }
        });
        Ok(Self { requests, _task: Arc::new(AbortOnDrop(task.abort_handle())) })
    }

    async fn send(&self, op: i32, body: impl FnOnce(&mut BytesMut)) -> Result<Pending, SessionError> {
        let (reply, answer) = oneshot::channel();
        // Answers come in the order of the requests, so these need no numbers of their own.
        let outbound = Outbound { frame: request(1, op, body), reply: Some(reply) };
        self.requests.send(outbound).await.map_err(|_| SessionError::Lost)?;
        Ok(Pending(answer))
    }

    /// Creates a persistent znode that is open to everyone.
    pub(super) async fn create(&self, path: &str, data: &[u8]) -> Result<Pending, SessionError> {
        const ALL: i32 = 31;
        const PERSISTENT: i32 = 0;
        let body = |frame: &mut BytesMut| {
            put_bytes(frame, path.as_bytes());
            put_bytes(frame, data);
            frame.put_i32(1);
            frame.put_i32(ALL);
            put_bytes(frame, b"world");
            put_bytes(frame, b"anyone");
            frame.put_i32(PERSISTENT);
        };
        self.send(op::CREATE, body).await
    }

    /// Replaces the data of a znode, whatever its version is.
    pub(super) async fn set_data(&self, path: &str, data: &[u8]) -> Result<Pending, SessionError> {
        let body = |frame: &mut BytesMut| {
            put_bytes(frame, path.as_bytes());
            put_bytes(frame, data);
            frame.put_i32(-1);
        };
        self.send(op::SET_DATA, body).await
    }

    /// Reads the data of a znode, and leaves no watch.
    pub(super) async fn get_data(&self, path: &str) -> Result<Pending, SessionError> {
        let body = |frame: &mut BytesMut| {
            put_bytes(frame, path.as_bytes());
            frame.put_u8(0);
        };
        self.send(op::GET_DATA, body).await
    }

    /// Has the server catch up with the leader.
    pub(super) async fn sync(&self, path: &str) -> Result<Pending, SessionError> {
        self.send(op::SYNC, |frame| put_bytes(frame, path.as_bytes())).await
    }

    /// Ends the session, so that the server need not wait until it expires.
    pub(super) async fn close(&self) -> Result<(), SessionError> {
        self.send(op::CLOSE, |_| {}).await?.done().await.map(drop)
    }
}

/// Asks for a session: how often to ping the server to keep it.
async fn shake_hands(stream: &mut TcpStream) -> Result<Duration, SessionError> {
    let mut hello = BytesMut::new();
    hello.put_i32(44);
    // The protocol's version, the last transaction seen, the timeout, and no session yet.
    hello.put_i32(0);
    hello.put_i64(0);
    hello.put_i32(TIMEOUT_MS);
    hello.put_i64(0);
    put_bytes(&mut hello, &[0; 16]);
    stream.write_all(&hello).await.map_err(|_| SessionError::NoSession)?;
    let length = stream.read_u32().await.map_err(|_| SessionError::NoSession)?;
    if !(20..=64).contains(&length) {
        return Err(SessionError::Nonsense);
    }
    let mut welcome = vec![0; length as usize];
    stream.read_exact(&mut welcome).await.map_err(|_| SessionError::NoSession)?;
    let mut welcome = welcome.as_slice();
    let _version = welcome.get_i32();
    let (timeout_ms, session) = (welcome.get_i32(), welcome.get_i64());
    match u64::try_from(timeout_ms) {
        Ok(timeout_ms) if timeout_ms > 0 && session != 0 => {
            Ok(Duration::from_millis((timeout_ms / 4).max(1)))
        }
        _ => Err(SessionError::NoSession),
    }
}

fn request(xid: i32, op: i32, body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut frame = BytesMut::with_capacity(320);
    frame.put_u32(0);
    frame.put_i32(xid);
    frame.put_i32(op);
    body(&mut frame);
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

fn put_bytes(frame: &mut BytesMut, data: &[u8]) {
    frame.put_i32(i32::try_from(data.len()).unwrap_or(i32::MAX));
    frame.put_slice(data);
}

/// Nothing panics while this lock is held, so a poisoned one is still sound.
fn lock(waiting: &Waiting) -> MutexGuard<'_, VecDeque<Reply>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_requests(
    mut write: OwnedWriteHalf,
    mut requests: mpsc::Receiver<Outbound>,
    waiting: &Waiting,
    ping_each: Duration,
) -> io::Result<()> {
    let (mut batch, mut buffer) = (Vec::with_capacity(256), BytesMut::with_capacity(64 << 10));
    let mut pings = interval(ping_each);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = requests.recv_many(&mut batch, 256) => {
                if received == 0 {
                    return Ok(());
                }
            }
            _ = pings.tick() => batch.push(Outbound { frame: request(PING_XID, op::PING, |_| {}), reply: None }),
        }
        buffer.clear();
        {
            let mut waiting = lock(waiting);
            for outbound in batch.drain(..) {
                buffer.extend_from_slice(&outbound.frame);
                waiting.extend(outbound.reply);
            }
        }
        write.write_all(&buffer).await?;
    }
}

/// Hands answers to who waits for them, until the connection ends or makes no sense any longer.
async fn read_replies(mut read: OwnedReadHalf, waiting: &Waiting) {
    let mut buffer = BytesMut::with_capacity(64 << 10);
    while let Ok(1..) = read.read_buf(&mut buffer).await {
        loop {
            match next_reply(&mut buffer) {
                Ok(Some((xid, code, body))) if xid >= 0 => {
                    let Some(reply) = lock(waiting).pop_front() else { return };
                    // Whoever waited may have given up.
                    let _ = reply.send((code, body));
                }
                // A ping's.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// The next answer if all of it is there: whose it is, its error, and what follows.
fn next_reply(buffer: &mut BytesMut) -> Result<Option<(i32, i32, Bytes)>, SessionError> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(HEADER..=LONGEST).contains(&length) {
        return Err(SessionError::Nonsense);
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    let mut reply = buffer.split_to(length).freeze();
    let (xid, _transaction, code) = (reply.get_i32(), reply.get_i64(), reply.get_i32());
    Ok(Some((xid, code, reply)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(xid: i32, code: i32, body: &[u8]) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(HEADER + body.len()).expect("it is short"));
        frame.put_i32(xid);
        frame.put_i64(9);
        frame.put_i32(code);
        frame.put_slice(body);
        frame
    }

    #[test]
    fn answers_are_taken_when_all_of_them_is_there() {
        let whole = reply(1, -101, b"rest");
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert!(matches!(next_reply(&mut part), Ok(None)), "{cut}");
        }
        let mut two = whole;
        two.extend_from_slice(&reply(PING_XID, 0, b""));
        assert_eq!(next_reply(&mut two).expect("an answer"), Some((1, -101, Bytes::from_static(b"rest"))));
        assert_eq!(next_reply(&mut two).expect("an answer"), Some((PING_XID, 0, Bytes::new())));
        assert_eq!(next_reply(&mut two).expect("nothing more"), None);
    }

    #[test]
    fn lengths_that_make_no_sense_are_refused() {
        for length in [0_u32, 15, u32::MAX, 65 << 20] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            assert!(next_reply(&mut buffer).is_err(), "{length}");
        }
    }
}
