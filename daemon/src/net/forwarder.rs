//! Forwarding to the leader what only it can do: writes, and changes of the members.
//!
//! What is forwarded stays here until it is answered or its client stops waiting. When the leader changes, or the
//! connection to it breaks, everything unanswered is sent again to the next: the request ids make that harmless.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::{Failure, Request, RequestEnvelope, Response, ResponseEnvelope};
use quorumkv_protocol::frame::PEER_FRAME_LIMIT;
use quorumkv_protocol::hello::{Hello, Role};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::time::{interval, sleep};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::ReplyTo;
use super::frames::{self, ConnectionError, Reader};
use crate::shell::{Event, Leadership, Node};

/// Requests that may wait here. Beyond it they are refused as overload.
const QUEUE: usize = 16_384;

/// How often deadlines are looked at: an answer may come this much late.
const EXPIRY_SCAN: Duration = Duration::from_millis(25);

/// Pause before a leader is tried again that refused or could not be reached.
const PAUSE: Duration = Duration::from_millis(20);

/// Answers this much before the client stops waiting, so that the answer still finds it.
const MARGIN: Duration = Duration::from_millis(5);

/// A request on its way to the leader.
#[derive(Debug)]
pub(crate) struct Forward {
    request: Request,
    deadline: Instant,
    reply: ReplyTo,
    /// How many times it was sent: each may have reached a leader.
    sent: u32,
    /// A node that stops waits for it.
    _unanswered: TaskTrackerToken,
}

impl Forward {
    /// A request that has not been sent yet, counted among the `unanswered` ones.
    pub(crate) fn new(request: Request, deadline: Instant, reply: ReplyTo, unanswered: &TaskTracker) -> Self {
        Self { request, deadline, reply, sent: 0, _unanswered: unanswered.token() }
    }

    /// Answers that the time is up.
    fn give_up(self) {
        if self.sent > 0 {
            let message = "the leader did not answer in time: it may have been done, or may yet be";
            self.reply.fail(ErrorCode::OutcomeUnknown, message);
        } else {
            self.reply.fail(ErrorCode::NoQuorum, "no leader was found in time; nothing was done");
        }
    }
}

/// Takes requests that the leader is to have.
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

    /// Forwards a request.
    pub(crate) fn forward(&self, forward: Forward) {
        if let Err(refused) = self.queue.try_send(forward) {
            let message = "too many requests wait for a leader at this node; nothing was done";
            refused.into_inner().reply.fail(ErrorCode::Overloaded, message);
        }
    }
}

/// This came of a request that was sent more than once. A failure speaks of the last time only; the client, who sent once,
/// would conclude that nothing was done.
pub(crate) fn doubt(response: &mut Response) {
    let of_several = |last: &dyn std::fmt::Display| {
        format!("it was sent to more than one leader, and the last said: {last}")
    };
    match response {
        Response::Failed(failure) if failure.code != ErrorCode::OutcomeUnknown => {
            failure.message = of_several(&failure.message);
            failure.code = ErrorCode::OutcomeUnknown;
        }
        Response::Refused(refusal) => {
            *response = super::clients::failure(ErrorCode::OutcomeUnknown, of_several(refusal));
        }
        _ => {}
    }
}

/// The node is about to end: there is nobody left to forward for.
struct Ended;

/// What has not been answered yet, by the number under which it is sent.
struct Pending {
    node: Arc<Node>,
    queue: Receiver<Forward>,
    leadership: watch::Receiver<Leadership>,
    forwards: BTreeMap<u64, Forward>,
    next: u64,
}

/// Forwards what comes through `queue` until the node ends.
pub(crate) async fn run(node: Arc<Node>, queue: Receiver<Forward>) {
    let leadership = node.watch_leadership();
    let mut pending = Pending { node, queue, leadership, forwards: BTreeMap::new(), next: 0 };
    while let Ok(()) = pending.serve_leader().await {}
}

impl Pending {
    fn add(&mut self, forward: Forward) -> u64 {
        self.next += 1;
        self.forwards.insert(self.next, forward);
        self.next
    }

    /// Serves the present leader, until there is another or it has to be tried again.
    async fn serve_leader(&mut self) -> Result<(), Ended> {
        let leader = self.leadership.borrow_and_update().clone();
        match leader {
            Leadership::Leading => self.take_over().await,
            Leadership::Unknown => self.wait_for(std::future::pending::<()>()).await.map(|_| ()),
            Leadership::Following { address, .. } => {
                let hello = Hello::new(self.node.cluster(), Role::Forwarder { node: self.node.id });
                let error = match self.wait_for(frames::connect(&address, &hello, PEER_FRAME_LIMIT)).await? {
                    None => return Ok(()),
                    Some(Ok((reader, writer, _))) => match self.pump(reader, writer, &address).await {
                        Ok(()) => return Ok(()),
                        Err(error) => error,
                    },
                    Some(Err(error)) => error,
                };
                tracing::debug!(leader = address, "forwarding is interrupted: {error}");
                self.wait_for(sleep(PAUSE)).await.map(|_| ())
            }
        }
    }

    /// Takes in what comes, and gives up what is too late, until something is done. `None` if the leadership changed
    /// before.
    async fn wait_for<F: Future>(&mut self, something: F) -> Result<Option<F::Output>, Ended> {
        tokio::pin!(something);
        let mut expiry = interval(EXPIRY_SCAN);
        loop {
            tokio::select! {
                output = &mut something => return Ok(Some(output)),
                changed = self.leadership.changed() => return changed.map(|()| None).map_err(|_| Ended),
                forward = self.queue.recv() => {
                    self.add(forward.ok_or(Ended)?);
                }
                _ = expiry.tick() => self.expire(),
            }
        }
    }

    /// This node leads itself: nothing needs to be forwarded.
    async fn take_over(&mut self) -> Result<(), Ended> {
        let mut unanswered: VecDeque<Forward> = std::mem::take(&mut self.forwards).into_values().collect();
        loop {
            let Forward { request, deadline, reply, sent, .. } = match unanswered.pop_front() {
                Some(forward) => forward,
                None => tokio::select! {
                    changed = self.leadership.changed() => return changed.map_err(|_| Ended),
                    forward = self.queue.recv() => forward.ok_or(Ended)?,
                },
            };
            let event = Event::ToLead { request, deadline, reply, retried: sent > 0 };
            self.node.events.send(event).await.map_err(|_| Ended)?;
        }
    }

    /// Forwards over one connection until it breaks (an error) or the leadership changes.
    async fn pump(
        &mut self,
        mut reader: Reader,
        mut writer: OwnedWriteHalf,
        leader: &str,
    ) -> Result<(), ConnectionError> {
        let mut expiry = interval(EXPIRY_SCAN);
        let (mut batch, mut buffer) = (Vec::new(), BytesMut::new());
        let unanswered: Vec<u64> = self.forwards.keys().copied().collect();
        if !self.send(unanswered, &mut writer, &mut buffer).await? {
            return Ok(());
        }
        loop {
            tokio::select! {
                changed = self.leadership.changed() => return changed.map_err(|_| ConnectionError::Closed),
                count = self.queue.recv_many(&mut batch, frames::COALESCED_MESSAGES) => {
                    if count == 0 {
                        return Err(ConnectionError::Closed);
                    }
                    let numbers: Vec<u64> = batch.drain(..).map(|forward| self.add(forward)).collect();
                    if !self.send(numbers, &mut writer, &mut buffer).await? {
                        return Ok(());
                    }
                }
                // Cancel safe: the reader keeps what has arrived of a frame.
                response = frames::receive::<ResponseEnvelope>(&mut reader) => self.answer(response?, leader)?,
                _ = expiry.tick() => self.expire(),
            }
        }
    }

    /// Sends the requests under these numbers. False if the leadership changed before all was written: a leader that
    /// has stopped reading must not keep them from the next.
    async fn send(
        &mut self,
        numbers: Vec<u64>,
        writer: &mut OwnedWriteHalf,
        buffer: &mut BytesMut,
    ) -> Result<bool, ConnectionError> {
        let now = Instant::now();
        let envelope = |correlation| {
            let forward = self.forwards.get_mut(&correlation)?;
            forward.sent += 1;
            let left = forward.deadline.saturating_duration_since(now).saturating_sub(MARGIN);
            let timeout_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
            Some(RequestEnvelope { correlation, timeout_ms, body: forward.request.clone() })
        };
        let envelopes: Vec<RequestEnvelope> = numbers.into_iter().filter_map(envelope).collect();
        tokio::select! {
            sent = frames::send_all(writer, envelopes, buffer) => sent.map(|()| true),
            changed = self.leadership.changed() => changed.map(|()| false).map_err(|_| ConnectionError::Closed),
        }
    }

    /// Hands an answer to its client. An error if this is not (or no longer) a leader: what it did not take is sent to
    /// the next.
    fn answer(&mut self, response: ResponseEnvelope, leader: &str) -> Result<(), ConnectionError> {
        if let Response::Failed(Failure { code, message, .. }) = &response.body
            && matches!(code, ErrorCode::NotLeader | ErrorCode::ShuttingDown | ErrorCode::NotReady)
        {
            return Err(ConnectionError::Refused(message.clone()));
        }
        let Some(forward) = self.forwards.remove(&response.correlation) else { return Ok(()) };
        let mut body = response.body;
        if forward.sent > 1 {
            doubt(&mut body);
        }
        match &mut body {
            Response::Written(written) => written.leader = Some(leader.to_owned()),
            Response::Failed(failure) => failure.leader = Some(leader.to_owned()),
            Response::Got(_)
            | Response::Scanned(_)
            | Response::Status(_)
            | Response::Stopping
            | Response::Members(_)
            | Response::Refused(_)
            | Response::Permitted
            | Response::Draining => {}
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
