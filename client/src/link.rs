//! A place for one connection to one endpoint: opened when it is needed, opened again when it was lost.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::backoff::Backoff;
use crate::context::Context;
use crate::endpoint::Endpoint;
use crate::error::{ConnectionError, ConnectionFailure};
use crate::handshake;
use crate::session::{ExchangeError, Session};
use crate::session_io::SessionIo;

/// The pause after a first failure to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause between failures to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What has become of the connection.
#[derive(Clone, Debug)]
enum State {
    /// Nobody has needed it yet.
    Idle,
    /// It is being opened.
    Connecting,
    /// It is open.
    Connected(Arc<Session>),
    /// It could not be opened, or was lost.
    Failed(ConnectionFailure),
    /// The client is closed.
    Closed,
}

/// How good a choice a link is, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Health {
    /// It is open.
    Connected,
    /// It has never been tried.
    Untried,
    /// It is being opened; that may take long.
    Connecting,
    /// It is open, and there is doubt that the node is still there.
    Silent,
    /// The last attempt failed, or the connection was lost.
    Failed,
}

/// The health of a link, as its task last said; every request looks at that of all links.
#[derive(Clone, Debug)]
pub(crate) struct HealthCell(Arc<AtomicU8>);

impl HealthCell {
    const ALL: [Health; 5] =
        [Health::Connected, Health::Untried, Health::Connecting, Health::Silent, Health::Failed];

    pub(crate) fn new(health: Health) -> Self {
        Self(Arc::new(AtomicU8::new(health as u8)))
    }

    pub(crate) fn set(&self, health: Health) {
        self.0.store(health as u8, Ordering::Release);
    }

    fn get(&self) -> Health {
        Self::ALL[usize::from(self.0.load(Ordering::Acquire))]
    }
}

/// A place for one connection to one endpoint.
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Endpoint,
    context: Arc<Context>,
    state: watch::Sender<State>,
    health: HealthCell,
    wanted: Arc<Notify>,
    started: Once,
    /// Ends the task together with the link.
    stop: DropGuard,
}

impl Link {
    pub(crate) fn new(endpoint: Endpoint, context: Arc<Context>) -> Self {
        let stop = context.closing.child_token().drop_guard();
        let state = watch::Sender::new(State::Idle);
        let health = HealthCell::new(Health::Untried);
        Self { endpoint, context, state, health, wanted: Arc::new(Notify::new()), started: Once::new(), stop }
    }

    pub(crate) fn health(&self) -> Health {
        self.health.get()
    }

    /// Asks for a connection without waiting for it.
    pub(crate) fn want(&self) {
        self.started.call_once(|| {
            let task = Task {
                endpoint: self.endpoint.clone(),
                context: Arc::clone(&self.context),
                state: self.state.clone(),
                health: self.health.clone(),
                wanted: Arc::clone(&self.wanted),
                stop: self.stop.token().clone(),
            };
            self.context.tasks.spawn(task.run());
        });
        self.wanted.notify_one();
    }

    /// The open connection; waits for the next attempt to open it if there is none.
    pub(crate) async fn session(&self, deadline: Instant) -> Result<Arc<Session>, ExchangeError> {
        if let State::Connected(session) = &*self.state.borrow() {
            return Ok(Arc::clone(session));
        }
        let mut state = self.state.subscribe();
        let before = match &*state.borrow_and_update() {
            State::Connected(session) => return Ok(Arc::clone(session)),
            State::Failed(failure) => Some(failure.clone()),
            State::Idle | State::Connecting | State::Closed => None,
        };
        if self.context.closing.is_cancelled() {
            return Err(self.failed(ConnectionFailure::Closed));
        }
        self.want();
        let begun = Instant::now();
        timeout_at(deadline, self.outcome(&mut state)).await.unwrap_or_else(|_| {
            // Why the attempt before failed tells more than that this one had little time.
            Err(self.failed(before.unwrap_or_else(|| ConnectionFailure::HelloTimedOut(begun.elapsed()))))
        })
    }

    /// The outcome of the attempt that ends next.
    async fn outcome(&self, state: &mut watch::Receiver<State>) -> Result<Arc<Session>, ExchangeError> {
        loop {
            state.changed().await.expect("the link holds the sender");
            match &*state.borrow_and_update() {
                State::Idle | State::Connecting => {}
                State::Connected(session) => return Ok(Arc::clone(session)),
                State::Failed(failure) => return Err(self.failed(failure.clone())),
                State::Closed => return Err(self.failed(ConnectionFailure::Closed)),
            }
        }
    }

    fn failed(&self, failure: ConnectionFailure) -> ExchangeError {
        ExchangeError::NotSent(ConnectionError { endpoint: self.endpoint.clone(), failure })
    }
}

/// The task behind a link.
struct Task {
    endpoint: Endpoint,
    context: Arc<Context>,
    state: watch::Sender<State>,
    health: HealthCell,
    wanted: Arc<Notify>,
    stop: CancellationToken,
}

impl Task {
    async fn run(self) {
        self.stop.run_until_cancelled(self.connect_whenever_wanted()).await;
        self.turn(State::Closed, Health::Failed);
    }

    fn turn(&self, state: State, health: Health) {
        self.health.set(health);
        self.state.send_replace(state);
    }

    async fn connect_whenever_wanted(&self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            self.wanted.notified().await;
            self.turn(State::Connecting, Health::Connecting);
            match handshake::open(&self.endpoint, &self.context).await {
                Ok(opened) => {
                    backoff.reset();
                    debug!(endpoint = %self.endpoint, "connected");
                    let (session, end) = Session::new(self.endpoint.clone(), opened.limits);
                    self.turn(State::Connected(Arc::new(session)), Health::Connected);
                    let connection = SessionIo::new(opened, end, self.health.clone(), self.context.patience);
                    let failure = connection.run(&self.context).await;
                    debug!(endpoint = %self.endpoint, %failure, "connection lost");
                    self.turn(State::Failed(failure), Health::Failed);
                }
                Err(failure) => {
                    debug!(endpoint = %self.endpoint, %failure, "not connected");
                    self.turn(State::Failed(failure), Health::Failed);
                    sleep(backoff.pause()).await;
                }
            }
        }
    }
}
