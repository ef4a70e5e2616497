//! Coordination through ZooKeeper: who should lead, epochs, and the first start of a cluster.
//!
//! ZooKeeper gives progress, never safety: it proposes a leader, and the quorum's votes decide. So everything here may
//! be late, lost or wrong, and costs time only. This module knows nothing of the quorum protocol.
//!
//! Znodes, all below the root of the connect string (`/quorumkv` unless written):
//!
//! | Znode | Kind | Holds |
//! |---|---|---|
//! | `election/<host:port>_<sequence>` | ephemeral, sequential | the name says it all; the lowest sequence leads |
//! | `epoch` | persistent | the last epoch given out, in decimal |
//! | `members/<node id, 16 hex digits>` | persistent | the `host:port` of a node that registered for the first start |
//! | `configuration` | persistent | the configuration: created exactly once, then kept up by the leaders as a copy |
//!
//! One task owns the session ([`Coordinator::start`]); [`Coordinator`] is its handle and [`Event`]s are what it tells.
//! The files: `connect_string` parses where ZooKeeper is, `contenders` decides (pure functions), `session` wraps the
//! client with its traps, `election` keeps one znode in place, `registry` has the other znodes, `owner` is the task.

mod connect_string;
mod contenders;
mod election;
#[cfg(test)]
mod fuzz;
mod owner;
mod registry;
mod session;

use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

pub use connect_string::{
    ConnectString, ConnectStringError, DEFAULT_PORT, DEFAULT_ROOT, HostPort, HostPortError,
};
pub use registry::{AllocateEpochError, Members, RegistryError};

use owner::{Channels, Owner, PolicySince, Request};
use registry::Registry;

/// Events that can wait for their receiver. When it falls behind by more, the election waits for it.
const EVENTS: usize = 64;

/// Requests that can wait for the owner. Further callers wait, each until its own deadline.
const REQUESTS: usize = 16;

/// What the coordination needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The ZooKeeper servers, and the znode under which everything is kept.
    pub connect: ConnectString,
    /// After this time without us, ZooKeeper ends our session and another node may be elected. The servers have bounds
    /// of their own (2 and 20 of their ticks) and may grant more or less.
    pub session_timeout: Duration,
    /// The longest that one ZooKeeper operation may take.
    pub operation_timeout: Duration,
    /// How often the election is looked at although no watch has fired: it refreshes [`Event::Leader`] where neither
    /// neighbour has changed, and mends whatever watch might get lost.
    pub audit_interval: Duration,
    /// Where this node listens: its name in the election. No two nodes may share it.
    pub address: HostPort,
}

impl Config {
    /// The session timeout where nothing else is said.
    pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(6);

    /// A configuration with the default deadlines.
    pub fn new(connect: ConnectString, address: HostPort) -> Self {
        Self {
            connect,
            address,
            session_timeout: Self::DEFAULT_SESSION_TIMEOUT,
            operation_timeout: Duration::from_secs(3),
            audit_interval: Duration::from_secs(10),
        }
    }

    /// The longest pause between attempts, about a second at most. Servers that have restarted hold every session for
    /// its timeout, so several attempts must fall into that time for the session to be taken up again.
    fn retry_cap(&self) -> Duration {
        (self.session_timeout / 8).min(Duration::from_millis(500))
    }
}

/// What happened, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session has changed.
    Session(SessionState),
    /// Our znode is the lowest: this node should take over.
    Elected,
    /// The end of the last `Elected`, and only ever that: our znode is gone, or its session is. A leader that holds a
    /// quorum need not stop for it.
    Unseated,
    /// The address in the lowest znode, or `None` if there is none: a hint, as old as our last look at the election (a
    /// node looks when its own znode or the one before it changes, and every [`Config::audit_interval`]).
    Leader(Option<String>),
}

/// The session, as far as this side can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// There is none yet, or no longer; servers are being tried.
    Connecting,
    /// There is one, and a connection.
    Connected {
        /// ZooKeeper's id for the session. The same as before a `Lost` if ZooKeeper still knew it.
        session: i64,
    },
    /// The connection is gone. The session lives on for some time and may come back.
    Disconnected,
    /// The session has expired, or this side has to assume so.
    Lost,
}

/// Whether a node that has no znode in the election may create one. It says nothing about one that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrolPolicy {
    /// At once.
    Enrol,
    /// Not before the leader that this node still hears has its znode in front. Set this whenever a leader is
    /// established, so that it is in force before a session comes back.
    Wait {
        /// The `host:port` of that leader.
        incumbent: String,
        /// Enrol all the same after this time, counted from when there is a session and this policy.
        at_most: Duration,
    },
}

impl EnrolPolicy {
    /// Not at all: this node has no vote.
    pub const NEVER: Self =
        Self::Wait { incumbent: String::new(), at_most: Duration::from_secs(u64::MAX / 4) };
}

/// Why a resignation, or an impeachment, is not known to have been done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResignError {
    /// There was no connection to ZooKeeper in the time given, or no answer. It will not be done later, except that an
    /// operation already sent may still succeed; the events tell.
    #[error("ZooKeeper did not take it within {0:?}")]
    Deadline(Duration),
    /// The connection failed in the middle.
    #[error("ZooKeeper may or may not have taken it: {0}")]
    Interrupted(String),
    /// The node has left ZooKeeper altogether.
    #[error("this node has left ZooKeeper")]
    Withdrawn,
}

/// Why the session may still be there after [`Coordinator::withdraw`]. It will expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "ZooKeeper could not be told in time that this node leaves; its znode stays until the session expires"
)]
pub struct WithdrawError;

/// Handle to the coordination. Clones share it; when the last is dropped, the node withdraws.
#[derive(Clone, Debug)]
pub struct Coordinator {
    registry: Registry,
    requests: mpsc::Sender<Request>,
    policy: watch::Sender<PolicySince>,
    stop: watch::Sender<Option<Instant>>,
    departed: watch::Receiver<Option<bool>>,
}

impl Coordinator {
    /// Starts the owner task among `tasks`. It connects, and enrols as soon as there is a session.
    ///
    /// The receiver must be drained (a full queue stops the election). It ends when the owner does: after a
    /// [`withdraw`](Self::withdraw), or without one because of a bug, on which the process should not go on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: Config, tasks: &TaskTracker) -> (Self, mpsc::Receiver<Event>) {
        let (events_in, events) = mpsc::channel(EVENTS);
        let (requests, requests_out) = mpsc::channel(REQUESTS);
        let (policy, policy_out) =
            watch::channel(PolicySince { policy: EnrolPolicy::Enrol, since: Instant::now() });
        let (session_in, session) = watch::channel(None);
        let (stop, stop_out) = watch::channel(None);
        let (departed_in, departed) = watch::channel(None);
        let registry = Registry {
            root: config.connect.root().to_owned(),
            retry_cap: config.retry_cap(),
            audit_interval: config.audit_interval,
            session,
            stop: stop_out.clone(),
        };
        let channels = Channels {
            events: events_in,
            requests: requests_out,
            policy: policy_out,
            session: session_in,
            stop: stop_out,
            departed: departed_in,
        };
        tasks.spawn(Owner::new(config, channels).run());
        (Self { registry, requests, policy, stop, departed }, events)
    }

    /// Sets the policy on enrolment, [`EnrolPolicy::Enrol`] at first. Setting the present one again changes nothing.
    pub fn set_enrolment(&self, policy: EnrolPolicy) {
        self.policy.send_if_modified(|present| {
            let differs = present.policy != policy;
            if differs {
                *present = PolicySince { policy, since: Instant::now() };
            }
            differs
        });
    }

    /// Gives up our place: deletes our znode, and enrols again at the tail (subject to the policy on enrolment). The
    /// successor sees it at once. If we had no znode, there is nothing to give up.
    pub async fn resign(&self, within: Duration) -> Result<(), ResignError> {
        self.ask(Request::Resign, within).await
    }

    /// Deletes the lowest znode if it is that of the node at `leader`, and ours is the next. Says whether it did.
    ///
    /// # Errors
    /// As for [`resign`](Self::resign).
    pub async fn impeach(&self, leader: String, within: Duration) -> Result<bool, ResignError> {
        self.ask(|reply| Request::Impeach { leader, reply }, within).await
    }

    /// Gives up the session, and our place with it, and begins another: at any server, since each has its own idea of what there is.
    pub fn begin_anew(&self) {
        // With so many requests waiting, ZooKeeper does not answer: then there is soon no session to give up.
        let _ = self.requests.try_send(Request::BeginAnew);
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ResignError>>) -> Request,
        within: Duration,
    ) -> Result<T, ResignError> {
        let asked = async {
            let (reply, outcome) = oneshot::channel();
            self.requests.send(request(reply)).await.map_err(|_| ResignError::Withdrawn)?;
            outcome.await.unwrap_or(Err(ResignError::Withdrawn))
        };
        timeout(within, asked).await.unwrap_or(Err(ResignError::Deadline(within)))
    }

    /// Leaves for good: closes the session, which deletes our znode, and ends the owner task. Later calls return the
    /// outcome of the first. `within` counts as a day at most.
    pub async fn withdraw(&self, within: Duration) -> Result<(), WithdrawError> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let deadline = Instant::now() + within.min(DAY);
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(deadline);
            first
        });
        let mut departed = self.departed.clone();
        match timeout_at(deadline, departed.wait_for(Option::is_some)).await {
            Ok(Ok(departed)) if *departed == Some(true) => Ok(()),
            _ => Err(WithdrawError),
        }
    }

    /// Allocates an epoch that is greater than `above` and than every one allocated before, and is given to nobody
    /// else. (Unless the znode is wiped or set back; hence `above`.)
    pub async fn allocate_epoch(&self, above: u64, within: Duration) -> Result<u64, AllocateEpochError> {
        self.registry.allocate_epoch(above, within).await
    }

    /// Registers a node by its id, or changes the address with which it is registered.
    pub async fn register(&self, id: u64, address: &HostPort, within: Duration) -> Result<(), RegistryError> {
        self.registry.register(id, address, within).await
    }

    /// Takes a node from those that have registered.
    pub async fn deregister(&self, id: u64, within: Duration) -> Result<(), RegistryError> {
        self.registry.deregister(id, within).await
    }

    /// The nodes that have registered.
    pub async fn members(&self, within: Duration) -> Result<Members, RegistryError> {
        self.registry.members(within).await
    }

    /// Waits until at least `count` nodes have registered, and returns them. Reports progress to the log.
    pub async fn await_members(&self, count: usize, within: Duration) -> Result<Members, RegistryError> {
        self.registry.await_members(count, within).await
    }

    /// Stores the first configuration unless there is one; returns the one that is stored. ZooKeeper refuses more than
    /// about a megabyte.
    pub async fn create_configuration_once(
        &self,
        configuration: &[u8],
        within: Duration,
    ) -> Result<Vec<u8>, RegistryError> {
        self.registry.create_configuration_once(configuration, within).await
    }

    /// Stores a configuration in the place of one that `is_older`, or of none. False if the one that is there is not.
    pub async fn replace_configuration(
        &self,
        configuration: &[u8],
        is_older: &(dyn Fn(&[u8]) -> bool + Send + Sync),
        within: Duration,
    ) -> Result<bool, RegistryError> {
        self.registry.replace_configuration(configuration, is_older, within).await
    }

    /// The configuration, if one has been stored.
    pub async fn configuration(&self, within: Duration) -> Result<Option<Vec<u8>>, RegistryError> {
        self.registry.configuration(within).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers spawn these, so their futures must be `Send` whatever lifetimes they borrow with.
    #[test]
    fn every_call_can_be_spawned() {
        fn spawnable<T: Send + 'static>(_: T) {}
        fn calls(handle: Coordinator, address: HostPort) {
            let within = Duration::ZERO;
            spawnable(async move {
                let _ = handle.allocate_epoch(0, within).await;
                let _ = handle.register(0, &address, within).await;
                let _ = handle.deregister(0, within).await;
                let _ = handle.members(within).await;
                let _ = handle.await_members(0, within).await;
                let _ = handle.create_configuration_once(&[], within).await;
                let _ = handle.configuration(within).await;
                let _ = handle.replace_configuration(&[], &|_| false, within).await;
                let _ = handle.resign(within).await;
                let _ = handle.impeach(String::new(), within).await;
                handle.begin_anew();
                let _ = handle.withdraw(within).await;
            });
        }
        let _ = calls;
    }
}
