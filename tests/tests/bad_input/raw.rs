//! A socket that may say anything: the other end of every test here.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use quorumkv_protocol::client::{
    Failure, Request, RequestEnvelope, Response, ResponseEnvelope, WriteRequest,
};
use quorumkv_protocol::frame::{self, FrameDecoder};
use quorumkv_protocol::hello::{Hello, HelloReply, Role, Welcome};
use quorumkv_protocol::{ClientId, ErrorCode, RequestId, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest that a test waits for a connection, an answer or the end. Nothing depends on how long it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a frame that a node may send: whatever it likes.
const ANY_LENGTH: u32 = 64 << 20;

/// One connection to a node.
pub(crate) struct Raw {
    stream: TcpStream,
    received: BytesMut,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address.parse()?, PATIENCE)
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: BytesMut::new() })
    }

    /// Connects as a well-behaved client.
    pub(crate) fn client(address: &str) -> Result<Self> {
        Ok(Self::introduced(address, Role::Client { name: "bad input".to_owned() })?.0)
    }

    /// Connects and is welcomed in a role.
    pub(crate) fn introduced(address: &str, role: Role) -> Result<(Self, Welcome)> {
        let mut raw = Self::connect(address)?;
        raw.send(&Hello::new(None, role))?;
        match raw.receive()? {
            Some(HelloReply::Welcome(welcome)) => Ok((raw, welcome)),
            other => bail!("{address} did not welcome a good Hello: {other:?}"),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends a message as a frame.
    pub(crate) fn send<T: Serialize>(&mut self, message: &T) -> Result<()> {
        self.send_bytes(&framed(message))
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) -> Result<()> {
        Ok(self.stream.shutdown(std::net::Shutdown::Write)?)
    }

    /// The next message; `None` if the node has closed the connection.
    pub(crate) fn receive<T: Serialize + DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(body) = FrameDecoder::new(ANY_LENGTH).decode(&mut self.received)? {
                return Ok(Some(frame::decode(&body)?));
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if is_reset(&error) => return Ok(None),
                Err(error) => {
                    return Err(error).context("the node neither answers nor closes the connection");
                }
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, correlation: u64, body: Request) -> Result<Response> {
        self.send(&RequestEnvelope { correlation, timeout_ms: 30_000, body })?;
        let answer: ResponseEnvelope = self.receive()?.context("the node closed the connection")?;
        ensure!(
            answer.correlation == correlation,
            "answered {} instead of {correlation}",
            answer.correlation
        );
        Ok(answer.body)
    }

    /// Checks that the node refuses the Hello with `code`, says something, and closes the connection.
    pub(crate) fn expect_refusal(&mut self, code: ErrorCode) -> Result<String> {
        let Some(HelloReply::Refused { code: given, message }) = self.receive()? else {
            bail!("the Hello was not refused with {code}")
        };
        ensure!(given == code, "refused with {given}, not {code}: {message}");
        ensure!(!message.is_empty() && !message.contains('\n'), "no clear message: {message:?}");
        self.expect_closed()?;
        Ok(message)
    }

    /// Checks that the node says that it did not understand, under no request's number, and closes the connection.
    pub(crate) fn expect_malformed(&mut self) -> Result<()> {
        let answer: ResponseEnvelope = self.receive()?.context("the connection was closed without a word")?;
        ensure!(answer.correlation == 0, "the answer bears the number {}", answer.correlation);
        let Response::Failed(Failure { code: ErrorCode::Malformed, message, .. }) = answer.body else {
            bail!("not refused as malformed: {:?}", answer.body)
        };
        ensure!(!message.is_empty() && !message.contains('\n'), "no clear message: {message:?}");
        self.expect_closed()
    }

    /// Checks that the node closes the connection without another message.
    pub(crate) fn expect_closed(&mut self) -> Result<()> {
        let mut rest = [0; 1024];
        match self.stream.read(&mut rest) {
            Ok(0) if self.received.is_empty() => Ok(()),
            Ok(count) => bail!("more came: {:?} {:?}", self.received, Bytes::copy_from_slice(&rest[..count])),
            Err(error) if is_reset(&error) => Ok(()),
            Err(error) => Err(error).context("the connection is not closed"),
        }
    }

    /// Whether the node has closed the connection by now.
    pub(crate) fn is_closed(&mut self) -> Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0; 1]);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Ok(count) => Ok(count == 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if is_reset(&error) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_reset(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A message as it goes over the wire.
pub(crate) fn framed<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame::encode(message, &mut bytes);
    bytes.to_vec()
}

/// Bytes as one frame, whatever they mean.
pub(crate) fn frame_of(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a test's frame is short");
    [&length.to_be_bytes(), body].concat()
}

/// A write of a client of its own, so that no request of another test can be taken for it.
pub(crate) fn write(write: quorumkv_protocol::client::Write) -> Request {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let client = ClientId::new(NEXT.fetch_add(1, Ordering::Relaxed));
    let request = RequestId { client, sequence: 1 };
    Request::Write(WriteRequest { request, floor: 0, since: Version::new(u64::MAX), write })
}

/// A put.
pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Request {
    write(quorumkv_protocol::client::Write::Put { key: key.into(), value: value.into() })
}
