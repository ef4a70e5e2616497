//! A node from its start to its end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorumkv_replica::{Recovered, Replica, Settings};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::election::Election;
use super::form::{self, FormError};
use super::node::{Node, Parts};
use super::owner::{Owner, Sources};
use super::pending::Pending;
use crate::admin;
use crate::config::Config;
use crate::coordination::{self, Coordinator};
use crate::data_dir::{DataDir, DataDirError, Membership};
use crate::fatal::die;
use crate::metrics::Metrics;
use crate::net::{Clients, Forwarder, Server, run_forwarder, run_link};
use crate::state::{OpenStateError, Options, State};
use crate::storage::{Applier, Journal, JournalOptions, OpenJournalError, SnapshotServer, StateHandle};

/// Events that may wait for the owner.
const EVENTS: usize = 16_384;

/// Connections and background work get this long to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a node did not start, or could not go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {source} (is another kvd running there?)")]
    Listen {
        /// The address and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The state cannot be opened.
    #[error("the state cannot be opened: {0}")]
    State(#[from] OpenStateError),
    /// The log cannot be opened.
    #[error(
        "the log cannot be opened: {0}. A replica with a damaged log must not vote: keep the directory aside, and restore \
         this node from a copy of it that is whole"
    )]
    Journal(String),
    /// A thread or signal handler cannot be had.
    #[error("the system refuses a thread or a signal handler: {0}")]
    System(#[from] io::Error),
    /// This node has no place in the cluster.
    #[error(transparent)]
    Form(#[from] FormError),
}

impl From<OpenJournalError> for RunError {
    fn from(error: OpenJournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// A node that is being started: what has to be ended in order.
struct Start {
    node: Arc<Node>,
    config: Config,
    data_dir: DataDir,
    done: mpsc::UnboundedSender<super::Done>,
    closing: CancellationToken,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: Config) -> Result<(), RunError> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let listener = listen(&config, config.port).await?;
    let admin_listener = match config.admin_port {
        Some(port) => Some(listen(&config, port).await?),
        None => None,
    };
    let state = State::open(&data_dir.state(), Options::with_cache(config.cache_bytes))?;
    let (events_in, events) = mpsc::channel(EVENTS);
    #[allow(clippy::disallowed_methods, reason = "it holds no more than the owner has asked for; see Done")]
    let (done_in, done) = mpsc::unbounded_channel();
    let node = Arc::new(Node::new(Parts {
        id: data_dir.identity().node,
        config: config.clone(),
        state,
        events: events_in,
        metrics: Arc::new(Metrics::new()),
        tasks: TaskTracker::new(),
        stopping: CancellationToken::new(),
    }));
    let (journal, recovered) = Journal::open(
        &data_dir.log(),
        JournalOptions {
            must_exist: data_dir.identity().membership.is_some(),
            segment_bytes: config.log_segment_bytes,
            retain_bytes: config.log_retain_bytes,
        },
        node.state().applied(),
        Arc::clone(&node.routes),
        done_in.clone(),
        Arc::clone(&node.metrics),
    )?;
    tracing::info!(
        node = %node.id, address = node.address, data_dir = %config.data_dir.display(), version = env!("CARGO_PKG_VERSION"),
        last = %recovered.last, applied = %recovered.applied, "starts"
    );
    let start = Start { node, config, data_dir, done: done_in, closing: CancellationToken::new() };
    start.stop_on_signals()?;
    start.serve(listener, admin_listener);
    start.run(journal, &recovered, events, done).await
}

async fn listen(config: &Config, port: u16) -> Result<TcpListener, RunError> {
    let address = std::net::SocketAddr::new(config.host, port);
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address: address.to_string(), source })
}

impl Start {
    /// SIGTERM and SIGINT stop the node in good order; a second one ends it at once.
    fn stop_on_signals(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stopping, closing) = (self.node.stopping.clone(), self.closing.clone());
        self.node.tasks.spawn(async move {
            let mut next = async || tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
            let Some(name) = closing.run_until_cancelled(next()).await else { return };
            tracing::info!("got {name}");
            stopping.cancel();
            if let Some(name) = closing.run_until_cancelled(next()).await {
                die(&format!("got {name} again while stopping"));
            }
        });
        Ok(())
    }

    /// Takes connections, and answers for the node's health, from the first moment on.
    fn serve(&self, listener: TcpListener, admin_listener: Option<TcpListener>) {
        let node = &self.node;
        let (forwarder, forwards) = Forwarder::new();
        let clients = Clients::new(Arc::clone(node), forwarder);
        let server =
            Server::new(clients, self.config.max_connections, node.tasks.clone(), self.closing.clone());
        node.tasks.spawn(server.run(listener));
        self.until_closing(run_forwarder(Arc::clone(node), forwards));
        if let Some(listener) = admin_listener {
            node.tasks.spawn(admin::serve(listener, Arc::clone(node), self.closing.clone()));
        }
    }

    fn until_closing(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.node.tasks.spawn(async move {
            closing.run_until_cancelled_owned(task).await;
        });
    }

    async fn run(
        mut self,
        journal: Journal,
        recovered: &Recovered,
        events: mpsc::Receiver<super::Event>,
        done: mpsc::UnboundedReceiver<super::Done>,
    ) -> Result<(), RunError> {
        let coordination = coordination::Config {
            session_timeout: self.config.session_timeout,
            ..coordination::Config::new(self.config.zookeeper.clone(), self.config.advertise.clone())
        };
        let (coordinator, mut election) = Coordinator::start(coordination, &self.node.tasks);
        let Some(membership) = self.form(&coordinator, &mut election).await? else {
            Election::withdraw(coordinator).await;
            return self.end(journal, None).await;
        };
        tracing::info!(cluster = %membership.cluster, members = membership.configuration.voters.len(), "belongs to");
        if let Err(error) = self.node.state().begin_with(&membership.configuration) {
            die(&format!("the first members cannot be stored: {error}"));
        }
        let applier = Applier::start(self.node.state().clone(), self.done.clone())?;
        let owner = self.owner(journal, recovered, applier, coordinator.clone());
        self.node.set_membership(membership.clone());
        for member in
            membership.configuration.voters.iter().filter(|member| member.node != self.node.id).cloned()
        {
            let (node, cluster) = (&self.node, membership.cluster);
            self.until_closing(run_link(
                node.id,
                cluster,
                member,
                Arc::clone(&node.routes),
                node.events.clone(),
            ));
        }
        let stopping = self.node.stopping.clone();
        self.until_closing(async move {
            if let Err(error) = form::check(&membership, &coordinator).await
                && !stopping.is_cancelled()
            {
                die(&error.to_string());
            }
        });
        let (journal, applier) = owner.run(Sources { events, done, election }).await;
        self.end(journal, Some(applier)).await
    }

    /// Finds this node's cluster; `None` if it was told to stop before that.
    async fn form(
        &mut self,
        coordinator: &Coordinator,
        election: &mut mpsc::Receiver<coordination::Event>,
    ) -> Result<Option<Membership>, RunError> {
        let (node, stopping) = (Arc::clone(&self.node), self.node.stopping.clone());
        let forming = form::form(&node, &self.config, coordinator, &mut self.data_dir);
        tokio::pin!(forming);
        // A node without a cluster has nothing to contend for.
        coordinator.set_enrolment(coordination::EnrolPolicy::Wait {
            incumbent: String::new(),
            at_most: Duration::MAX / 4,
        });
        loop {
            tokio::select! {
                formed = &mut forming => return Ok(Some(formed?)),
                () = stopping.cancelled() => return Ok(None),
                event = election.recv() => match event {
                    Some(coordination::Event::Session(session)) => node.set_zookeeper(Election::session_name(session)),
                    Some(_) => {}
                    None => die("the task that speaks with ZooKeeper has ended"),
                },
            }
        }
    }

    fn owner(
        &self,
        journal: Journal,
        recovered: &Recovered,
        applier: Applier,
        coordinator: Coordinator,
    ) -> Owner {
        let node = &self.node;
        let settings = Settings {
            heartbeat: self.config.heartbeat,
            failover: self.config.failover_timeout,
            ..Settings::default()
        };
        let state = StateHandle(node.state().clone());
        let session_timeout = self.config.session_timeout;
        Owner {
            node: Arc::clone(node),
            replica: Replica::new(node.id, recovered, state, settings),
            journal,
            applier,
            snapshots: SnapshotServer::new(node.state().clone()),
            pending: Pending::new(Arc::clone(node)),
            election: Election::new(Arc::clone(node), coordinator, self.done.clone(), session_timeout),
            done: self.done.clone(),
            origin: Instant::now(),
            directory: self.config.data_dir.clone(),
            min_free_bytes: self.config.min_free_bytes,
            persisting: false,
            housekept: Instant::now(),
        }
    }

    /// Ends what is left, in order: what was acknowledged is on disk already, but a restart is quicker this way.
    async fn end(self, journal: Journal, applier: Option<Applier>) -> Result<(), RunError> {
        let closed = tokio::task::spawn_blocking(move || {
            journal.close();
            if let Some(applier) = applier {
                applier.close();
            }
        });
        if closed.await.is_err() {
            die("the storage could not be closed");
        }
        self.closing.cancel();
        self.node.tasks.close();
        if timeout(FAREWELL, self.node.tasks.wait()).await.is_err() {
            tracing::debug!("some connections did not end in time");
        }
        tracing::info!("stopped");
        Ok(())
    }
}
