//! One ZooKeeper session: the few operations we need, each with a deadline and with errors that say what is known.
//!
//! What this file knows about zookeeper-client 0.11.2, so that the rest need not:
//! - An operation issued while the connection is down is queued without a bound, and runs later even if nobody waits
//!   for it any more. So every operation first waits for the connection, and its deadline covers that wait.
//! - A connection that breaks under an operation surfaces as `ConnectionLoss`, as `Custom` (an error of the socket) or
//!   as `UnexpectedError` (the reply's sender was dropped on reconnecting). All mean: it may or may not have happened.
//! - Only one-shot watches survive a reconnect; persistent ones are not set again.
//! - The client declares a session expired by its own clock, after 7/5 of the session's timeout without a server. The
//!   servers may know better (they give every session its full timeout again when they restart), so the session can be
//!   taken up again by its id and password. That is how a ZooKeeper outage of any length leaves the znodes in place.
//! - While a session may live, the client reconnects by itself, with delays that double without a cap. They end with
//!   the session, so the longest is about half of its timeout; a connection that comes back in the last quarter of the
//!   timeout can be found too late, and the place in the election is lost as if it had not come back.
//! - The session is closed when the last clone of the client is dropped, in the background.

use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};
use zookeeper_client::{
    Acls, Client, CreateMode, CreateOptions, Error as ZkError, OneshotWatcher, SessionInfo, SessionState,
    StateWatcher,
};

use super::Config;

const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const CONTENDER: CreateOptions<'static> = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());

/// A session and the connection under it. Clones share both; the session is closed when the last one is dropped.
#[derive(Clone, Debug)]
pub(super) struct Session {
    client: Client,
    operation_timeout: Duration,
    /// When this client got the session.
    pub(super) since: Instant,
}

/// Why an operation has no result. Only `Refused` says that it did not happen.
#[derive(Debug, Error)]
pub(super) enum OperationError {
    /// The session is lost or closed; nothing can be done with it any more.
    #[error("the session is over")]
    SessionOver,
    /// It may or may not have happened, or may still.
    #[error("{operation}: no answer within {within:?}")]
    TimedOut { operation: &'static str, within: Duration },
    /// It may or may not have happened.
    #[error("{operation}: connection lost ({source})")]
    Interrupted { operation: &'static str, source: ZkError },
    /// ZooKeeper said no.
    #[error("{operation}: refused ({source})")]
    Refused { operation: &'static str, source: ZkError },
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    /// ZooKeeper no longer knows the session that was to be taken up again.
    #[error("the earlier session has expired")]
    Expired,
    /// None of the servers accepted a session in time.
    #[error("no server gave a session within {0:?}")]
    TimedOut(Duration),
    /// None of the servers could be reached, or they refused.
    #[error(transparent)]
    Failed(ZkError),
}

impl Session {
    /// Tries every server once, for a new session or for the earlier one.
    pub(super) async fn connect(config: &Config, earlier: Option<SessionInfo>) -> Result<Self, ConnectError> {
        let mut connector =
            Client::connector().with_session_timeout(config.session_timeout).with_fail_eagerly();
        let take_up = earlier.is_some();
        if let Some(earlier) = earlier {
            connector = connector.with_session(earlier);
        }
        let within = config.session_timeout * 2;
        let servers = config.connect.servers_text();
        match timeout(within, connector.connect(&servers)).await {
            Err(_) => Err(ConnectError::TimedOut(within)),
            Ok(Err(ZkError::SessionExpired)) if take_up => Err(ConnectError::Expired),
            Ok(Err(error)) => Err(ConnectError::Failed(error)),
            Ok(Ok(client)) => {
                Ok(Self { client, operation_timeout: config.operation_timeout, since: Instant::now() })
            }
        }
    }

    pub(super) fn id(&self) -> i64 {
        self.client.session_id().0
    }

    /// The session's timeout as the server granted it.
    pub(super) fn timeout(&self) -> Duration {
        self.client.session_timeout()
    }

    /// What is needed to take this session up again.
    pub(super) fn info(&self) -> SessionInfo {
        self.client.session().clone()
    }

    /// Changes of the connection's state from now on; ask [`Session::state`] after this, not before.
    pub(super) fn states(&self) -> StateWatcher {
        self.client.state_watcher()
    }

    pub(super) fn state(&self) -> SessionState {
        self.client.state()
    }

    /// Closes the session, which deletes its znodes at once. True when it is over; false when that is not known by the
    /// deadline, or when there is no connection, so nobody to tell, and it is left to expire.
    ///
    /// Other clones must have been dropped. An operation that was under way can cost the connection: its answer comes
    /// after the close, that is never. The client then connects again and is told that the session has expired, which
    /// is as good.
    pub(super) async fn close(self, deadline: Instant) -> bool {
        let mut states = self.states();
        let mut state = self.state();
        drop(self);
        if state == SessionState::Disconnected {
            return false;
        }
        let ended = async {
            while !state.is_terminated() {
                state = states.changed().await;
            }
        };
        timeout_at(deadline, ended).await.is_ok()
    }

    /// Runs one operation when there is a connection; the deadline covers both.
    async fn run<T>(
        &self,
        operation: &'static str,
        request: impl AsyncFnOnce(&Client) -> Result<T, ZkError>,
    ) -> Result<T, OperationError> {
        let within = self.operation_timeout;
        let attempt = async {
            self.connected().await?;
            request(&self.client).await.map_err(|error| classify(operation, error))
        };
        timeout(within, attempt).await.unwrap_or(Err(OperationError::TimedOut { operation, within }))
    }

    async fn connected(&self) -> Result<(), OperationError> {
        let mut states = self.states();
        let mut state = self.state();
        loop {
            match state {
                SessionState::SyncConnected | SessionState::ConnectedReadOnly => return Ok(()),
                SessionState::Disconnected => state = states.changed().await,
                SessionState::AuthFailed | SessionState::Expired | SessionState::Closed => {
                    return Err(OperationError::SessionOver);
                }
            }
        }
    }

    /// Makes what is read after this at least as new as everything written before it.
    pub(super) async fn sync(&self, path: &str) -> Result<(), OperationError> {
        self.run("sync", async |client| client.sync(path).await).await
    }

    /// Creates a persistent znode and those above it. False if it is there already.
    pub(super) async fn create(&self, path: &str, data: &[u8]) -> Result<bool, OperationError> {
        let created = self
            .run("create znode", async |client| match client.create(path, data, &PERSISTENT).await {
                Err(ZkError::NoNode) => {
                    let (parent, _) = path.rsplit_once('/').unwrap_or_default();
                    client.mkdir(parent, &PERSISTENT).await?;
                    client.create(path, data, &PERSISTENT).await
                }
                outcome => outcome,
            })
            .await;
        match created {
            Ok(_) => Ok(true),
            Err(OperationError::Refused { source: ZkError::NodeExists, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates an ephemeral znode whose name is `path` and a sequence number.
    ///
    /// Its name is not returned: the caller lists and looks for the owner, which is right after a lost reply as well.
    pub(super) async fn create_contender(&self, path: &str) -> Result<(), OperationError> {
        self.run("create contender", async |client| client.create(path, &[], &CONTENDER).await)
            .await
            .map(|_| ())
    }

    /// Data and version of a znode; `None` if it is not there.
    pub(super) async fn read(&self, path: &str) -> Result<Option<(Vec<u8>, i32)>, OperationError> {
        let read = self.run("read znode", async |client| client.get_data(path).await).await;
        Ok(absent_as_none(read)?.map(|(data, stat)| (data, stat.version)))
    }

    /// Replaces data of this very version. False if the znode has another version or is not there.
    pub(super) async fn replace(
        &self,
        path: &str,
        data: &[u8],
        version: i32,
    ) -> Result<bool, OperationError> {
        match self.run("write znode", async |client| client.set_data(path, data, Some(version)).await).await {
            Ok(_) => Ok(true),
            Err(OperationError::Refused { source: ZkError::BadVersion | ZkError::NoNode, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a znode, or finds it gone.
    pub(super) async fn delete(&self, path: &str) -> Result<(), OperationError> {
        let deleted = self.run("delete znode", async |client| client.delete(path, None).await).await;
        absent_as_none(deleted).map(|_| ())
    }

    /// The id of the session whose end deletes this znode, 0 for a persistent one; `None` if it is not there.
    pub(super) async fn owner(&self, path: &str) -> Result<Option<i64>, OperationError> {
        let stat = self.run("check znode", async |client| client.check_stat(path).await).await?;
        Ok(stat.map(|stat| stat.ephemeral_owner))
    }

    /// Names of the children; `None` if the znode is not there.
    pub(super) async fn children(&self, path: &str) -> Result<Option<Vec<String>>, OperationError> {
        absent_as_none(self.run("list children", async |client| client.list_children(path).await).await)
    }

    /// Names of the children, and a watch for the next change among them; creates the folder if it is not there.
    pub(super) async fn watch_children(
        &self,
        path: &str,
    ) -> Result<(Vec<String>, OneshotWatcher), OperationError> {
        loop {
            let listed =
                self.run("list children", async |client| client.list_and_watch_children(path).await).await;
            match absent_as_none(listed)? {
                Some(listed) => return Ok(listed),
                None => self.create(path, &[]).await?,
            };
        }
    }

    /// A watch for the end of a znode; `None` if it is not there.
    pub(super) async fn watch(&self, path: &str) -> Result<Option<OneshotWatcher>, OperationError> {
        let (stat, watcher) =
            self.run("watch znode", async |client| client.check_and_watch_stat(path).await).await?;
        Ok(stat.map(|_| watcher))
    }
}

fn absent_as_none<T>(outcome: Result<T, OperationError>) -> Result<Option<T>, OperationError> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(OperationError::Refused { source: ZkError::NoNode, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sorts the client's errors by what they say about the operation. The enum is the client's and may grow, so whatever
/// is not known to be an answer counts as "may have happened".
fn classify(operation: &'static str, source: ZkError) -> OperationError {
    match source {
        ZkError::SessionExpired | ZkError::ClientClosed | ZkError::AuthFailed => OperationError::SessionOver,
        ZkError::NoNode
        | ZkError::NodeExists
        | ZkError::BadVersion
        | ZkError::NotEmpty
        | ZkError::NoAuth
        | ZkError::InvalidAcl
        | ZkError::NoChildrenForEphemerals
        | ZkError::NotReadOnly
        | ZkError::QuotaExceeded
        | ZkError::Throttled
        | ZkError::BadArguments(_)
        | ZkError::Unimplemented => OperationError::Refused { operation, source },
        _ => OperationError::Interrupted { operation, source },
    }
}
