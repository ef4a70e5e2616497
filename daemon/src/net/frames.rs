//! Reading and writing messages as frames.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use quorumkv_protocol::frame::{self, FrameDecoder, FrameError, HELLO_FRAME_LIMIT};
use quorumkv_protocol::hello::{Hello, HelloReply, Welcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

/// A connection that has not said Hello within this time is closed.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// The other side does not want this node.
    #[error("refused: {0}")]
    Refused(String),
}

/// The reading half of a connection.
pub(crate) type Reader = FramedRead<OwnedReadHalf, FrameDecoder>;

/// Splits a new connection; only a Hello is taken on it for now.
pub(crate) fn split(stream: TcpStream) -> io::Result<(Reader, OwnedWriteHalf)> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok((FramedRead::with_capacity(read, FrameDecoder::new(HELLO_FRAME_LIMIT), 16 << 10), write))
}

/// The next message.
pub(crate) async fn receive<T: Serialize + DeserializeOwned>(
    reader: &mut Reader,
) -> Result<T, ConnectionError> {
    let body = reader.next().await.ok_or(ConnectionError::Closed)??;
    Ok(frame::decode(&body)?)
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
) -> io::Result<()> {
    for message in messages {
        frame::encode(&message, buffer);
        if buffer.len() >= COALESCED_BYTES {
            writer.write_all(buffer).await?;
            buffer.clear();
        }
    }
    writer.write_all(buffer).await?;
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES {
        *buffer = BytesMut::new();
    }
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
                reader.decoder_mut().set_limit(frame_limit);
                Ok((reader, writer, welcome))
            }
            HelloReply::Refused { message, .. } => Err(ConnectionError::Refused(message)),
        }
    };
    timeout(HELLO_TIMEOUT, greeting).await.unwrap_or(Err(ConnectionError::Silent))
}
