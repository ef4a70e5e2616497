//! A node from its start to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorumkv_protocol::frame::CLIENT_FRAME_LIMIT;
use quorumkv_protocol::hello::{Hello, Role};
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{ClusterId, NodeId};
use quorumkv_replica::{Recovered, Replica, Settings};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::election::Election;
use super::form::{self, FormError};
use super::mirror::Mirror;
use super::node::{Node, Parts};
use super::open::{Opened, open};
use super::owner::{Ended, Owner, Sources};
use super::pending::Pending;
use super::rejoin;
use super::takeover::Stopwatch;
use super::upkeep::Upkeep;
use crate::admin;
use crate::config::{Config, Storage};
use crate::coordination::{self, Coordinator};
use crate::data_dir::{DataDir, DataDirError, Membership};
use crate::fatal::die;
use crate::metrics::Metrics;
use crate::net::{Clients, Forwarder, Links, Routes, Server, frames, run_forwarder};
use crate::state::{OpenStateError, Scrub};
use crate::storage::{Applier, Journal, SnapshotServer, StateHandle};

/// Events that may wait for the owner.
const EVENTS: usize = 16_384;

/// Connections that the system holds while this program has no time to take them. The usual 128 are soon full when all clients come at
/// once, after a restart, and whoever finds it so is kept waiting for a second or more.
const BACKLOG: u32 = 4096;

/// A node that starts looks this long whether its directory is a copy of a running node's.
const CURIOSITY: Duration = Duration::from_secs(1);

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
    #[error("the log cannot be opened: {0}")]
    Journal(String),
    /// The log is damaged, and no other node could restore this one.
    #[error(
        "the log cannot be opened: {0}. This node may be the only one of its cluster: keep the directory aside, and restore it \
         from a copy that is whole"
    )]
    OnlyCopy(String),
    /// A thread or signal handler cannot be had.
    #[error("the system refuses a thread or a signal handler: {0}")]
    System(#[from] io::Error),
    /// This node has no place in the cluster.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The address has changed.
    #[error(
        "this node is known to its cluster as {known}, and now says that it is {now}: start it with --advertise {known}, or \
         with an empty --data-dir to add it as another node"
    )]
    Moved {
        /// As the configuration has it.
        known: String,
        /// As the flags have it.
        now: String,
    },
    /// Another process has the same identity.
    #[error(
        "node {node} runs already at {address}, so this data directory is a copy of its: start this one with an empty --data-dir"
    )]
    Duplicate {
        /// The identity.
        node: NodeId,
        /// Where the other is.
        address: String,
    },
    /// The node is no member any more.
    #[error(
        "this node was removed from cluster {cluster}: it is not needed any more; to add it again, start it with an empty \
         --data-dir and use `kvctl member add {address}`"
    )]
    Removed {
        /// The cluster.
        cluster: ClusterId,
        /// Where the node was.
        address: String,
    },
}

impl RunError {
    /// The exit code of the process: scripts tell by it what need not be started again.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Removed { .. } => 3,
            Self::Duplicate { .. } => 4,
            Self::DataDir(_)
            | Self::Listen { .. }
            | Self::State(_)
            | Self::Journal(_)
            | Self::OnlyCopy(_)
            | Self::System(_)
            | Self::Form(_)
            | Self::Moved { .. } => 1,
        }
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
    let mut data_dir = DataDir::open(&config.data_dir)?;
    if config.storage == Storage::Memory {
        // A process that was killed could not clean up.
        data_dir = data_dir.wipe()?;
    }
    let identity = data_dir.identity();
    if let Some(membership) = identity.membership.as_ref().filter(|_| data_dir.is_removed()) {
        return Err(RunError::Removed { cluster: membership.cluster, address: config.advertise.to_string() });
    }
    if identity.membership.is_some() {
        refuse_duplicate(identity.node, &config.advertise.to_string()).await?;
    }
    let listener = listen(&config, config.port)?;
    let admin_listener = config.admin_port.map(|port| listen(&config, port)).transpose()?;
    let (routes, metrics) = (Arc::<Routes>::default(), Arc::new(Metrics::new()));
    let (events_in, events) = mpsc::channel(EVENTS);
    #[allow(clippy::disallowed_methods, reason = "it holds no more than the owner has asked for; see Done")]
    let (done_in, done) = mpsc::unbounded_channel();
    let opened = open(data_dir, &config, (&routes, &metrics), &done_in)?;
    let Opened { data_dir, state, journal, recovered, lost } = opened;
    let node = Arc::new(Node::new(Parts {
        id: data_dir.identity().node,
        config: config.clone(),
        state,
        events: events_in,
        routes,
        metrics,
        tasks: TaskTracker::new(),
        stopping: CancellationToken::new(),
    }));
    tracing::info!(
        node = %node.id, address = node.address, data_dir = %config.data_dir.display(), version = env!("CARGO_PKG_VERSION"),
        last = %recovered.last, applied = %recovered.applied, "starts"
    );
    if let Some((part, what)) = lost {
        node.lost(part, what);
    }
    let start = Start { node, config, data_dir, done: done_in, closing: CancellationToken::new() };
    start.stop_on_signals()?;
    start.serve(listener, admin_listener);
    start.run(journal, &recovered, events, done).await
}

/// Fails if a process at `address` has the identity of `node`, which is that of this directory.
async fn refuse_duplicate(node: NodeId, address: &str) -> Result<(), RunError> {
    let hello = Hello::new(None, Role::Client { name: "kvd, about to start".to_owned() });
    match timeout(CURIOSITY, frames::connect(address, &hello, CLIENT_FRAME_LIMIT)).await {
        Ok(Ok((_, _, welcome))) if welcome.node == node => {
            Err(RunError::Duplicate { node, address: address.to_owned() })
        }
        // Whoever else may be there, or nobody: that is found out when this node listens.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn listen(config: &Config, port: u16) -> Result<TcpListener, RunError> {
    let address = SocketAddr::new(config.host, port);
    bind(address).map_err(|source| RunError::Listen { address: address.to_string(), source })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
        if let Err(error) = self.node.state().begin_with(&membership.configuration) {
            die(&format!("the first members cannot be stored: {error}"));
        }
        let cluster = membership.cluster;
        let applier = Applier::start(self.node.state().clone(), self.done.clone())?;
        let (mirror, mirroring) = Mirror::new(cluster, coordinator.clone());
        let owner = self.owner(journal, recovered, applier, coordinator.clone(), mirror, cluster);
        if let Err(error) = self.check_address(owner.replica.configuration()).await {
            Election::withdraw(coordinator).await;
            let Owner { journal, applier, .. } = owner;
            self.end(journal, Some(applier)).await?;
            return Err(error);
        }
        let members = owner.replica.configuration().members().count();
        tracing::info!(%cluster, members, "belongs to");
        self.node.set_cluster(cluster);
        self.until_closing(mirroring);
        self.until_closing(rejoin::run(Arc::clone(&self.node), cluster, coordinator.clone()));
        let stopping = self.node.stopping.clone();
        self.until_closing(async move {
            if let Err(error) = form::check(&membership, &coordinator).await
                && !stopping.is_cancelled()
            {
                die(&error.to_string());
            }
        });
        let address = self.node.address.clone();
        let Ended { journal, applier, removed } = owner.run(Sources { events, done, election }).await;
        if removed.is_some()
            && let Err(error) = self.data_dir.note_removed()
        {
            tracing::warn!("the next start will not know that this node was removed: {error}");
        }
        self.end(journal, Some(applier)).await?;
        removed.map_or(Ok(()), |_| Err(RunError::Removed { cluster, address }))
    }

    /// A member must be where the others look for it.
    async fn check_address(&self, configuration: &Configuration) -> Result<(), RunError> {
        let node = &self.node;
        let Some(member) = configuration.member(node.id).filter(|member| member.address != node.address)
        else {
            return Ok(());
        };
        refuse_duplicate(node.id, &member.address).await?;
        Err(RunError::Moved { known: member.address.clone(), now: node.address.clone() })
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
        coordinator.set_enrolment(coordination::EnrolPolicy::NEVER);
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
        mirror: Mirror,
        cluster: ClusterId,
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
            snapshots: SnapshotServer::new(node.state().clone(), Arc::clone(&node.metrics)),
            pending: Pending::new(Arc::clone(node)),
            election: Election::new(Arc::clone(node), coordinator, self.done.clone(), session_timeout),
            takeover: Stopwatch::default(),
            cluster,
            acquainted: Vec::new(),
            links: Links::new(Arc::clone(node), self.closing.clone()),
            mirror,
            done: self.done.clone(),
            origin: Instant::now(),
            broken: None,
            upkeep: Upkeep::new(
                self.config.data_dir.clone(),
                self.config.min_free_bytes,
                Scrub::new(node.state()),
            ),
            removed: None,
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
        if self.config.storage == Storage::Memory
            && let Err(error) = std::fs::remove_dir_all(&self.config.data_dir)
        {
            tracing::debug!("{} stays until the next start: {error}", self.config.data_dir.display());
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
