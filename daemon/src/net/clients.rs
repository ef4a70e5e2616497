//! Serving clients: each connection's requests are taken in, checked, and answered in any order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quorumkv_protocol::client::{
    Consistency, Failure, Got, Item, MAX_SCAN_ITEMS, Request, RequestEnvelope, Response, ResponseEnvelope,
    Scanned, Versioned, WriteRequest,
};
use quorumkv_protocol::entry::is_key;
use quorumkv_protocol::frame::CLIENT_FRAME_LIMIT;
use quorumkv_protocol::hello::Limits;
use quorumkv_protocol::membership::Refusal;
use quorumkv_protocol::{ErrorCode, frame};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::frames::{self, Budget, COALESCED_MESSAGES, Charge, ConnectionError, Reader};
use super::{Forward, Forwarder};
use crate::coordination::HostPort;
use crate::fatal::die;
use crate::shell::{Event, Leadership, Node};
use crate::state::ReadError;

/// Bytes of a scan's page: well below a frame, whose overhead per item is small.
const PAGE_BYTES: usize = 4 << 20;

/// A read of the state that took so long has waited for the disk, and so have all others on this thread: then it is their turn.
const LONG_READ: Duration = Duration::from_micros(20);

/// Memory that small requests and the values of answers may take, over all connections, in bytes; and large ones as
/// much again. Beyond it nothing more is read from clients until something has been answered.
const CLIENT_MEMORY: usize = 128 << 20;

/// Memory that the values of answers on one connection may take until they are written: who does not collect them must
/// not take all that there is for others.
const CONNECTION_MEMORY: usize = CLIENT_MEMORY / 2;

/// Where a request's answer goes. It is sent exactly once.
#[derive(Debug)]
pub(crate) struct ReplyTo {
    responses: Sender<Queued>,
    correlation: u64,
    place: Place,
}

/// What a request occupies until its answer is being written: one of the requests that may be in flight on the connection, and
/// memory.
#[derive(Debug)]
struct Place {
    connection: Arc<Connection>,
    /// The memory that the request takes, and then that which its answer takes.
    charge: Option<Charge>,
    /// What the answer takes of the memory for this connection.
    share: Option<Charge>,
}

/// What the requests on one connection share.
#[derive(Debug)]
struct Connection {
    /// As many more may be in flight.
    in_flight: Semaphore,
    memory: Budget,
    shares: Budget,
}

impl Place {
    /// Takes memory for an answer with values of so many bytes, if there is some.
    fn charge(&mut self, bytes: usize) -> Result<(), &'static str> {
        (self.charge, self.share) = (None, None);
        if bytes > 0 {
            let share = self.connection.shares.try_charge(bytes);
            self.share = Some(share.ok_or("too many answers on this connection are not read: try again")?);
            let charge = self.connection.memory.try_charge(bytes);
            self.charge =
                Some(charge.ok_or("too much memory is taken by answers that are not read: try again")?);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.in_flight.add_permits(1);
    }
}

/// An answer on its way. It holds the request's place among those in flight until it is being written, so that the queue
/// of a connection has room for it.
#[derive(Debug)]
struct Queued {
    response: ResponseEnvelope,
    _place: Place,
}

impl ReplyTo {
    /// Sends the answer; nobody is there to hear it if the connection has ended.
    pub(crate) fn send(self, mut body: Response) {
        let Self { responses, correlation, mut place } = self;
        if let Err(message) = place.charge(value_bytes(&body)) {
            body = failure(ErrorCode::Overloaded, message);
        }
        let response = ResponseEnvelope { correlation, body };
        let _ = responses.try_send(Queued { response, _place: place });
    }

    /// Says why the request failed.
    pub(crate) fn fail(self, code: ErrorCode, message: impl Into<String>) {
        self.send(failure(code, message));
    }
}

/// Bytes of the values in an answer, roughly.
fn value_bytes(response: &Response) -> usize {
    match response {
        Response::Got(got) => got.value.as_ref().map_or(0, |value| value.value.len()),
        Response::Scanned(page) => {
            page.items.iter().map(|item| item.key.len() + item.value.value.len()).sum()
        }
        Response::Written(_)
        | Response::Status(_)
        | Response::Stopping
        | Response::Failed(_)
        | Response::Members(_)
        | Response::Refused(_)
        | Response::Permitted
        | Response::Draining => 0,
    }
}

/// An answer that says why a request failed.
pub(crate) fn failure(code: ErrorCode, message: impl Into<String>) -> Response {
    Response::Failed(Failure { code, message: message.into(), leader: None, evidence: None })
}

/// What serves clients.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pub(crate) node: Arc<Node>,
    forwarder: Forwarder,
    memory: Budget,
}

/// One connection.
struct Session {
    clients: Clients,
    address: SocketAddr,
    /// Whether another node forwards: then nothing is forwarded again.
    forwarded: bool,
}

impl Clients {
    pub(crate) fn new(node: Arc<Node>, forwarder: Forwarder) -> Self {
        Self { node, forwarder, memory: Budget::new(CLIENT_MEMORY) }
    }

    /// Serves one connection until it ends, or the node does: then what is answered still goes out.
    pub(crate) async fn serve(
        &self,
        mut reader: Reader,
        writer: OwnedWriteHalf,
        address: SocketAddr,
        forwarded: bool,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        reader.open_up(CLIENT_FRAME_LIMIT, Some(self.memory.clone()));
        let (responses, queue) = channel(Limits::DEFAULT.in_flight as usize);
        let session = Session { clients: self.clone(), address, forwarded };
        let written = write(writer, queue);
        tokio::pin!(written);
        tokio::select! {
            read = session.read(reader, responses) => {
                // Answers to what was read last still have to go out.
                written.await?;
                read
            }
            written = &mut written => written,
            () = stop.cancelled() => written.await,
        }
    }
}

/// Writes answers as they come, until there will be no more.
async fn write(mut writer: OwnedWriteHalf, mut queue: Receiver<Queued>) -> Result<(), ConnectionError> {
    let (mut batch, mut buffer) = (Vec::new(), BytesMut::new());
    while queue.recv_many(&mut batch, COALESCED_MESSAGES).await > 0 {
        frames::send_all(&mut writer, batch.drain(..).map(|queued: Queued| queued.response), &mut buffer)
            .await?;
    }
    Ok(())
}

impl Session {
    async fn read(&self, mut reader: Reader, responses: Sender<Queued>) -> Result<(), ConnectionError> {
        let connection = Arc::new(Connection {
            in_flight: Semaphore::new(Limits::DEFAULT.in_flight as usize),
            memory: self.clients.memory.clone(),
            shares: Budget::new(CONNECTION_MEMORY),
        });
        loop {
            let Ok(permit) = connection.in_flight.acquire().await else { return Ok(()) };
            // Its place gives it back.
            permit.forget();
            let mut place = Place { connection: Arc::clone(&connection), charge: None, share: None };
            let (envelope, charge) = match frames::receive_charged::<RequestEnvelope>(&mut reader).await {
                Ok(received) => received,
                Err(error) => {
                    if let ConnectionError::Frame(_) = &error {
                        // No request can be told apart in it, so the answer bears the number that no request has.
                        let reply = ReplyTo { responses, correlation: 0, place };
                        reply.fail(ErrorCode::Malformed, format!("{error}; the connection is closed"));
                    }
                    return Err(error);
                }
            };
            place.charge = charge;
            let reply = ReplyTo { responses: responses.clone(), correlation: envelope.correlation, place };
            let timeout = Duration::from_millis(u64::from(envelope.timeout_ms));
            self.take(envelope.body, timeout, reply).await;
        }
    }

    /// Sees to it that a request is answered.
    async fn take(&self, request: Request, timeout: Duration, reply: ReplyTo) {
        let node = &self.clients.node;
        node.metrics.request(&request);
        match request {
            Request::Status => return reply.send(Response::Status(Box::new(node.status()))),
            Request::Stop { at_once } => return self.stop(at_once, reply),
            Request::Drain { undo } => return self.drain(undo, reply).await,
            Request::Write(_)
            | Request::Get { .. }
            | Request::Scan { .. }
            | Request::Members
            | Request::Change { .. } => {}
        }
        if node.cluster().is_none() && !is_local(&request) {
            return reply.fail(ErrorCode::NotReady, node.remarks());
        }
        if node.stopping.is_cancelled() {
            return reply.fail(ErrorCode::ShuttingDown, "this node is shutting down: ask another");
        }
        if node.is_drained() && !self.forwarded {
            return reply.fail(ErrorCode::ShuttingDown, "this node is drained: ask another");
        }
        if node.is_outsider() && !is_local(&request) {
            return reply.fail(ErrorCode::NotMember, node.remarks());
        }
        if node.is_quarantined() && is_local(&request) {
            return reply.fail(ErrorCode::NotReady, node.remarks());
        }
        let now = Instant::now();
        let (deadline, read_deadline) = (now + timeout, now + timeout.min(node.read_timeout));
        match request {
            Request::Write(write) => match check(&write) {
                Ok(()) => self.lead(Request::Write(write), deadline, reply).await,
                Err(message) => reply.fail(ErrorCode::TooLarge, message),
            },
            Request::Members => self.lead(Request::Members, deadline, reply).await,
            Request::Change { request, dry_run } => match request.change.new_member() {
                Some(new) if new.address.parse::<HostPort>().is_err() => {
                    reply.send(Response::Refused(Refusal::Unsound));
                }
                _ => self.lead(Request::Change { request, dry_run }, deadline, reply).await,
            },
            Request::Get { key, consistency: Consistency::Local, .. } => {
                self.get_local(&key, reply);
                if now.elapsed() > LONG_READ {
                    yield_now().await;
                }
            }
            Request::Get { key, consistency: Consistency::Quorum, evidence } => {
                self.tell(Event::Read { key, evidence, deadline: read_deadline, reply }).await;
            }
            Request::Scan { prefix, after, limit, consistency } => {
                let scan = Scan { prefix, after, limit };
                match consistency {
                    Consistency::Local => scan.start(node, reply),
                    Consistency::Quorum => {
                        self.tell(Event::Scan { scan, deadline: read_deadline, reply }).await;
                    }
                }
            }
            Request::Status | Request::Stop { .. } | Request::Drain { .. } => {}
        }
    }

    async fn tell(&self, event: Event) {
        // The owner is gone only when the process is about to end; the connection ends with it.
        let _ = self.clients.node.events.send(event).await;
    }

    /// Brings a request to the leader.
    async fn lead(&self, request: Request, deadline: Instant, reply: ReplyTo) {
        let node = &self.clients.node;
        match node.leadership() {
            Leadership::Leading => {
                self.tell(Event::ToLead { request, deadline, reply, retried: false }).await;
            }
            leadership if self.forwarded => {
                let leader = leadership.address().map(ToOwned::to_owned);
                let message = "this node does not lead".to_owned();
                reply.send(Response::Failed(Failure {
                    code: ErrorCode::NotLeader,
                    message,
                    leader,
                    evidence: None,
                }));
            }
            Leadership::Following { .. } | Leadership::Unknown => {
                self.clients.forwarder.forward(Forward::new(request, deadline, reply, &node.forwarded));
            }
        }
    }

    fn get_local(&self, key: &Bytes, reply: ReplyTo) {
        let node = &self.clients.node;
        let record = match node.state().get(key) {
            Ok(record) => record,
            Err(error) => return fail_unreadable(node, &error, reply),
        };
        let value = record.map(|record| Versioned { version: record.id.version, value: record.value });
        reply.send(Response::Got(Got { value, age_ms: node.age_ms(), evidence: None }));
    }

    /// Whether whoever asks may stop this node.
    fn may_stop(&self) -> bool {
        self.address.ip().is_loopback() || self.clients.node.allow_remote_kill
    }

    fn stop(&self, at_once: bool, reply: ReplyTo) {
        let node = &self.clients.node;
        if !self.may_stop() {
            return reply.fail(ErrorCode::NotPermitted, FROM_AFAR);
        }
        if at_once {
            die_at_once();
        }
        tracing::info!(from = %self.address, "told to stop");
        reply.send(Response::Stopping);
        node.stopping.cancel();
    }

    async fn drain(&self, undo: bool, reply: ReplyTo) {
        let node = &self.clients.node;
        if !self.may_stop() {
            return reply.fail(ErrorCode::NotPermitted, FROM_AFAR);
        }
        if !undo && node.configurations().latest.voters.len() < 2 {
            return reply.fail(
                ErrorCode::NotPermitted,
                "this node is the only one that votes: nobody else could serve",
            );
        }
        tracing::info!(from = %self.address, "{}", if undo { "told to serve again" } else { "told to serve no clients" });
        self.tell(Event::Drain { undo }).await;
        reply.send(Response::Draining);
    }
}

/// Ends as by SIGKILL from outside.
fn die_at_once() -> ! {
    let sent = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The first process of a container is not ended by a signal from within.
    tracing::warn!("SIGKILL does nothing ({sent:?}): exits");
    std::process::exit(137)
}

/// Whether a node answers this from its own state.
const fn is_local(request: &Request) -> bool {
    matches!(
        request,
        Request::Get { consistency: Consistency::Local, .. }
            | Request::Scan { consistency: Consistency::Local, .. }
    )
}

/// The state cannot be read where a client wants to look.
fn fail_unreadable(node: &Node, error: &ReadError, reply: ReplyTo) {
    if error.is_failed_write() {
        die(&error.to_string());
    }
    if error.is_damage() {
        // An owner that has no time for it finds out by itself.
        let database = node.state().database();
        let _ = node.events.try_send(Event::StateDamaged { database, what: error.to_string() });
    }
    reply.fail(ErrorCode::Corruption, error.to_string());
}

/// Whether a write is within the limits.
fn check(request: &WriteRequest) -> Result<(), String> {
    let limits = Limits::DEFAULT;
    let key = request.write.key();
    if !is_key(key) {
        return Err(format!("a key has 1 to {} bytes, and this one has {}", limits.key, key.len()));
    }
    match request.write.value() {
        Some(value) if value.len() > limits.value as usize => {
            Err(format!("a value has at most {} bytes, and this one has {}", limits.value, value.len()))
        }
        Some(_) | None => Ok(()),
    }
}

const FROM_AFAR: &str = "this node is stopped and drained only from its own machine, unless it was started with --allow-remote-kill";

/// A page of keys that a client asks for.
#[derive(Debug)]
pub(crate) struct Scan {
    prefix: Bytes,
    after: Option<Bytes>,
    limit: u32,
}

impl Scan {
    /// Reads the page from the node's state, on a thread that may block.
    pub(crate) fn start(self, node: &Arc<Node>, reply: ReplyTo) {
        let (tasks, node) = (node.tasks.clone(), Arc::clone(node));
        tasks.spawn_blocking(move || {
            let limit = (self.limit as usize).min(MAX_SCAN_ITEMS);
            let page = node.state().view().and_then(|view| {
                let page = view.scan(&self.prefix, self.after.as_deref(), limit, PAGE_BYTES)?;
                Ok((page, view.applied().version))
            });
            match page {
                // The state may have been found to be damaged since the scan was let through.
                _ if node.is_quarantined() => reply.fail(ErrorCode::NotReady, node.remarks()),
                Err(error) => fail_unreadable(&node, &error, reply),
                Ok((page, at)) => {
                    let item = |(key, record): (Bytes, crate::state::Record)| Item {
                        key,
                        value: Versioned { version: record.id.version, value: record.value },
                    };
                    let items = page.items.into_iter().map(item).collect();
                    let scanned = Response::Scanned(Scanned { items, more: page.more, at });
                    debug_assert!(frame::encoded_length(&scanned) < CLIENT_FRAME_LIMIT as usize);
                    reply.send(scanned);
                }
            }
        });
    }
}
