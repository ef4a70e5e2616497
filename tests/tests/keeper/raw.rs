//! ZooKeeper's protocol as bytes: connections that say anything, sessions that keep the order of what they are sent.
//!
//! Only jute's primitives are shared with keeper; the records are encoded and decoded here, so that a mistake there shows.

pub(crate) mod body;
pub(crate) mod op;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use quorumkv_keeper::jute::{Decoder, Encoder};

/// How long anything may take that a server owes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client says first.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// The last transaction that the client claims to have seen.
    pub(crate) last_zxid: i64,
    /// The wished timeout in milliseconds.
    pub(crate) timeout_ms: i32,
    /// The session to go on with, or 0.
    pub(crate) session: i64,
    /// Its password.
    pub(crate) password: Vec<u8>,
    /// The byte that old clients do not send.
    pub(crate) read_only: Option<bool>,
}

impl Default for Hello {
    fn default() -> Self {
        Self { last_zxid: 0, timeout_ms: 30_000, session: 0, password: vec![0; 16], read_only: Some(false) }
    }
}

/// What the server says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Welcome {
    /// The negotiated timeout; 0: there is no such session.
    pub(crate) timeout_ms: i32,
    /// The session.
    pub(crate) session: i64,
    /// Its password.
    pub(crate) password: Vec<u8>,
    /// The byte that only those are sent who sent one.
    pub(crate) read_only: Option<bool>,
}

/// One packet after the handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    /// Which request it answers; -1 is a watch event.
    pub(crate) xid: i32,
    /// The transaction in its header.
    pub(crate) zxid: i64,
    /// The error in its header.
    pub(crate) error: i32,
    /// All after the header.
    pub(crate) body: Vec<u8>,
}

/// A watch event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Event {
    /// 1 created, 2 deleted, 3 data changed, 4 children changed.
    pub(crate) kind: i32,
    /// 3: connected.
    pub(crate) state: i32,
    /// Which znode.
    pub(crate) path: String,
}

impl Packet {
    /// The watch event that this is.
    pub(crate) fn event(&self) -> Result<Event> {
        ensure!(self.xid == -1 && self.error == 0, "not an event: {self:?}");
        let mut decoder = Decoder::new(&self.body);
        let event = Event { kind: decoder.int()?, state: decoder.int()?, path: decoder.string()? };
        ensure!(decoder.is_empty(), "an event with something after it: {self:?}");
        Ok(event)
    }
}

/// A connection that frames what it sends and unframes what it is sent.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// What has come in and not been taken yet.
    incoming: BytesMut,
}

impl Connection {
    /// Connects without saying anything.
    pub(crate) fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, incoming: BytesMut::new() })
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.send_bytes(&framed(frame))
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// The next frame, or nothing if the server has closed.
    pub(crate) fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some((length, rest)) = self.incoming.split_first_chunk::<4>() {
                let length = usize::try_from(i32::from_be_bytes(*length)).context("a negative length")?;
                ensure!(length < 8 << 20, "the server sends a frame of {length} bytes");
                if rest.len() >= length {
                    let frame = self.incoming.split_to(4 + length);
                    return Ok(Some(frame[4..].to_vec()));
                }
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    ensure!(self.incoming.is_empty(), "closed within a frame: {:?}", self.incoming);
                    return Ok(None);
                }
                Ok(n) => self.incoming.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("wait for a frame"),
            }
        }
    }

    /// Everything until the server closes, as bytes.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.incoming).to_vec();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(bytes),
            Err(error) => Err(error).context("wait until the server closes"),
        }
    }

    /// The next packet, or nothing if the server has closed.
    pub(crate) fn packet(&mut self) -> Result<Option<Packet>> {
        let Some(frame) = self.receive()? else { return Ok(None) };
        let mut decoder = Decoder::new(&frame);
        let (xid, zxid, error) = (decoder.int()?, decoder.long()?, decoder.int()?);
        Ok(Some(Packet { xid, zxid, error, body: frame[16..].to_vec() }))
    }

    /// The handshake; nothing if the server closes instead of answering.
    pub(crate) fn hello(&mut self, hello: &Hello) -> Result<Option<Welcome>> {
        self.send(&encode_hello(hello))?;
        let Some(frame) = self.receive()? else { return Ok(None) };
        let mut decoder = Decoder::new(&frame);
        ensure!(decoder.int()? == 0, "another protocol version");
        let (timeout_ms, session) = (decoder.int()?, decoder.long()?);
        let password = decoder.buffer()?.context("a null password")?.to_vec();
        let read_only = if decoder.is_empty() { None } else { Some(decoder.boolean()?) };
        ensure!(decoder.is_empty(), "something follows the welcome: {frame:?}");
        Ok(Some(Welcome { timeout_ms, session, password, read_only }))
    }

    /// The socket, for what only it can do.
    pub(crate) const fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// A session over one connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its connection.
    pub(crate) connection: Connection,
    /// Its id.
    pub(crate) id: i64,
    /// Its password.
    pub(crate) password: Vec<u8>,
    /// The negotiated timeout.
    pub(crate) timeout_ms: i32,
    /// The highest transaction that a reply has named.
    pub(crate) last_zxid: i64,
    next_xid: i32,
}

/// A reply, and the events that came before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// Events, in the order in which they came.
    pub(crate) events: Vec<(i64, Event)>,
    /// The reply.
    pub(crate) reply: Packet,
}

impl Session {
    /// Opens a session of its own.
    pub(crate) fn start(address: &str) -> Result<Self> {
        Self::with(address, &Hello::default())
    }

    /// Opens a session, or goes on with one.
    pub(crate) fn with(address: &str, hello: &Hello) -> Result<Self> {
        let mut connection = Connection::open(address)?;
        let welcome = connection.hello(hello)?.context("the server closes instead of a welcome")?;
        ensure!(welcome.timeout_ms > 0 && welcome.session != 0, "no session: {welcome:?}");
        Ok(Self::over(connection, welcome, hello.last_zxid))
    }

    /// The session that has been welcomed.
    pub(crate) fn over(connection: Connection, welcome: Welcome, last_zxid: i64) -> Self {
        let Welcome { timeout_ms, session, password, .. } = welcome;
        Self { connection, id: session, password, timeout_ms, last_zxid, next_xid: 1 }
    }

    /// Cuts the connection and goes on over another.
    pub(crate) fn reattach(&mut self, address: &str) -> Result<()> {
        // An error means that the server was quicker.
        let _ = self.connection.stream.shutdown(std::net::Shutdown::Both);
        let session = Self::with(address, &self.resumption())?;
        ensure!(session.id == self.id && session.password == self.password, "another session");
        self.connection = session.connection;
        Ok(())
    }

    /// What goes on with this session.
    pub(crate) fn resumption(&self) -> Hello {
        Hello {
            last_zxid: self.last_zxid,
            timeout_ms: self.timeout_ms,
            session: self.id,
            password: self.password.clone(),
            read_only: Some(false),
        }
    }

    /// Sends a request and returns its xid.
    pub(crate) fn send(&mut self, op: i32, body: &[u8]) -> io::Result<i32> {
        let xid = match op {
            // What every client sends with a fixed number.
            op::PING => -2,
            op::AUTH => -4,
            op::SET_WATCHES | op::SET_WATCHES2 => -8,
            _ => {
                self.next_xid += 1;
                self.next_xid
            }
        };
        self.connection.send(&request(xid, op, body))?;
        Ok(xid)
    }

    /// Waits for the next reply and collects the events before it. Nothing if the server closes.
    pub(crate) fn answer(&mut self) -> Result<Option<Answer>> {
        let mut events = Vec::new();
        while let Some(packet) = self.connection.packet()? {
            if packet.xid == -1 {
                events.push((packet.zxid, packet.event()?));
            } else {
                self.last_zxid = self.last_zxid.max(packet.zxid);
                return Ok(Some(Answer { events, reply: packet }));
            }
        }
        ensure!(events.is_empty(), "the server closes after events without a reply: {events:?}");
        Ok(None)
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn call(&mut self, op: i32, body: &[u8]) -> Result<Answer> {
        let xid = self.send(op, body)?;
        let answer = self.answer()?.with_context(|| format!("the server closes on operation {op}"))?;
        ensure!(answer.reply.xid == xid, "a reply to another request than {xid}: {:?}", answer.reply);
        Ok(answer)
    }

    /// [`Self::call`] that must succeed; returns the body.
    pub(crate) fn ok(&mut self, op: i32, body: &[u8]) -> Result<Vec<u8>> {
        let answer = self.call(op, body)?;
        if answer.reply.error != 0 {
            bail!("operation {op} failed with {}", answer.reply.error);
        }
        Ok(answer.reply.body)
    }

    /// The error of a [`Self::call`], 0 if it succeeded.
    pub(crate) fn error(&mut self, op: i32, body: &[u8]) -> Result<i32> {
        Ok(self.call(op, body)?.reply.error)
    }

    /// All events that the server has had for this session by now.
    pub(crate) fn drain(&mut self) -> Result<Vec<Event>> {
        let events = self.call(op::PING, &[])?.events;
        Ok(events.into_iter().map(|(_, event)| event).collect())
    }

    /// Creates a persistent znode that everybody may use, and returns its path.
    pub(crate) fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Result<String> {
        let body = self.ok(op::CREATE, &body::create(path, Some(data), &open_acl(), flags))?;
        Ok(Decoder::new(&body).string()?)
    }

    /// Ends the session and waits until the server closes.
    pub(crate) fn close(mut self) -> Result<()> {
        self.ok(op::CLOSE_SESSION, &[])?;
        let rest = self.connection.rest()?;
        ensure!(rest.is_empty(), "something follows the last reply: {rest:?}");
        Ok(())
    }
}

/// A frame with its length before it.
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    let length = i32::try_from(frame.len()).expect("a test sends no frames of 2 GiB");
    [&length.to_be_bytes(), frame].concat()
}

/// A request without its length.
pub(crate) fn request(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    [&xid.to_be_bytes()[..], &op.to_be_bytes(), body].concat()
}

/// The handshake's first frame.
pub(crate) fn encode_hello(hello: &Hello) -> Vec<u8> {
    encoded(|encoder| {
        encoder.int(0).long(hello.last_zxid).int(hello.timeout_ms).long(hello.session);
        encoder.buffer(Some(&hello.password));
        if let Some(read_only) = hello.read_only {
            encoder.boolean(read_only);
        }
    })
}

/// What `write` writes.
pub(crate) fn encoded(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut Encoder::new(&mut out));
    out.to_vec()
}

/// Permissions, scheme and id; the latter two may be null.
pub(crate) type Entry = (i32, Option<String>, Option<String>);

/// Everybody may do everything.
pub(crate) fn open_acl() -> Vec<Entry> {
    vec![(31, Some("world".to_owned()), Some("anyone".to_owned()))]
}
