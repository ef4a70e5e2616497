//! Reading and writing messages as frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorumkv_protocol::frame::{self, FrameDecoder, FrameError, HELLO_FRAME_LIMIT};
use quorumkv_protocol::hello::{Hello, HelloReply, Welcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// A connection that has not said Hello within this time is closed.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection whose other side acknowledges nothing for this long is taken for dead.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(8);

/// Messages that are encoded into one write, and the bytes after which no more are added.
pub(crate) const COALESCED_MESSAGES: usize = 1024;
const COALESCED_BYTES: usize = 1 << 20;

/// A write buffer that grew beyond this is given back once it is written.
const KEPT_BYTES: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    /// The other side closed it.
    #[error("the connection was closed")]
    Closed,
    /// The network failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side sent what is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nothing came in time.
    #[error("no Hello came within {HELLO_TIMEOUT:?}")]
    Silent,
    /// Too many others have not said Hello either, and this one has been silent for longest.
    #[error("no Hello came before its place was needed for others")]
    Crowded,
    /// The other side has begun a frame and does not end it, or does not take what it is sent.
    #[error("the connection made no progress for {PROGRESS_TIMEOUT:?}")]
    Stalled,
    /// The other side does not want this node.
    #[error("refused: {0}")]
    Refused(String),
}

impl ConnectionError {
    /// Whether the other side's system has answered that nobody listens there: the process is gone.
    pub(crate) fn is_no_process(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Bytes for which room is made before each read.
const READ_BYTES: usize = 16 << 10;

/// A frame that has begun must be complete within this time, and a write must get on within it: who is slower than that
/// holds memory that others need.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(15);

/// Memory that clients may take, all together: requests until they are answered, from the moment that more of them has
/// come than one read brings (a length that is only announced keeps nobody out), and values on their way to a client.
/// What is small has a part of its own, so that a few large requests, finished or not, never keep the others out.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// Memory that is taken; it is given back when this is dropped.
pub(crate) type Charge = OwnedSemaphorePermit;

/// Bytes in a unit of the budget.
const UNIT: usize = 1 << 10;

/// Bytes up to which something is small.
const SMALL: usize = 64 << 10;

impl Budget {
    /// A budget of this many bytes for what is small, and as many for what is large.
    pub(crate) fn new(bytes: usize) -> Self {
        let part = || Arc::new(Semaphore::new(bytes / UNIT));
        Self { small: part(), large: part() }
    }

    /// Takes memory, when there is some.
    async fn charge(&self, bytes: usize) -> Charge {
        let permit = self.part(bytes).acquire_many_owned(units(bytes)).await;
        permit.expect("the semaphore is never closed")
    }

    /// Takes memory if there is some now.
    pub(crate) fn try_charge(&self, bytes: usize) -> Option<Charge> {
        self.part(bytes).try_acquire_many_owned(units(bytes)).ok()
    }

    fn part(&self, bytes: usize) -> Arc<Semaphore> {
        Arc::clone(if bytes <= SMALL { &self.small } else { &self.large })
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The reading half of a connection.
#[derive(Debug)]
pub(crate) struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
    decoder: FrameDecoder,
    budget: Option<Budget>,
    charge: Option<Charge>,
    /// When the header of the frame that is being received came.
    begun: Option<Instant>,
}

impl Reader {
    /// Takes frames of up to `limit` bytes from now on; their memory is taken from `budget`, if there is one.
    pub(crate) fn open_up(&mut self, limit: u32, budget: Option<Budget>) {
        self.decoder.set_limit(limit);
        self.budget = budget;
    }

    /// The next body, and the memory that it takes. Nothing is lost when this is cancelled.
    async fn frame(&mut self) -> Result<(Bytes, Option<Charge>), ConnectionError> {
        loop {
            let announced = self.decoder.announced(&self.buffer)?;
            if let (Some(length), Some(budget), None) = (announced, &self.budget, &self.charge)
                && self.buffer.len() >= (length as usize).min(READ_BYTES)
            {
                self.charge = Some(budget.charge(length as usize).await);
                // The wait was not the other side's fault.
                self.begun = None;
            }
            if let Some(body) = self.decoder.decode(&mut self.buffer)? {
                self.begun = None;
                return Ok((body, self.charge.take()));
            }
            self.buffer.reserve(READ_BYTES);
            let read = self.half.read_buf(&mut self.buffer);
            let count = if announced.is_some() {
                let begun = *self.begun.get_or_insert_with(Instant::now);
                timeout_at(begun + PROGRESS_TIMEOUT, read).await.map_err(|_| ConnectionError::Stalled)??
            } else {
                read.await?
            };
            if count == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }
}

/// Splits a new connection; only a Hello is taken on it for now.
pub(crate) fn split(stream: TcpStream) -> io::Result<(Reader, OwnedWriteHalf)> {
    stream.set_nodelay(true)?;
    // A peer that vanished without a word is noticed within seconds, not when TCP gives up after many minutes.
    let socket = SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(SILENCE_TIMEOUT))?;
    let probes =
        TcpKeepalive::new().with_time(SILENCE_TIMEOUT / 2).with_interval(SILENCE_TIMEOUT / 8).with_retries(4);
    socket.set_tcp_keepalive(&probes)?;
    let (half, write) = stream.into_split();
    let decoder = FrameDecoder::new(HELLO_FRAME_LIMIT);
    Ok((Reader { half, buffer: BytesMut::new(), decoder, budget: None, charge: None, begun: None }, write))
}

/// The next message.
pub(crate) async fn receive<T: Serialize + DeserializeOwned>(
    reader: &mut Reader,
) -> Result<T, ConnectionError> {
    Ok(receive_charged(reader).await?.0)
}

/// The next message of another node. Entries in it share one piece of memory. A short frame gets one of its own, since what came with it
/// may be anything; a long one takes at least half of the piece that it came in.
pub(crate) async fn receive_entries<T: Serialize + DeserializeOwned>(
    reader: &mut Reader,
) -> Result<T, ConnectionError> {
    let (body, _) = reader.frame().await?;
    let body = if body.len() < READ_BYTES { Bytes::copy_from_slice(&body) } else { body };
    Ok(frame::decode_shared(&body)?)
}

/// The next message, and the memory that it takes.
pub(crate) async fn receive_charged<T: Serialize + DeserializeOwned>(
    reader: &mut Reader,
) -> Result<(T, Option<Charge>), ConnectionError> {
    let (body, charge) = reader.frame().await?;
    Ok((frame::decode(&body)?, charge))
}

/// Sends one message.
pub(crate) async fn send<T: Serialize>(writer: &mut OwnedWriteHalf, message: &T) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    frame::encode(message, &mut buffer);
    writer.write_all(&buffer).await
}

/// Encodes the messages and writes them, in as few calls as their size permits.
pub(crate) async fn send_all<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    messages: impl IntoIterator<Item = T>,
    buffer: &mut BytesMut,
) -> Result<(), ConnectionError> {
    for message in messages {
        frame::encode(&message, buffer);
        if buffer.len() >= COALESCED_BYTES {
            flush(writer, buffer).await?;
        }
    }
    flush(writer, buffer).await?;
    if buffer.capacity() > KEPT_BYTES {
        *buffer = BytesMut::new();
    }
    Ok(())
}

/// Writes the buffer out and empties it.
async fn flush(writer: &mut (impl AsyncWrite + Unpin), buffer: &mut BytesMut) -> Result<(), ConnectionError> {
    while !buffer.is_empty() {
        let written = timeout(PROGRESS_TIMEOUT, writer.write_buf(buffer)).await;
        if written.map_err(|_| ConnectionError::Stalled)?? == 0 {
            return Err(ConnectionError::Closed);
        }
    }
    buffer.clear();
    Ok(())
}

/// Opens a connection to another node and introduces this one.
pub(crate) async fn connect(
    address: &str,
    hello: &Hello,
    frame_limit: u32,
) -> Result<(Reader, OwnedWriteHalf, Welcome), ConnectionError> {
    let greeting = async {
        let (mut reader, mut writer) = split(TcpStream::connect(address).await?)?;
        send(&mut writer, hello).await?;
        match receive(&mut reader).await? {
            HelloReply::Welcome(welcome) => {
                reader.open_up(frame_limit, None);
                Ok((reader, writer, welcome))
            }
            HelloReply::Refused { message, .. } => Err(ConnectionError::Refused(message)),
        }
    };
    timeout(HELLO_TIMEOUT, greeting).await.unwrap_or(Err(ConnectionError::Silent))
}
