//! The task that keeps a session for ever, and through it a place in the election.

use std::convert::Infallible;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use zookeeper_client::{SessionInfo, SessionState as ClientState, StateWatcher};

use super::election::{Election, Watches};
use super::session::{ConnectError, OperationError, Session};
use super::{Config, EnrolPolicy, Event, ResignError, SessionState};

/// Pauses between attempts that fail: doubling up to a cap, with jitter, for ever. (The client's own reconnecting
/// doubles without a cap, but only for as long as the session may live.)
pub(super) fn backoff(cap: Duration) -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50).min(cap))
        .with_max_delay(cap)
        .with_jitter()
        .without_max_times()
        .build()
}

/// How often a failure that goes on is reported again.
const REMINDER: Duration = Duration::from_secs(30);

/// Steps that fail one after the other, on a connection that is up, before the session is given up.
const MAX_FAILED_STEPS: usize = 10;

/// What the owner can be asked for. Skipped if the caller has stopped waiting for the answer.
pub(super) enum Request {
    /// Delete our znode and enrol again at the tail.
    Resign(oneshot::Sender<Result<(), ResignError>>),
    /// Give up the session, and begin another.
    BeginAnew,
    /// Delete the lowest znode, if it is of this address and ours is the next.
    Impeach { leader: String, reply: oneshot::Sender<Result<bool, ResignError>> },
}

/// The policy on enrolment, and when it was set.
#[derive(Clone, Debug)]
pub(super) struct PolicySince {
    pub(super) policy: EnrolPolicy,
    pub(super) since: Instant,
}

/// The other ends of the handle's channels.
pub(super) struct Channels {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) policy: watch::Receiver<PolicySince>,
    /// The session, for the handle's own operations.
    pub(super) session: watch::Sender<Option<Session>>,
    /// By when to be gone.
    pub(super) stop: watch::Receiver<Option<Instant>>,
    /// Whether the session was closed properly, once this task has ended.
    pub(super) departed: watch::Sender<Option<bool>>,
}

pub(super) struct Owner {
    config: Config,
    channels: Channels,
    election: Election,
    /// Our znode that the last `Elected` was about; `None` since the last `Unseated`.
    elected: Option<String>,
    /// What the last `Leader` said; `None` before the first.
    leader: Option<Option<String>>,
    /// What the last `Session` said.
    said: Option<SessionState>,
    /// The session that was lost without ZooKeeper's word for it: it may still be there, with our znode.
    earlier: Option<SessionInfo>,
}

/// How a session ended.
enum End {
    /// By ZooKeeper's word or the client's clock: it is worth asking for it again.
    Over,
    /// We gave it up.
    Abandoned,
}

/// What to do after a wait.
enum Wake {
    Step,
    State(ClientState),
    Asked(Request),
}

impl Owner {
    pub(super) fn new(config: Config, channels: Channels) -> Self {
        let folder = format!("{}/election", config.connect.root());
        let election = Election::new(folder, config.address.to_string(), config.audit_interval);
        Self { config, channels, election, elected: None, leader: None, said: None, earlier: None }
    }

    /// Runs until told to stop, or until no handle is left that could tell.
    pub(super) async fn run(mut self) {
        let mut stop = self.channels.stop.clone();
        let told = tokio::select! {
            biased;
            told = stop.wait_for(Option::is_some) => told.ok().and_then(|deadline| *deadline),
            // Wherever this is cut short: the end of the session undoes what was half done.
            never = self.serve_for_ever() => match never {},
        };
        let deadline = told.unwrap_or_else(|| Instant::now() + self.config.operation_timeout);
        let session = self.channels.session.send_replace(None);
        let closed = match session {
            Some(session) => session.close(deadline).await,
            None => self.earlier.is_none(),
        };
        if closed {
            info!("left ZooKeeper");
        } else {
            warn!("left without a word to ZooKeeper: this node's session and znode stay until they expire");
        }
        self.channels.departed.send_replace(Some(closed));
    }

    async fn serve_for_ever(&mut self) -> Infallible {
        loop {
            self.say(SessionState::Connecting).await;
            let session = self.connect().await;
            info!(
                session = format_args!("{:#x}", session.id()),
                timeout = ?session.timeout(),
                "connected to ZooKeeper"
            );
            self.channels.session.send_replace(Some(session.clone()));
            let end = self.serve(&session).await;
            self.channels.session.send_replace(None);
            warn!(session = format_args!("{:#x}", session.id()), "ZooKeeper session lost");
            self.earlier = match end {
                End::Over => Some(session.info()),
                End::Abandoned => None,
            };
            self.election.forget();
            self.say(SessionState::Lost).await;
            self.announce().await;
        }
    }

    /// Tries until there is a session: the earlier one if ZooKeeper still knows it, or else a new one.
    async fn connect(&mut self) -> Session {
        let mut delays = backoff(self.config.retry_cap());
        let mut reminder = Reminder::default();
        loop {
            match Session::connect(&self.config, self.earlier.clone()).await {
                Ok(session) => {
                    self.earlier = None;
                    return session;
                }
                Err(ConnectError::Expired) => {
                    info!("the earlier ZooKeeper session has expired; asking for a new one");
                    self.earlier = None;
                    continue;
                }
                Err(error) if reminder.is_due() => warn!(
                    servers = %self.config.connect, %error,
                    "cannot connect to ZooKeeper, will keep trying; check that the servers run, that they have a quorum, \
                     and that these addresses can be reached from here"
                ),
                Err(error) => debug!(%error, "cannot connect to ZooKeeper"),
            }
            sleep(delays.next().unwrap_or(REMINDER)).await;
        }
    }

    /// Stays in the election for as long as the session lives.
    async fn serve(&mut self, session: &Session) -> End {
        let mut states = session.states();
        let mut wake = Wake::State(session.state());
        let mut delays = backoff(self.config.retry_cap());
        let mut failed = 0;
        let mut reminder = Reminder::default();
        loop {
            let state = match wake {
                Wake::Step => None,
                Wake::State(state) => Some(state),
                Wake::Asked(Request::BeginAnew) => return End::Abandoned,
                Wake::Asked(request) => {
                    self.oblige(session, request).await;
                    None
                }
            };
            if let Some(state) = state
                && let Some(end) = self.settle(state, session, &mut states).await
            {
                return end;
            }
            let policy = self.channels.policy.borrow_and_update().clone();
            let held_since = policy.since.max(session.since);
            let outcome = tokio::select! {
                biased;
                state = states.changed() => {
                    wake = Wake::State(state);
                    continue;
                }
                outcome = self.election.step(session, &policy.policy, held_since) => outcome,
            };
            self.announce().await;
            wake = match outcome {
                Ok(watches) => {
                    failed = 0;
                    delays = backoff(self.config.retry_cap());
                    self.wait(watches, &mut states).await
                }
                Err(OperationError::SessionOver) => return End::Over,
                Err(error) => {
                    failed += 1;
                    if failed == MAX_FAILED_STEPS {
                        warn!(%error, "giving up a ZooKeeper session on which nothing succeeds");
                        return End::Abandoned;
                    } else if reminder.is_due() {
                        warn!(%error, "cannot take part in the election, will keep trying");
                    }
                    let delay = delays.next().unwrap_or(REMINDER);
                    timeout(delay, states.changed()).await.map_or(Wake::Step, Wake::State)
                }
            };
        }
    }

    /// Reports the connection's state, and waits until it is up (`None`) or the session has ended.
    async fn settle(
        &mut self,
        mut state: ClientState,
        session: &Session,
        states: &mut StateWatcher,
    ) -> Option<End> {
        loop {
            match state {
                ClientState::SyncConnected | ClientState::ConnectedReadOnly => {
                    self.say(SessionState::Connected { session: session.id() }).await;
                    return None;
                }
                ClientState::AuthFailed | ClientState::Expired | ClientState::Closed => {
                    return Some(End::Over);
                }
                ClientState::Disconnected => {
                    info!("connection to ZooKeeper lost; reconnecting");
                    self.say(SessionState::Disconnected).await;
                    // The client gives up after 7/5 of the timeout. That is its promise; this is our bound.
                    match timeout(session.timeout() * 3, states.changed()).await {
                        Ok(changed) => state = changed,
                        Err(_) => return Some(End::Abandoned),
                    }
                }
            }
        }
    }

    async fn wait(&mut self, watches: Watches, states: &mut StateWatcher) -> Wake {
        tokio::select! {
            biased;
            state = states.changed() => Wake::State(state),
            Some(request) = self.channels.requests.recv() => Wake::Asked(request),
            // No handle, no new policy: this branch is then disabled, and the owner is about to be stopped.
            Ok(()) = self.channels.policy.changed() => Wake::Step,
            () = watches.fired() => Wake::Step,
        }
    }

    /// Does what was asked for. A caller that has gone meanwhile learns the outcome from the events.
    async fn oblige(&mut self, session: &Session, request: Request) {
        let interrupted = |error: OperationError| ResignError::Interrupted(error.to_string());
        match request {
            Request::Resign(caller) if !caller.is_closed() => {
                let left = self.election.leave(session).await;
                self.announce().await;
                let _ = caller.send(left.map_err(interrupted));
            }
            Request::Impeach { leader, reply } if !reply.is_closed() => {
                let _ = reply.send(self.election.impeach(session, &leader).await.map_err(interrupted));
            }
            Request::Resign(_) | Request::Impeach { .. } | Request::BeginAnew => {}
        }
    }

    /// Sends the events that lead from what was last said to what is now known.
    async fn announce(&mut self) {
        let leads = self.election.own.clone().filter(|_| self.election.leads);
        if self.elected != leads {
            if let Some(znode) = self.elected.take() {
                info!(znode, "no longer first in the election");
                self.emit(Event::Unseated).await;
            }
            if let Some(znode) = leads {
                info!(znode, "first in the election");
                self.elected = Some(znode);
                self.emit(Event::Elected).await;
            }
        }
        if self.leader.as_ref() != Some(&self.election.leader) {
            self.leader = Some(self.election.leader.clone());
            self.emit(Event::Leader(self.election.leader.clone())).await;
        }
    }

    async fn say(&mut self, state: SessionState) {
        if self.said != Some(state) {
            self.said = Some(state);
            self.emit(Event::Session(state)).await;
        }
    }

    async fn emit(&self, event: Event) {
        debug!(?event, "coordination");
        // Nobody receives any more: the node is on its way out and will stop us.
        let _ = self.channels.events.send(event).await;
    }
}

/// Lets a failure that goes on be reported at first, and then now and again.
#[derive(Debug, Default)]
struct Reminder(Option<Instant>);

impl Reminder {
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= REMINDER);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}
