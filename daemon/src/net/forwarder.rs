//! Forwarding writes to the leader.
//!
//! A forwarded write stays here until it is answered or its client stops waiting. When the leader changes, or the
//! connection to it breaks, everything unanswered is sent again to the next: the request ids make that harmless.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::{
    Failure, Request, RequestEnvelope, Response, ResponseEnvelope, WriteRequest,
};
use quorumkv_protocol::frame::PEER_FRAME_LIMIT;
use quorumkv_protocol::hello::{Hello, Role};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use super::ReplyTo;
use super::frames::{self, ConnectionError, Reader};
use crate::shell::{Event, Leadership, Node};

/// Writes that may wait here. Beyond it they are refused as overload.
const QUEUE: usize = 16_384;

/// How often deadlines are looked at: an answer may come this much late.
const EXPIRY_SCAN: Duration = Duration::from_millis(25);

/// Pause before a leader is tried again that refused or could not be reached.
const PAUSE: Duration = Duration::from_millis(20);

/// Answers this much before the client stops waiting, so that the answer still finds it.
const MARGIN: Duration = Duration::from_millis(5);

/// A write on its way to the leader.
#[derive(Debug)]
pub(crate) struct Forward {
    request: WriteRequest,
    deadline: Instant,
    reply: ReplyTo,
    /// How many times it was sent: each may have reached a leader.
    sent: u32,
}

impl Forward {
    pub(crate) const fn new(request: WriteRequest, deadline: Instant, reply: ReplyTo) -> Self {
        Self { request, deadline, reply, sent: 0 }
    }

    /// Answers that the time is up.
    fn give_up(self) {
        if self.sent > 0 {
            let message = "the leader did not answer in time: the write may have been applied, or may yet be";
            self.reply.fail(ErrorCode::OutcomeUnknown, message);
        } else {
            self.reply.fail(ErrorCode::NoQuorum, "no leader was found in time; nothing was written");
        }
    }
}

/// Takes writes that the leader is to have.
#[derive(Clone, Debug)]
pub(crate) struct Forwarder {
    queue: Sender<Forward>,
}

impl Forwarder {
    /// A forwarder, and the queue that [`run`] has to serve.
    pub(crate) fn new() -> (Self, Receiver<Forward>) {
        let (queue, forwards) = channel(QUEUE);
        (Self { queue }, forwards)
    }

    /// Forwards a write.
    pub(crate) fn forward(&self, forward: Forward) {
        if let Err(refused) = self.queue.try_send(forward) {
            let message = "too many writes wait for a leader at this node; nothing was written";
            refused.into_inner().reply.fail(ErrorCode::Overloaded, message);
        }
    }
}

/// What has not been answered yet, by the number under which it is sent.
#[derive(Default)]
struct Pending {
    forwards: BTreeMap<u64, Forward>,
    next: u64,
}

/// Forwards what comes through `queue` until the node ends.
pub(crate) async fn run(node: Arc<Node>, mut queue: Receiver<Forward>) {
    let mut leadership = node.watch_leadership();
    let mut pending = Pending::default();
    loop {
        let now = leadership.borrow_and_update().clone();
        let ended = match &now {
            Leadership::Leading => pending.take_over(&node).await,
            Leadership::Following { address, .. } => {
                let hello = Hello::new(node.cluster(), Role::Forwarder { node: node.id });
                let connected = tokio::select! {
                    connected = frames::connect(address, &hello, PEER_FRAME_LIMIT) => connected,
                    changed = leadership.changed() => match changed { Ok(()) => continue, Err(_) => return },
                };
                match connected {
                    Ok((reader, writer, _)) => {
                        let connection = (reader, writer);
                        pending.pump(connection, address, &mut queue, &mut leadership).await.unwrap_or_else(
                            |error| {
                                tracing::debug!(leader = address, "forwarding was interrupted: {error}");
                            },
                        );
                        true
                    }
                    Err(error) => {
                        tracing::debug!(leader = address, "cannot reach the leader: {error}");
                        true
                    }
                }
            }
            Leadership::Unknown => false,
        };
        // Until there is a leader (or the pause is over), writes are taken in and given up when their time comes.
        let pause = async {
            if ended {
                sleep(PAUSE).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(pause);
        let mut expiry = interval(EXPIRY_SCAN);
        loop {
            tokio::select! {
                changed = leadership.changed() => match changed { Ok(()) => break, Err(_) => return },
                () = &mut pause, if !matches!(now, Leadership::Leading) => break,
                forward = queue.recv() => match forward {
                    Some(forward) => {
                        pending.add(forward);
                        if matches!(now, Leadership::Leading) {
                            pending.take_over(&node).await;
                        }
                    }
                    None => return,
                },
                _ = expiry.tick() => pending.expire(),
            }
        }
    }
}

impl Pending {
    fn add(&mut self, forward: Forward) -> u64 {
        self.next += 1;
        self.forwards.insert(self.next, forward);
        self.next
    }

    /// This node leads itself now: nothing needs to be forwarded.
    async fn take_over(&mut self, node: &Node) -> bool {
        for Forward { request, deadline, reply, .. } in std::mem::take(&mut self.forwards).into_values() {
            if node.events.send(Event::Write { request, deadline, reply }).await.is_err() {
                return false;
            }
        }
        false
    }

    /// Forwards over one connection until it breaks or the leader changes.
    async fn pump(
        &mut self,
        (mut reader, mut writer): (Reader, OwnedWriteHalf),
        leader: &str,
        queue: &mut Receiver<Forward>,
        leadership: &mut watch::Receiver<Leadership>,
    ) -> Result<(), ConnectionError> {
        let mut expiry = interval(EXPIRY_SCAN);
        let (mut batch, mut buffer) = (Vec::new(), BytesMut::new());
        let unanswered: Vec<u64> = self.forwards.keys().copied().collect();
        self.send(&unanswered, &mut writer, &mut buffer).await?;
        loop {
            tokio::select! {
                changed = leadership.changed() => return changed.map_err(|_| ConnectionError::Closed),
                count = queue.recv_many(&mut batch, frames::COALESCED_MESSAGES) => {
                    if count == 0 {
                        return Err(ConnectionError::Closed);
                    }
                    let numbers: Vec<u64> = batch.drain(..).map(|forward| self.add(forward)).collect();
                    self.send(&numbers, &mut writer, &mut buffer).await?;
                }
                // Cancel safe: the reader keeps what has arrived of a frame.
                response = frames::receive::<ResponseEnvelope>(&mut reader) => self.answer(response?, leader)?,
                _ = expiry.tick() => self.expire(),
            }
        }
    }

    async fn send(
        &mut self,
        numbers: &[u64],
        writer: &mut OwnedWriteHalf,
        buffer: &mut BytesMut,
    ) -> std::io::Result<()> {
        let now = Instant::now();
        let envelopes: Vec<RequestEnvelope> = numbers
            .iter()
            .filter_map(|&correlation| {
                let forward = self.forwards.get_mut(&correlation)?;
                forward.sent += 1;
                let left = forward.deadline.saturating_duration_since(now).saturating_sub(MARGIN);
                let timeout_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
                Some(RequestEnvelope {
                    correlation,
                    timeout_ms,
                    body: Request::Write(forward.request.clone()),
                })
            })
            .collect();
        frames::send_all(writer, envelopes, buffer).await
    }

    /// Hands an answer to its client. An error if the leader no longer leads: what it did not take goes to the next.
    fn answer(&mut self, response: ResponseEnvelope, leader: &str) -> Result<(), ConnectionError> {
        if let Response::Failed(Failure {
            code: ErrorCode::NotLeader | ErrorCode::ShuttingDown,
            message,
            ..
        }) = response.body
        {
            return Err(ConnectionError::Refused(message));
        }
        let Some(forward) = self.forwards.remove(&response.correlation) else { return Ok(()) };
        let mut body = response.body;
        match &mut body {
            Response::Written(written) => written.leader = Some(leader.to_owned()),
            // The leader cannot tell whether an earlier send was applied; the client, who sent once, would conclude
            // that it was not.
            Response::Failed(failure) if failure.code == ErrorCode::RequestExpired && forward.sent > 1 => {
                failure.code = ErrorCode::OutcomeUnknown;
            }
            Response::Failed(failure) => failure.leader = Some(leader.to_owned()),
            Response::Got(_) | Response::Scanned(_) | Response::Status(_) | Response::Stopping => {}
        }
        forward.reply.send(body);
        Ok(())
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for (_, forward) in self.forwards.extract_if(.., |_, forward| forward.deadline <= now) {
            forward.give_up();
        }
    }
}
