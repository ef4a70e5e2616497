//! A connection as its users see it: requests go in, each with a place for its answer.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quorumkv_protocol::client::{Request, RequestEnvelope, Response};
use quorumkv_protocol::frame;
use quorumkv_protocol::hello::Limits;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::endpoint::Endpoint;
use crate::error::{ConnectionError, ConnectionFailure, Limited, TooLarge};

/// Requests that wait for their turn on one connection. When it is full, callers wait with their request until their
/// deadline.
const QUEUE: usize = 1024;

/// How much longer than its deadline a caller waits. Nodes answer before the deadline that a request carries, and a
/// definite answer that is on its way is worth more than a guess.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

/// Bytes of a request besides its key and value, at most.
const OVERHEAD: usize = 128;

/// Why an exchange brought no answer.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// No byte of it was sent.
    NotSent(ConnectionError),
    /// It is over a limit. No byte of it was sent.
    TooLarge(TooLarge),
    /// The deadline passed before it could be sent.
    NotSentInTime,
    /// It was sent, and the connection ended.
    Lost(ConnectionError),
    /// It was sent, and no answer came in time.
    TimedOut,
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Session {
    endpoint: Endpoint,
    limits: Limits,
    queue: mpsc::Sender<Call>,
    /// Why the connection ended; set before its calls are dropped.
    ended: Arc<OnceLock<ConnectionFailure>>,
}

/// How long an answer is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stay {
    /// Until the deadline.
    ToTheEnd,
    /// Until the node falls silent: another can answer as well. Of one that has been silent before, who asks it knows already.
    WhileHeard,
}

/// What a caller is told: the answer, or for how long the node has said nothing.
pub(crate) type Answer = Result<Response, Duration>;

/// A request on its way to the connection's task. Dropping it tells the caller that no answer will come.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) envelope: RequestEnvelope,
    pub(crate) deadline: Instant,
    pub(crate) gate: Gate,
    pub(crate) stay: Stay,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// Whether a request may still be taken back. Exactly one of the two sides gets through.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<AtomicU8>);

impl Gate {
    const QUEUED: u8 = 0;
    const SENT: u8 = 1;
    const WITHDRAWN: u8 = 2;

    fn new() -> Self {
        Self(Arc::new(AtomicU8::new(Self::QUEUED)))
    }

    /// For the connection: it is about to send. False if the caller took the request back.
    pub(crate) fn send(&self) -> bool {
        self.pass(Self::SENT)
    }

    /// For the caller: it gives up. False if the request may have been sent.
    fn withdraw(&self) -> bool {
        self.pass(Self::WITHDRAWN)
    }

    fn pass(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The connection's end of a session.
pub(crate) struct SessionEnd {
    pub(crate) queue: mpsc::Receiver<Call>,
    pub(crate) ended: Arc<OnceLock<ConnectionFailure>>,
}

impl Session {
    pub(crate) fn new(endpoint: Endpoint, limits: Limits) -> (Self, SessionEnd) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let ended = Arc::new(OnceLock::new());
        let end = SessionEnd { queue: receiver, ended: Arc::clone(&ended) };
        (Self { endpoint, limits, queue: sender, ended }, end)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn exchange(
        &self,
        body: Request,
        deadline: Instant,
        stay: Stay,
    ) -> Result<Response, ExchangeError> {
        // The connection puts the correlation id and what is left of the time when it sends.
        let envelope = RequestEnvelope { correlation: u64::MAX, timeout_ms: u32::MAX, body };
        self.check(&envelope)?;
        let gate = Gate::new();
        let (reply, answer) = oneshot::channel();
        self.queue(Call { envelope, deadline, gate: gate.clone(), stay, reply }).await?;
        let answer = timeout_at(deadline + GRACE, answer).await;
        match answer {
            Ok(Ok(Ok(response))) => return Ok(response),
            Ok(Ok(Err(quiet))) => {
                let failure = ConnectionFailure::Silent(quiet);
                let error = ConnectionError { endpoint: self.endpoint.clone(), failure };
                let is_unsent = gate.withdraw();
                return Err(if is_unsent {
                    ExchangeError::NotSent(error)
                } else {
                    ExchangeError::Lost(error)
                });
            }
            Ok(Err(_)) | Err(_) => {}
        }
        let in_time = answer.is_ok() && (self.ended.get().is_some() || Instant::now() < deadline);
        Err(match (gate.withdraw(), in_time) {
            (true, true) => ExchangeError::NotSent(self.failure()),
            (true, false) => ExchangeError::NotSentInTime,
            (false, true) => ExchangeError::Lost(self.failure()),
            (false, false) => ExchangeError::TimedOut,
        })
    }

    /// Waits for room in the queue, if need be.
    async fn queue(&self, call: Call) -> Result<(), ExchangeError> {
        let deadline = call.deadline;
        let queued = match self.queue.try_send(call) {
            Err(TrySendError::Full(call)) => timeout_at(deadline, self.queue.send(call)).await,
            Err(TrySendError::Closed(call)) => Ok(Err(mpsc::error::SendError(call))),
            Ok(()) => Ok(Ok(())),
        };
        match queued {
            Err(_) => Err(ExchangeError::NotSentInTime),
            Ok(Err(_)) => Err(ExchangeError::NotSent(self.failure())),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// Why the connection ended. Its task is stopped without a reason when the client is closed.
    fn failure(&self) -> ConnectionError {
        let failure = self.ended.get().cloned().unwrap_or(ConnectionFailure::Closed);
        ConnectionError { endpoint: self.endpoint.clone(), failure }
    }

    /// Refuses here what the node would refuse after all of it had been sent.
    fn check(&self, envelope: &RequestEnvelope) -> Result<(), ExchangeError> {
        let (key, value) = match &envelope.body {
            Request::Write(write) => {
                (write.write.key().len(), write.write.value().map_or(0, bytes::Bytes::len))
            }
            Request::Get { key, .. } => (key.len(), 0),
            Request::Scan { prefix, after, .. } => {
                (prefix.len().max(after.as_ref().map_or(0, bytes::Bytes::len)), 0)
            }
            Request::Status
            | Request::Stop { .. }
            | Request::Members
            | Request::Change { .. }
            | Request::Drain { .. } => (0, 0),
        };
        self.within(Limited::Key, key, self.limits.key)?;
        self.within(Limited::Value, value, self.limits.value)?;
        if 2 * key + value + OVERHEAD > self.limits.frame as usize {
            self.within(Limited::Frame, frame::encoded_length(envelope), self.limits.frame)?;
        }
        Ok(())
    }

    fn within(&self, what: Limited, size: usize, limit: u32) -> Result<(), ExchangeError> {
        if size <= limit as usize {
            return Ok(());
        }
        Err(ExchangeError::TooLarge(TooLarge { endpoint: self.endpoint.clone(), what, size, limit }))
    }
}
