//! Loads a coordination server, keeperd or Apache ZooKeeper, in a closed loop, and prints one line of JSON.
//!
//! ```text
//! cargo run --release -p quorumkv-keeper --example load -- HOST:PORT set|get CLIENTS CONNECTIONS SECONDS [VALUE_BYTES]
//! ```
//!
//! Each client has one request on its way at any time. With fewer connections than clients, several clients share one, and
//! what they ask at the same time goes out in one write. `scripts/bench-keeper` compares servers with it.

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use quorumkv_keeper::jute::{Decoder, Encoder};
use quorumkv_keeper::wire::op;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

/// Znodes that are set and read.
const ZNODES: usize = 1000;
/// Not measured, before what is: connections fill, compilers and caches warm up.
const WARM_UP: Duration = Duration::from_secs(3);
/// What a session asks for, in milliseconds.
const SESSION_MS: i32 = 10_000;

type Failure = Box<dyn Error + Send + Sync>;

/// What to do.
#[derive(Clone, Debug)]
struct Plan {
    address: String,
    op: i32,
    clients: usize,
    connections: usize,
    measured: Duration,
    value: Vec<u8>,
}

impl Plan {
    fn parse() -> Result<Self, Failure> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [address, op, clients, connections, seconds, rest @ ..] = arguments.as_slice() else {
            return Err("usage: load HOST:PORT set|get CLIENTS CONNECTIONS SECONDS [VALUE_BYTES]".into());
        };
        let op = match op.as_str() {
            "set" => op::SET_DATA,
            "get" => op::GET_DATA,
            other => return Err(format!("{other} is neither set nor get").into()),
        };
        let bytes = rest.first().map_or(Ok(256), |bytes| bytes.parse())?;
        let (clients, connections): (usize, usize) = (clients.parse()?, connections.parse()?);
        if connections == 0 || connections > clients {
            return Err("there must be at least one connection, and at least one client for each".into());
        }
        let measured = Duration::from_secs(seconds.parse()?);
        Ok(Self { address: address.clone(), op, clients, connections, measured, value: vec![b'x'; bytes] })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let plan = Plan::parse()?;
    prepare(&plan).await?;
    let begin = Instant::now() + WARM_UP;
    let mut running = JoinSet::new();
    for number in 0..plan.connections {
        let clients = plan.clients / plan.connections + usize::from(number < plan.clients % plan.connections);
        let plan = plan.clone();
        running.spawn(async move {
            Session::open(&plan.address).await?.load(&plan, clients, number, begin).await
        });
    }
    let mut latencies = Vec::new();
    while let Some(finished) = running.join_next().await {
        latencies.append(&mut finished??);
    }
    latencies.sort_unstable();
    let percentile = |part: f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (latencies.len() as f64 * part) as usize;
        latencies.get(at.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    println!(
        r#"{{"op":"{}","clients":{},"connections":{},"value_bytes":{},"seconds":{},"ops_per_second":{},"p50_us":{},"p99_us":{}}}"#,
        if plan.op == op::SET_DATA { "set" } else { "get" },
        plan.clients,
        plan.connections,
        plan.value.len(),
        plan.measured.as_secs(),
        latencies.len() as u64 / plan.measured.as_secs().max(1),
        percentile(0.5),
        percentile(0.99),
    );
    Ok(())
}

/// Makes the znodes, unless they are there, and gives them their values.
async fn prepare(plan: &Plan) -> Result<(), Failure> {
    let mut session = Session::open(&plan.address).await?;
    for path in std::iter::once("/load".to_owned()).chain((0..ZNODES).map(path)) {
        session.request(op::CREATE, |encoder| {
            encoder
                .string(&path)
                .buffer(Some(&plan.value))
                .length(1)
                .int(31)
                .string("world")
                .string("anyone")
                .int(0);
        });
        session.flush().await?;
        let error = session.reply().await?;
        if error != 0 && error != -110 {
            return Err(format!("creating {path} fails with {error}").into());
        }
    }
    Ok(())
}

fn path(znode: usize) -> String {
    format!("/load/{znode:04}")
}

/// A session over one connection.
#[derive(Debug)]
struct Session {
    stream: TcpStream,
    out: BytesMut,
    incoming: BytesMut,
}

impl Session {
    async fn open(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut session = Self {
            stream,
            out: BytesMut::with_capacity(64 << 10),
            incoming: BytesMut::with_capacity(64 << 10),
        };
        framed(&mut session.out, |encoder| {
            encoder.int(0).long(0).int(SESSION_MS).long(0).buffer(Some(&[0; 16])).boolean(false);
        });
        session.flush().await?;
        let frame = loop {
            match session.frame()? {
                Some(frame) => break frame,
                None => session.receive().await?,
            }
        };
        let mut decoder = Decoder::new(&frame);
        let (_, timeout_ms) = (decoder.int()?, decoder.int()?);
        if timeout_ms <= 0 {
            return Err("the server refuses a session".into());
        }
        Ok(session)
    }

    fn request(&mut self, op: i32, body: impl FnOnce(&mut Encoder<'_>)) {
        framed(&mut self.out, |encoder| {
            // Replies come in the order of requests, so that the number tells nothing.
            encoder.int(1).int(op);
            body(encoder);
        });
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.out).await
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        if self.stream.read_buf(&mut self.incoming).await? == 0 {
            return Err("the server closes".into());
        }
        Ok(())
    }

    /// The next frame of those that have come.
    fn frame(&mut self) -> Result<Option<BytesMut>, Failure> {
        let Some((length, rest)) = self.incoming.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(i32::from_be_bytes(*length))?;
        if rest.len() < length {
            self.incoming.reserve(length);
            return Ok(None);
        }
        self.incoming.advance(4);
        Ok(Some(self.incoming.split_to(length)))
    }

    /// The error of the next reply.
    async fn reply(&mut self) -> Result<i32, Failure> {
        loop {
            match self.frame()? {
                Some(frame) => return error(&frame),
                None => self.receive().await?,
            }
        }
    }

    /// Lets clients ask, each again as soon as it is answered. Returns how long each answer took from `begin` on, in
    /// microseconds.
    async fn load(
        mut self,
        plan: &Plan,
        clients: usize,
        number: usize,
        begin: Instant,
    ) -> Result<Vec<u32>, Failure> {
        let end = begin + plan.measured;
        let mut next = number * 7919;
        let mut asked = VecDeque::new();
        let mut latencies = Vec::new();
        let mut idle = clients;
        while Instant::now() < end {
            let now = Instant::now();
            for _ in 0..std::mem::take(&mut idle) {
                next = (next + 7919) % 1_000_003;
                self.ask(plan, next % ZNODES);
                asked.push_back(now);
            }
            self.flush().await?;
            if timeout_at(end.into(), self.receive()).await.is_err() {
                break;
            }
            let now = Instant::now();
            while let Some(frame) = self.frame()? {
                let error = error(&frame)?;
                let since = asked.pop_front().ok_or("a reply to nothing")?;
                if error != 0 {
                    return Err(format!("a request fails with {error}").into());
                }
                idle += 1;
                if now >= begin && now < end {
                    latencies.push(u32::try_from((now - since).as_micros()).unwrap_or(u32::MAX));
                }
            }
        }
        Ok(latencies)
    }

    fn ask(&mut self, plan: &Plan, znode: usize) {
        let path = path(znode);
        self.request(plan.op, |encoder| {
            encoder.string(&path);
            if plan.op == op::SET_DATA {
                encoder.buffer(Some(&plan.value)).int(-1);
            } else {
                encoder.boolean(false);
            }
        });
    }
}

/// The error in a reply's header.
fn error(frame: &[u8]) -> Result<i32, Failure> {
    let mut decoder = Decoder::new(frame);
    let (_, _) = (decoder.int()?, decoder.long()?);
    Ok(decoder.int()?)
}

/// Appends a frame and its length.
fn framed(out: &mut BytesMut, write: impl FnOnce(&mut Encoder<'_>)) {
    let start = out.len();
    let mut encoder = Encoder::new(out);
    encoder.int(0);
    write(&mut encoder);
    let length = u32::try_from(out.len() - start - 4).expect("a request is short");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
