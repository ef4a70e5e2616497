//! A node whose every answer is scripted, on a real socket.

#![allow(dead_code, reason = "each test binary uses its own part of the fake node")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use quorumkv_client::{Client, ClientBuilder};
use quorumkv_protocol::client::{
    Failure, Got, Request, RequestEnvelope, Response, ResponseEnvelope, Versioned, WriteRequest, Written,
};
use quorumkv_protocol::entry::Outcome;
use quorumkv_protocol::frame::{self, CLIENT_FRAME_LIMIT, FrameDecoder};
use quorumkv_protocol::hello::{Hello, HelloReply, Limits, Welcome};
use quorumkv_protocol::{ClusterId, ErrorCode, NodeId, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

pub(crate) const CLUSTER: ClusterId = ClusterId::new(7);

/// What a node does about a request.
pub(crate) enum Action {
    /// Sends these answers, each to the request with this correlation id; none at all is silence.
    Answer(Vec<(u64, Response)>),
    /// Sends these bytes.
    Raw(Vec<u8>),
    /// Closes the connection.
    Close,
}

type Script = Box<dyn FnMut(&RequestEnvelope) -> Action + Send>;

/// A node that answers by a script until it is dropped.
pub(crate) struct FakeNode {
    pub(crate) address: String,
    shared: Arc<NodeState>,
    task: AbortHandle,
}

struct NodeState {
    hello: Mutex<Option<HelloReply>>,
    script: Mutex<Script>,
    seen: Mutex<Vec<RequestEnvelope>>,
    hellos: Mutex<Vec<Hello>>,
    open: AtomicUsize,
    changed: Notify,
}

impl FakeNode {
    /// A node that says Welcome and follows `script` from then on.
    pub(crate) async fn start(script: impl FnMut(&RequestEnvelope) -> Action + Send + 'static) -> Self {
        Self::start_with(Some(HelloReply::Welcome(welcome())), script).await
    }

    /// A node that answers Hello with `hello`, or not at all.
    pub(crate) async fn start_with(
        hello: Option<HelloReply>,
        script: impl FnMut(&RequestEnvelope) -> Action + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(NodeState {
            hello: Mutex::new(hello),
            script: Mutex::new(Box::new(script)),
            seen: Mutex::default(),
            hellos: Mutex::default(),
            open: AtomicUsize::new(0),
            changed: Notify::new(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { address, shared, task }
    }

    /// All requests so far, without probes and other questions for the status.
    pub(crate) fn seen(&self) -> Vec<RequestEnvelope> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|envelope| envelope.body != Request::Status).cloned().collect()
    }

    /// All writes so far.
    pub(crate) fn writes(&self) -> Vec<WriteRequest> {
        let write = |envelope: RequestEnvelope| match envelope.body {
            Request::Write(write) => Some(write),
            _ => None,
        };
        self.seen().into_iter().filter_map(write).collect()
    }

    /// All greetings so far.
    pub(crate) fn hellos(&self) -> Vec<Hello> {
        self.shared.hellos.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn until_seen(&self, requests: usize) {
        self.until(|node| node.seen().len() >= requests).await;
    }

    /// Waits until exactly so many connections are open.
    pub(crate) async fn until_open(&self, connections: usize) {
        self.until(|node| node.shared.open.load(Ordering::SeqCst) == connections).await;
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, node: Arc<NodeState>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let node = Arc::clone(&node);
        connections.spawn(async move {
            node.open.fetch_add(1, Ordering::SeqCst);
            node.changed.notify_waiters();
            serve(stream, &node).await;
            node.open.fetch_sub(1, Ordering::SeqCst);
            node.changed.notify_waiters();
        });
    }
}

/// Serves a connection until either side closes it.
async fn serve(mut stream: TcpStream, node: &NodeState) {
    let mut inbox = BytesMut::new();
    let Some(body) = next_frame(&mut stream, &mut inbox).await else { return };
    node.hellos.lock().unwrap().push(frame::decode(&body).unwrap());
    let reply = node.hello.lock().unwrap().clone();
    if let Some(reply) = &reply {
        let mut out = BytesMut::new();
        frame::encode(reply, &mut out);
        stream.write_all(&out).await.unwrap();
    }
    while let Some(body) = next_frame(&mut stream, &mut inbox).await {
        let envelope: RequestEnvelope = frame::decode(&body).unwrap();
        node.seen.lock().unwrap().push(envelope.clone());
        let action = (node.script.lock().unwrap())(&envelope);
        node.changed.notify_waiters();
        let mut out = BytesMut::new();
        match action {
            Action::Answer(answers) => {
                for (correlation, body) in answers {
                    frame::encode(&ResponseEnvelope { correlation, body }, &mut out);
                }
            }
            Action::Raw(bytes) => out.extend_from_slice(&bytes),
            Action::Close => return,
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
    }
}

async fn next_frame(stream: &mut TcpStream, inbox: &mut BytesMut) -> Option<bytes::Bytes> {
    loop {
        if let Some(body) = FrameDecoder::new(CLIENT_FRAME_LIMIT).decode(inbox).unwrap() {
            return Some(body);
        }
        match stream.read_buf(inbox).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// The usual terms.
pub(crate) fn welcome() -> Welcome {
    Welcome {
        version: 1,
        cluster: Some(CLUSTER),
        node: NodeId::new(1),
        committed: Version::new(100),
        limits: Limits::DEFAULT,
    }
}

/// Answers the request with `response`.
pub(crate) fn answer(envelope: &RequestEnvelope, response: Response) -> Action {
    Action::Answer(vec![(envelope.correlation, response)])
}

/// Says nothing.
pub(crate) fn silence() -> Action {
    Action::Answer(Vec::new())
}

/// A write that was applied at `version`; another node led if one is named.
pub(crate) fn written(version: u64, leader: Option<&str>) -> Response {
    let leader = leader.map(str::to_owned);
    Response::Written(Written { outcome: Outcome::Applied, version: Version::new(version), leader })
}

/// A key with a value.
pub(crate) fn got(version: u64, value: &'static str) -> Response {
    let value = Versioned { version: Version::new(version), value: value.into() };
    Response::Got(Got { value: Some(value), age_ms: None, evidence: None })
}

/// A refusal.
pub(crate) fn failed(code: ErrorCode, leader: Option<&str>) -> Response {
    let leader = leader.map(str::to_owned);
    Response::Failed(Failure { code, message: "by the script".to_owned(), leader, evidence: None })
}

/// A client of these nodes that is in no hurry.
pub(crate) fn builder(nodes: &[&FakeNode]) -> ClientBuilder {
    Client::builder(nodes.iter().map(|node| &node.address)).timeout(std::time::Duration::from_secs(60))
}

/// As [`builder`], with the usual settings.
pub(crate) fn client(nodes: &[&FakeNode]) -> Client {
    builder(nodes).connect().unwrap()
}

/// An address at which nobody listens.
pub(crate) async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A status; only what is committed tells something.
pub(crate) fn status(committed: u64) -> Response {
    use quorumkv_protocol::Epoch;
    use quorumkv_protocol::client::{NodeRole, NodeStatus};
    Response::Status(Box::new(NodeStatus {
        takeover: None,
        gave_up: None,
        damage: None,
        node: NodeId::new(1),
        address: "127.0.0.1:1".to_owned(),
        cluster: Some(CLUSTER),
        role: NodeRole::Follower,
        epoch: Epoch::ZERO,
        leader: None,
        leader_address: None,
        last: Version::new(committed),
        committed: Version::new(committed),
        applied: Version::new(committed),
        lag: 0,
        sync_p99_us: 0,
        zookeeper: "connected".to_owned(),
        ready: true,
        remarks: String::new(),
        software: "0.1.0".to_owned(),
        uptime_s: 1,
        members: Vec::new(),
    }))
}
