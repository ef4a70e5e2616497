//! A node that holds everything in memory, and can be told to answer otherwise.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use quorumkv_protocol::client::{
    Failure, Got, Item, NodeRole, NodeStatus, Request, RequestEnvelope, Response, ResponseEnvelope, Scanned,
    Versioned, Write, Written,
};
use quorumkv_protocol::entry::Outcome;
use quorumkv_protocol::frame::{self, FrameDecoder, PEER_FRAME_LIMIT};
use quorumkv_protocol::hello::{Hello, HelloReply, Limits, Welcome};
use quorumkv_protocol::membership::Member;
use quorumkv_protocol::{ClusterId, Epoch, ErrorCode, NodeId, Version};

pub(crate) const CLUSTER: ClusterId = ClusterId::new(7);

/// Answers some requests instead of the store.
type Script = Box<dyn FnMut(&Request) -> Option<Response> + Send>;

/// A node on a port of its own. Its threads end with the test's process.
pub(crate) struct FakeNode {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    status: NodeStatus,
    script: Script,
    store: BTreeMap<Bytes, Versioned>,
    version: u64,
    stopped: bool,
}

impl FakeNode {
    /// A leader that does what it is asked.
    pub(crate) fn start() -> Self {
        Self::scripted(1, |_| None)
    }

    /// A node that answers by `script` where that answers, and from its store otherwise.
    pub(crate) fn scripted(
        id: u64,
        script: impl FnMut(&Request) -> Option<Response> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let status = status(NodeId::new(id), &address);
        let state =
            State { status, script: Box::new(script), store: BTreeMap::new(), version: 41, stopped: false };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.expect("a connection comes in"), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    /// Changes what it says of itself.
    pub(crate) fn set_status(&self, change: impl FnOnce(&mut NodeStatus)) {
        change(&mut self.state.lock().unwrap().status);
    }

    /// Whether it was told to stop.
    pub(crate) fn was_stopped(&self) -> bool {
        self.state.lock().unwrap().stopped
    }

    /// Everything it holds.
    pub(crate) fn content(&self) -> Vec<(Bytes, Bytes)> {
        let state = self.state.lock().unwrap();
        state.store.iter().map(|(key, held)| (key.clone(), held.value.clone())).collect()
    }

    /// Sets a key directly.
    pub(crate) fn hold(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.state.lock().unwrap().put(key.into(), value.into());
    }
}

/// A refusal.
pub(crate) fn failed(code: ErrorCode, message: &str) -> Response {
    Response::Failed(Failure { code, message: message.to_owned(), leader: None, evidence: None })
}

fn status(node: NodeId, address: &str) -> NodeStatus {
    NodeStatus {
        node,
        address: address.to_owned(),
        cluster: Some(CLUSTER),
        role: NodeRole::Leader,
        epoch: Epoch::new(3, node),
        leader: Some(node),
        leader_address: Some(address.to_owned()),
        last: Version::new(41),
        committed: Version::new(41),
        applied: Version::new(40),
        lag: 0,
        sync_p99_us: 1_234,
        zookeeper: "connected".to_owned(),
        ready: true,
        remarks: String::new(),
        software: "0.1.0".to_owned(),
        uptime_s: 60,
        members: vec![Member { node, address: address.to_owned() }],
        takeover: None,
        gave_up: None,
        damage: None,
    }
}

impl State {
    fn answer(&mut self, request: Request) -> Response {
        if let Some(response) = (self.script)(&request) {
            return response;
        }
        match request {
            Request::Write(request) => Response::Written(self.write(request.write)),
            Request::Get { key, .. } => {
                Response::Got(Got { value: self.store.get(&key).cloned(), age_ms: None, evidence: None })
            }
            Request::Scan { prefix, after, limit, .. } => self.scan(&prefix, after.as_ref(), limit as usize),
            Request::Status => Response::Status(Box::new(self.status.clone())),
            Request::Stop { .. } => {
                self.stopped = true;
                Response::Stopping
            }
            Request::Members | Request::Change { .. } | Request::Drain { .. } => {
                panic!("a script has to answer this")
            }
        }
    }

    fn put(&mut self, key: Bytes, value: Bytes) -> Outcome {
        self.version += 1;
        self.store.insert(key, Versioned { version: Version::new(self.version), value });
        Outcome::Applied
    }

    fn write(&mut self, write: Write) -> Written {
        let outcome = match write {
            Write::Put { key, value } => self.put(key, value),
            Write::Delete { key } if self.store.remove(&key).is_some() => {
                self.version += 1;
                Outcome::Applied
            }
            Write::Delete { .. } => Outcome::NotFound,
            Write::CompareAndSet { key, expected, value } => {
                let actual = self.store.get(&key).map_or(Version::ZERO, |held| held.version);
                if actual == expected { self.put(key, value) } else { Outcome::Mismatch { actual } }
            }
        };
        Written { outcome, version: Version::new(self.version), leader: None }
    }

    fn scan(&self, prefix: &Bytes, after: Option<&Bytes>, limit: usize) -> Response {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let matching = self.store.range::<Bytes, _>((from, Bound::Unbounded));
        let mut matching = matching.filter(|(key, _)| key.starts_with(prefix));
        let item = |(key, held): (&Bytes, &Versioned)| Item { key: key.clone(), value: held.clone() };
        let items = matching.by_ref().take(limit).map(item).collect();
        Response::Scanned(Scanned { items, more: matching.next().is_some(), at: Version::new(self.version) })
    }
}

/// Serves a connection until the other side closes it.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut inbox = BytesMut::new();
    let Some(body) = next_frame(&mut stream, &mut inbox) else { return };
    let _hello: Hello = frame::decode(&body).expect("kvctl says Hello");
    let node = state.lock().unwrap().status.node;
    let limits = Limits { value: 1 << 20, ..Limits::DEFAULT };
    let welcome = Welcome { version: 1, cluster: Some(CLUSTER), node, committed: Version::new(41), limits };
    send(&mut stream, &HelloReply::Welcome(welcome));
    while let Some(body) = next_frame(&mut stream, &mut inbox) {
        let envelope: RequestEnvelope = frame::decode(&body).expect("kvctl sends requests");
        let body = state.lock().unwrap().answer(envelope.body);
        send(&mut stream, &ResponseEnvelope { correlation: envelope.correlation, body });
    }
}

fn send(stream: &mut TcpStream, message: &impl serde::Serialize) {
    let mut out = BytesMut::new();
    frame::encode(message, &mut out);
    // kvctl may have ended meanwhile.
    let _ = stream.write_all(&out);
}

fn next_frame(stream: &mut TcpStream, inbox: &mut BytesMut) -> Option<Bytes> {
    let decoder = FrameDecoder::new(PEER_FRAME_LIMIT);
    let mut buffer = [0; 64 << 10];
    loop {
        if let Some(body) = decoder.decode(inbox).expect("kvctl sends well-formed frames") {
            return Some(body);
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => inbox.extend_from_slice(&buffer[..read]),
        }
    }
}
