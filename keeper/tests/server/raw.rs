//! A client that writes bytes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use quorumkv_keeper::jute::{Decoder, Encoder};
use quorumkv_keeper::wire::op;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Whatever a test waits for, it waits no longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A session over some stream.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    pub(crate) session: i64,
    pub(crate) password: Vec<u8>,
    pub(crate) timeout_ms: i32,
    xid: i32,
    /// Watch events that came between replies.
    pub(crate) events: VecDeque<(i32, String)>,
}

/// A packet: its length, and what `write` writes.
pub(crate) fn packet(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut body = BytesMut::new();
    write(&mut Encoder::new(&mut body));
    let mut packet = u32::try_from(body.len()).expect("short").to_be_bytes().to_vec();
    packet.extend_from_slice(&body);
    packet
}

pub(crate) fn connect_request(session: i64, password: &[u8]) -> Vec<u8> {
    connect_request_for(600_000, session, password)
}

/// Asks for a session that lasts so long without a sign of life.
pub(crate) fn connect_request_for(timeout_ms: i32, session: i64, password: &[u8]) -> Vec<u8> {
    packet(|encoder| {
        encoder.int(0).long(0).int(timeout_ms).long(session).buffer(Some(password)).boolean(false);
    })
}

pub(crate) fn create_request(xid: i32, path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    packet(|encoder| {
        encoder.int(xid).int(op::CREATE).string(path).buffer(Some(data));
        encoder.length(1).int(31).string("world").string("anyone").int(flags);
    })
}

pub(crate) fn get_request(xid: i32, path: &str) -> Vec<u8> {
    packet(|encoder| {
        encoder.int(xid).int(op::GET_DATA).string(path).boolean(false);
    })
}

/// Reads until the other side closes; an error of the network counts as that.
pub(crate) async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the server closes");
    all
}

impl Client<TcpStream> {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connected"), 0, &[0; 16]).await
    }

    pub(crate) async fn resume(address: SocketAddr, session: i64, password: &[u8]) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connected"), session, password).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Begins a session (0), or goes on with one.
    pub(crate) async fn over(stream: S, session: i64, password: &[u8]) -> Self {
        Self::greet(stream, &connect_request(session, password)).await
    }

    /// Sends a request to connect, and waits for the session.
    pub(crate) async fn greet(mut stream: S, request: &[u8]) -> Self {
        stream.write_all(request).await.expect("written");
        let reply = receive(&mut stream).await.expect("a reply to the request to connect");
        let mut decoder = Decoder::new(&reply);
        assert_eq!(decoder.int(), Ok(0));
        let timeout_ms = decoder.int().expect("a timeout");
        let session = decoder.long().expect("a session");
        let password = decoder.buffer().expect("a password").unwrap_or_default().to_vec();
        Self { password, timeout_ms, ..Self::of(stream, session) }
    }

    /// What there is of a session whose connection exists.
    pub(crate) const fn of(stream: S, session: i64) -> Self {
        Self { stream, session, password: Vec::new(), timeout_ms: 0, xid: 0, events: VecDeque::new() }
    }

    /// Sends a request, and waits for what follows the header of its reply, or its error.
    pub(crate) async fn call(
        &mut self,
        op: i32,
        write: impl FnOnce(&mut Encoder<'_>),
    ) -> Result<Vec<u8>, i32> {
        self.xid += 1;
        let xid = self.xid;
        let request = packet(|encoder| {
            encoder.int(xid).int(op);
            write(encoder);
        });
        self.stream.write_all(&request).await.expect("written");
        self.reply(xid).await.expect("a reply")
    }

    /// The next reply, which must be to this request; `None` if the server closes instead.
    pub(crate) async fn reply(&mut self, xid: i32) -> Option<Result<Vec<u8>, i32>> {
        loop {
            let packet = receive(&mut self.stream).await?;
            let mut decoder = Decoder::new(&packet);
            let found = decoder.int().expect("an xid");
            let (_, error) = (decoder.long().expect("a zxid"), decoder.int().expect("an error"));
            if found == -1 {
                let (kind, _) = (decoder.int().expect("a kind"), decoder.int().expect("a state"));
                self.events.push_back((kind, decoder.string().expect("a path")));
                continue;
            }
            assert_eq!(found, xid, "replies come in the order of requests");
            return Some(if error == 0 { Ok(packet[16..].to_vec()) } else { Err(error) });
        }
    }

    pub(crate) async fn create(&mut self, path: &str, data: &[u8]) -> Result<String, i32> {
        self.create_with(path, data, 0).await
    }

    pub(crate) async fn create_with(&mut self, path: &str, data: &[u8], flags: i32) -> Result<String, i32> {
        let reply = self
            .call(op::CREATE, |encoder| {
                encoder.string(path).buffer(Some(data));
                encoder.length(1).int(31).string("world").string("anyone").int(flags);
            })
            .await?;
        Ok(Decoder::new(&reply).string().expect("a path"))
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Vec<u8>, i32> {
        let reply = self
            .call(op::GET_DATA, |encoder| {
                encoder.string(path).boolean(false);
            })
            .await?;
        Ok(Decoder::new(&reply).buffer().expect("data").unwrap_or_default().to_vec())
    }

    pub(crate) async fn set(&mut self, path: &str, data: &[u8]) -> Result<(), i32> {
        let write = |encoder: &mut Encoder<'_>| {
            encoder.string(path).buffer(Some(data)).int(-1);
        };
        self.call(op::SET_DATA, write).await.map(drop)
    }
}

/// The next packet, without its length; `None` if the server closes.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let packet = async {
        let length = stream.read_u32().await.ok()?;
        let mut packet = vec![0; length as usize];
        stream.read_exact(&mut packet).await.ok()?;
        Some(packet)
    };
    timeout(PATIENCE, packet).await.expect("the server answers or closes")
}
