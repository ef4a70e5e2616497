//! A connection as its socket sees it: one task that sends everything queued in one write, and hands out answers.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::RandomState;
use bytes::BytesMut;
use quorumkv_protocol::client::{Request, RequestEnvelope, ResponseEnvelope};
use quorumkv_protocol::frame::{self, FrameDecoder, PEER_FRAME_LIMIT};
use quorumkv_protocol::hello::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::context::{Context, Patience};
use crate::error::ConnectionFailure;
use crate::handshake::{Opened, broken};
use crate::link::{Health, HealthCell};
use crate::session::{Answer, Call, SessionEnd, Stay};

/// Space for one read.
const READ: usize = 64 << 10;

/// With this much waiting to be sent, no more requests are taken from the queue.
const HIGH_WATER: usize = 256 << 10;

/// A buffer that grew beyond this for large values is replaced once it is empty.
const KEEP: usize = 1 << 20;

/// A connection's socket, with what waits to be sent and what waits to be answered.
pub(crate) struct SessionIo {
    stream: TcpStream,
    traffic: Traffic,
    queue: mpsc::Receiver<Call>,
    ended: Arc<OnceLock<ConnectionFailure>>,
    patience: Patience,
    in_flight: usize,
    /// Taken from the queue, and not sent yet.
    batch: Vec<Call>,
}

impl SessionIo {
    pub(crate) fn new(opened: Opened, end: SessionEnd, health: HealthCell, patience: Patience) -> Self {
        let Opened { stream, inbox, limits } = opened;
        let in_flight = (limits.in_flight as usize).max(1);
        Self {
            stream,
            traffic: Traffic::new(inbox, &limits, health),
            queue: end.queue,
            ended: end.ended,
            patience,
            in_flight,
            batch: Vec::new(),
        }
    }

    /// Serves the connection until it ends, and says why. All calls without an answer are dropped then.
    pub(crate) async fn run(mut self, context: &Context) -> ConnectionFailure {
        let Err(failure) = self.serve(context).await;
        // Callers look for the reason when their call is dropped, so it must stand first.
        let _ = self.ended.set(failure.clone());
        failure
    }

    async fn serve(&mut self, context: &Context) -> Result<std::convert::Infallible, ConnectionFailure> {
        let Self { stream, traffic, queue, patience, in_flight, batch, .. } = self;
        let (mut reader, mut writer) = stream.split();
        let mut clock = interval(patience.probe() / 4);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        traffic.receive(context)?;
        loop {
            traffic.prepare();
            // One place is left for a probe where there is more than one.
            let room = (*in_flight - 1).max(1).saturating_sub(traffic.pending.len());
            if room > 0 && !batch.is_empty() {
                let count = room.min(batch.len());
                traffic.send_all(batch.drain(..count));
                continue;
            }
            tokio::select! {
                biased;
                read = reader.read_buf(&mut traffic.inbox) => {
                    if read.map_err(broken)? == 0 {
                        return Err(ConnectionFailure::Ended);
                    }
                    traffic.heard();
                    traffic.receive(context)?;
                }
                written = writer.write_buf(&mut traffic.outbox), if !traffic.outbox.is_empty() => {
                    written.map_err(broken)?;
                    if !traffic.outbox.is_empty() {
                        // A node that takes a long request in piece by piece is there, even if it cannot answer yet.
                        traffic.heard();
                    }
                }
                taken = queue.recv_many(batch, room), if room > 0 && traffic.outbox.len() < HIGH_WATER => {
                    if taken == 0 {
                        return Err(ConnectionFailure::Closed);
                    }
                    traffic.send_all(batch.drain(..));
                }
                _ = clock.tick(), if !traffic.pending.is_empty() => {
                    if let Some(quiet) = traffic.watch(*patience, *in_flight)? {
                        // Those that wait for their turn wait for this node as well.
                        while let Ok(call) = queue.try_recv() {
                            batch.push(call);
                        }
                        for call in batch.extract_if(.., |call| call.stay == Stay::WhileHeard) {
                            let _ = call.reply.send(Err(quiet));
                        }
                    }
                }
            }
        }
    }
}

/// What goes out and what comes in on one connection, apart from its socket.
struct Traffic {
    decoder: FrameDecoder,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Who waits for which answer; nobody for that of a probe, or when the caller has given up.
    pending: HashMap<u64, Option<Waiting>, RandomState>,
    next_correlation: u64,
    /// When the node was last heard, or when it was first asked something since it had nothing to answer.
    quiet_since: Instant,
    /// When a probe was sent that the node has not reacted to.
    probe: Option<Instant>,
    /// Where it is told that the node has been silent for too long to wait for it alone.
    is_silent: bool,
    health: HealthCell,
}

/// Who waits for an answer.
struct Waiting {
    stay: Stay,
    reply: oneshot::Sender<Answer>,
}

impl Traffic {
    fn new(inbox: BytesMut, limits: &Limits, health: HealthCell) -> Self {
        Self {
            // What a node sends is never longer than what nodes may send each other, or than it takes itself.
            decoder: FrameDecoder::new(limits.frame.max(PEER_FRAME_LIMIT)),
            inbox,
            outbox: BytesMut::new(),
            pending: HashMap::default(),
            next_correlation: 1,
            quiet_since: Instant::now(),
            probe: None,
            is_silent: false,
            health,
        }
    }

    /// Readies the buffers for the next read and write.
    fn prepare(&mut self) {
        if self.outbox.is_empty() && self.outbox.capacity() > KEEP {
            self.outbox = BytesMut::new();
        }
        if self.inbox.is_empty() && self.inbox.capacity() > KEEP {
            self.inbox = BytesMut::new();
        }
        self.inbox.reserve(READ);
    }

    /// Takes note of a sign of life.
    fn heard(&mut self) {
        self.quiet_since = Instant::now();
        self.probe = None;
        if std::mem::take(&mut self.is_silent) {
            self.health.set(Health::Connected);
        }
    }

    /// Hands out all answers that have arrived.
    fn receive(&mut self, context: &Context) -> Result<(), ConnectionFailure> {
        while let Some(body) = self.decoder.decode(&mut self.inbox)? {
            let ResponseEnvelope { correlation, body } = frame::decode(&body)?;
            let waiting =
                self.pending.remove(&correlation).ok_or(ConnectionFailure::Correlation(correlation))?;
            context.observe_answer(&body);
            if let Some(waiting) = waiting {
                // The caller may have given up; then nobody wants the answer.
                let _ = waiting.reply.send(Ok(body));
            }
        }
        Ok(())
    }

    /// Encodes all requests of a batch that are still wanted.
    fn send_all(&mut self, batch: impl Iterator<Item = Call>) {
        let now = Instant::now();
        for call in batch {
            let Call { mut envelope, deadline, gate, stay, reply } = call;
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() || reply.is_closed() || !gate.send() {
                continue;
            }
            envelope.timeout_ms = millis(left);
            self.send(envelope, Some(Waiting { stay, reply }), now);
        }
    }

    fn send(&mut self, mut envelope: RequestEnvelope, waiting: Option<Waiting>, now: Instant) {
        if self.pending.is_empty() {
            self.quiet_since = now;
        }
        envelope.correlation = self.next_correlation;
        self.next_correlation += 1;
        frame::encode(&envelope, &mut self.outbox);
        self.pending.insert(envelope.correlation, waiting);
    }

    /// Finds out whether a node that owes answers is still there. A long silence alone proves nothing (a write waits
    /// for its quorum), but a status is always answered at once. Returns for how long it has said nothing when that begins to be
    /// too long for those who can ask another; those whose requests were sent have been told so.
    fn watch(&mut self, patience: Patience, in_flight: usize) -> Result<Option<Duration>, ConnectionFailure> {
        let now = Instant::now();
        let quiet = now - self.quiet_since;
        match self.probe {
            Some(sent) if now - sent >= patience.silence - patience.probe() => {
                Err(ConnectionFailure::Silent(quiet))
            }
            Some(sent) if now - sent >= patience.doubt() - patience.probe() && !self.is_silent => {
                self.is_silent = true;
                self.health.set(Health::Silent);
                for waiting in self.pending.values_mut() {
                    if let Some(waiting) = waiting.take_if(|waiting| waiting.stay == Stay::WhileHeard) {
                        let _ = waiting.reply.send(Err(quiet));
                    }
                }
                Ok(Some(quiet))
            }
            None if quiet >= patience.probe() && self.pending.len() < in_flight => {
                let timeout_ms = millis(patience.silence - patience.probe());
                let probe = RequestEnvelope { correlation: 0, timeout_ms, body: Request::Status };
                self.send(probe, None, now);
                self.probe = Some(now);
                Ok(None)
            }
            Some(_) | None => Ok(None),
        }
    }
}

/// Whole milliseconds, rounded up: a request that has time left must not carry a timeout of zero.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}
