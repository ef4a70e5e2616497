//! A connection as its socket sees it: one task that sends everything queued in one write, and hands out answers.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use quorumkv_protocol::client::{Request, RequestEnvelope, ResponseEnvelope};
use quorumkv_protocol::frame::{self, FrameDecoder, PEER_FRAME_LIMIT};
use quorumkv_protocol::hello::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::context::{Context, Patience};
use crate::error::ConnectionFailure;
use crate::handshake::{Opened, broken};
use crate::session::{Call, SessionEnd};

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
}

impl SessionIo {
    pub(crate) fn new(opened: Opened, end: SessionEnd, patience: Patience) -> Self {
        let Opened { stream, inbox, limits } = opened;
        let in_flight = (limits.in_flight as usize).max(1);
        Self {
            stream,
            traffic: Traffic::new(inbox, &limits, end.silent),
            queue: end.queue,
            ended: end.ended,
            patience,
            in_flight,
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
        let Self { stream, traffic, queue, patience, in_flight, .. } = self;
        let (mut reader, mut writer) = stream.split();
        let mut batch = Vec::new();
        let mut clock = interval(patience.probe() / 4);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        traffic.receive(context)?;
        loop {
            traffic.prepare();
            // One place is left for a probe where there is more than one.
            let room = (*in_flight - 1).max(1).saturating_sub(traffic.pending.len());
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
                taken = queue.recv_many(&mut batch, room), if room > 0 && traffic.outbox.len() < HIGH_WATER => {
                    if taken == 0 {
                        return Err(ConnectionFailure::Closed);
                    }
                    traffic.send_all(&mut batch);
                }
                _ = clock.tick(), if !traffic.pending.is_empty() => traffic.watch(*patience, *in_flight)?,
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
    pending: HashMap<u64, Option<oneshot::Sender<quorumkv_protocol::client::Response>>>,
    next_correlation: u64,
    /// When the node was last heard, or when it was first asked something since it had nothing to answer.
    quiet_since: Instant,
    /// When a probe was sent that the node has not reacted to.
    probe: Option<Instant>,
    /// Tells callers that the node has been silent for too long to wait for it alone.
    silent: watch::Sender<Option<Duration>>,
}

impl Traffic {
    fn new(inbox: BytesMut, limits: &Limits, silent: watch::Sender<Option<Duration>>) -> Self {
        Self {
            // What a node sends is never longer than what nodes may send each other, or than it takes itself.
            decoder: FrameDecoder::new(limits.frame.max(PEER_FRAME_LIMIT)),
            inbox,
            outbox: BytesMut::new(),
            pending: HashMap::new(),
            next_correlation: 1,
            quiet_since: Instant::now(),
            probe: None,
            silent,
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
        if self.probe.take().is_some() {
            self.silent.send_if_modified(|silent| silent.take().is_some());
        }
    }

    /// Hands out all answers that have arrived.
    fn receive(&mut self, context: &Context) -> Result<(), ConnectionFailure> {
        while let Some(body) = self.decoder.decode(&mut self.inbox)? {
            let ResponseEnvelope { correlation, body } = frame::decode(&body)?;
            let waiting =
                self.pending.remove(&correlation).ok_or(ConnectionFailure::Correlation(correlation))?;
            context.observe_answer(&body);
            if let Some(reply) = waiting {
                // The caller may have given up; then nobody wants the answer.
                let _ = reply.send(body);
            }
        }
        Ok(())
    }

    /// Encodes all requests of a batch that are still wanted.
    fn send_all(&mut self, batch: &mut Vec<Call>) {
        let now = Instant::now();
        for call in batch.drain(..) {
            let Call { mut envelope, deadline, gate, reply } = call;
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() || reply.is_closed() || !gate.send() {
                continue;
            }
            envelope.timeout_ms = millis(left);
            self.send(envelope, Some(reply), now);
        }
    }

    fn send(
        &mut self,
        mut envelope: RequestEnvelope,
        reply: Option<oneshot::Sender<quorumkv_protocol::client::Response>>,
        now: Instant,
    ) {
        if self.pending.is_empty() {
            self.quiet_since = now;
        }
        envelope.correlation = self.next_correlation;
        self.next_correlation += 1;
        frame::encode(&envelope, &mut self.outbox);
        self.pending.insert(envelope.correlation, reply);
    }

    /// Finds out whether a node that owes answers is still there. A long silence alone proves nothing (a write waits
    /// for its quorum), but a status is always answered at once.
    fn watch(&mut self, patience: Patience, in_flight: usize) -> Result<(), ConnectionFailure> {
        let now = Instant::now();
        let quiet = now - self.quiet_since;
        match self.probe {
            Some(sent) if now - sent >= patience.silence - patience.probe() => {
                Err(ConnectionFailure::Silent(quiet))
            }
            Some(sent) if now - sent >= patience.doubt() - patience.probe() => {
                self.silent.send_if_modified(|silent| silent.replace(quiet).is_none());
                Ok(())
            }
            None if quiet >= patience.probe() && self.pending.len() < in_flight => {
                let timeout_ms = millis(patience.silence - patience.probe());
                let probe = RequestEnvelope { correlation: 0, timeout_ms, body: Request::Status };
                self.send(probe, None, now);
                self.probe = Some(now);
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whole milliseconds, rounded up: a request that has time left must not carry a timeout of zero.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}
