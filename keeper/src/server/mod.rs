//! The server: sockets, threads and clocks around [`crate::core`] and [`crate::storage`].
//!
//! One task, the owner, holds both. Each connection has a task that reads packets for the owner and writes what the owner
//! has put into its outbox.
//!
//! Every queue has a bound. While the log does not keep up, the owner takes in nothing; while a connection has too many
//! requests or answers that wait, nothing more is read from it: the client feels it, and nothing is dropped. Who takes so
//! little of what it is sent that watch events pile up is closed.

mod clock;
mod connection;
mod dates;
mod four_letter;
mod frames;
#[cfg(test)]
mod fuzz;
mod listener;
mod notices;
mod outbox;
mod owner;
mod pace;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::connection::Context;
use self::four_letter::Facts;
use self::frames::Budget;
use self::listener::{Listener, Slots};
use self::outbox::Total;
use self::owner::{Event, Owner, Sources};
use crate::core::Settings;
use crate::storage::{self, Storage};

pub use self::four_letter::{NoWord, Whitelist, Word};
pub use self::tls::{Secure, TlsError};

/// Events that may wait for the owner: more than all connections together have at a time, so that none waits unseen.
const EVENTS: usize = 1 << 18;

/// Connections that the system holds while this program has no time to take them. The usual 128 are soon full when all clients come at
/// once, after a restart, and whoever finds it so is kept waiting for a second or more.
const BACKLOG: u32 = 4096;

/// Connections get this long to take what they are still to be sent when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a server is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on. Default 127.0.0.1.
    pub host: IpAddr,
    /// The port; 0 for any that is free. Default 2181.
    pub port: u16,
    /// Where to listen for encrypted connections, if at all. Default nowhere.
    pub secure: Option<Secure>,
    /// Everything that the server keeps.
    pub data_dir: PathBuf,
    /// ZooKeeper's tick: session timeouts are 2 to 20 of them. Default 2 s.
    pub tick: Duration,
    /// The shortest session timeout, if it is not two ticks.
    pub min_session_timeout: Option<Duration>,
    /// The longest session timeout, if it is not twenty ticks.
    pub max_session_timeout: Option<Duration>,
    /// How often containers without children and TTL znodes are looked for. Default 1 min.
    pub container_check_interval: Duration,
    /// `user:digest` of whom everything is permitted. Default nobody.
    pub super_digest: Option<String>,
    /// Four-letter words that are answered. Default `srvr` alone.
    pub four_letter_words: Whitelist,
    /// Most connections from one address; 0 for no bound. Default 60.
    pub max_client_connections: usize,
    /// Bounds that protect the server.
    pub limits: Limits,
    /// When snapshots are made, and how the log is kept.
    pub storage: storage::Options,
}

/// Bounds that protect a server from its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most connections altogether. Default 50,000.
    pub connections: usize,
    /// A connection has to ask for a session within this time. Default 10 s.
    pub connect_timeout: Duration,
    /// A packet that has begun has to be complete, and a client that is sent something has to take some of it, within this
    /// time. Default 30 s.
    pub progress_timeout: Duration,
    /// A connection for which more bytes than this wait is closed. Default 4 MiB.
    pub outbox_bytes: usize,
    /// While more bytes than this wait for all connections together, the one for which most waits is closed. Default
    /// 256 MiB.
    pub all_outbox_bytes: usize,
    /// Memory for large packets of all connections together. Default 128 MiB, twice what the connections of one address can
    /// hold.
    pub packet_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            connect_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(30),
            outbox_bytes: 4 << 20,
            all_outbox_bytes: 256 << 20,
            packet_bytes: 128 << 20,
        }
    }
}

impl Config {
    /// ZooKeeper's defaults, with everything in this directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 2181,
            secure: None,
            data_dir: data_dir.into(),
            tick: Duration::from_secs(2),
            min_session_timeout: None,
            max_session_timeout: None,
            container_check_interval: Duration::from_secs(60),
            super_digest: None,
            four_letter_words: Whitelist::default(),
            max_client_connections: 60,
            limits: Limits::default(),
            storage: storage::Options::default(),
        }
    }

    /// What the keeper has to know of it.
    fn settings(&self) -> Settings {
        let ms = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        let tick_ms = u32::try_from(self.tick.as_millis()).unwrap_or(u32::MAX).clamp(1, MAX_TICK_MS);
        let usual = Settings::with_tick(tick_ms);
        Settings {
            min_session_ms: self.min_session_timeout.map_or(usual.min_session_ms, ms),
            max_session_ms: self.max_session_timeout.map_or(usual.max_session_ms, ms),
            super_digest: self.super_digest.clone(),
            reap_ms: u64::try_from(self.container_check_interval.as_millis()).unwrap_or(u64::MAX),
            ..usual
        }
    }
}

/// The longest tick, in milliseconds: twenty of them are a session timeout, which has 31 bits.
const MAX_TICK_MS: u32 = 100_000_000;

/// Why a server has not started.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its storage.
    #[error(transparent)]
    Storage(#[from] storage::OpenError),
    /// A port.
    #[error("cannot listen on {address}: {source} (is another server running there?)")]
    Listen {
        /// The address and port.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Opening the storage has panicked.
    #[error("the storage could not be opened: {0}")]
    Panic(String),
}

/// A server that runs. Dropping it stops it, without waiting for that.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    secure_address: Option<SocketAddr>,
    failure: watch::Receiver<Option<String>>,
    running: JoinHandle<()>,
    stopping: DropGuard,
}

impl Server {
    /// Recovers what the directory holds, and serves it. Needs a tokio runtime, which it goes on to use.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let handshakes = Arc::default();
        let acceptor =
            config.secure.as_ref().map(|secure| secure.acceptor(Arc::clone(&handshakes))).transpose()?;
        let (listener, address) = listen(config.host, config.port)?;
        let secure = match (&config.secure, acceptor) {
            (Some(secure), Some(acceptor)) => {
                let (listener, address) = listen(config.host, secure.port)?;
                Some((listener, address, acceptor))
            }
            _ => None,
        };
        let secure_address = secure.as_ref().map(|(_, address, _)| *address);
        let (to_failure, failure) = watch::channel(None);
        let to_failure = Arc::new(to_failure);
        let (storage, tree, durable) = open(&config, Arc::clone(&to_failure)).await?;

        let slots = Arc::new(Slots::new(config.max_client_connections, config.limits.connections));
        let facts = Facts {
            started: Instant::now(),
            built: built(),
            received: 0,
            sent: 0,
            connect_requests: 0,
            expired_sessions: 0,
            slots: Arc::clone(&slots),
            handshakes,
            settings: describe(&config, address, secure_address),
        };
        let (events_in, events) = mpsc::channel(EVENTS);
        let keep_open = events_in.clone();
        let (stopping, closing) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let outboxes = Arc::new(Total::new(config.limits.all_outbox_bytes));
        let context = Context {
            events: events_in,
            whitelist: config.four_letter_words.clone(),
            limits: config.limits.clone(),
            budget: Budget::new(config.limits.packet_bytes),
            outboxes: Arc::clone(&outboxes),
        };
        let takes = Listener {
            context,
            slots,
            next: Arc::default(),
            tasks: tasks.clone(),
            stopping: stopping.clone(),
            closing: closing.clone(),
        };
        tracing::info!(%address, data_dir = %config.data_dir.display(), "listening");
        tasks.spawn(takes.clone().run(listener, None));
        if let Some((listener, address, acceptor)) = secure {
            tracing::info!(%address, "listening for encrypted connections");
            tasks.spawn(takes.run(listener, Some(acceptor)));
        }
        let owner = Owner::new(tree, storage, config.settings(), facts, outboxes);
        let sources = Sources { events, durable, failure: failure.clone(), stopping: stopping.clone() };
        let ends = Ends { to_failure, tasks, stopping: stopping.clone(), closing, _events: keep_open };
        let running = tokio::spawn(ends.oversee(tokio::spawn(owner.run(sources))));
        Ok(Self { address, secure_address, failure, running, stopping: stopping.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for encrypted connections, if it does.
    #[must_use]
    pub const fn secure_address(&self) -> Option<SocketAddr> {
        self.secure_address
    }

    /// Takes no more connections, finishes what is under way, and syncs. Sessions live on, and can be taken up again after the
    /// next start.
    ///
    /// # Errors
    /// Why not everything could be synced. Nothing of the rest was acknowledged.
    pub async fn stop(self) -> Result<(), String> {
        let Self { stopping, running, failure, .. } = self;
        drop(stopping);
        if let Err(error) = running.await {
            return Err(format!("the server could not be stopped in good order: {error}"));
        }
        failure.borrow().clone().map_or(Ok(()), Err)
    }

    /// Waits until the server has died, and says why. It has answered nothing that is not on disk. Never ends as long as the
    /// server lives.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // It was stopped.
            Err(_) => std::future::pending().await,
        }
    }
}

/// What ends with a server, and how.
struct Ends {
    to_failure: Arc<watch::Sender<Option<String>>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    closing: CancellationToken,
    /// So that the owner's queue is open as long as the owner lives.
    _events: mpsc::Sender<Event>,
}

impl Ends {
    /// Waits for the end of the owner, and ends the rest.
    async fn oversee(self, owner: JoinHandle<Storage>) {
        let storage = owner.await;
        let was_told = self.stopping.is_cancelled();
        self.stopping.cancel();
        match storage {
            Ok(storage) => {
                let closed = tokio::task::spawn_blocking(move || storage.close()).await;
                if closed.is_err() {
                    self.fail("the storage could not be closed");
                } else if !was_told && self.to_failure.borrow().is_none() {
                    self.fail("the log has stopped");
                }
            }
            Err(error) => self.fail(&format!("the task that holds everything has failed: {error}")),
        }
        self.tasks.close();
        if timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::debug!("some connections did not end in time");
        }
        self.closing.cancel();
        tracing::info!("stopped");
    }

    fn fail(&self, reason: &str) {
        fail(&self.to_failure, reason.to_owned());
    }
}

/// Notes why the server dies; the first reason counts.
fn fail(to_failure: &watch::Sender<Option<String>>, reason: String) {
    tracing::error!("{reason}; the server stops");
    to_failure.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert(reason);
        is_first
    });
}

type Opened = (Storage, crate::tree::Tree, watch::Receiver<i64>);

/// Opens the storage, which may take a while, on a thread where that disturbs nobody.
async fn open(config: &Config, to_failure: Arc<watch::Sender<Option<String>>>) -> Result<Opened, StartError> {
    let (dir, options) = (config.data_dir.clone(), config.storage.clone());
    let (to_durable, durable) = watch::channel(0);
    let opened = tokio::task::spawn_blocking(move || {
        let on_durable = move |zxid| {
            to_durable.send_replace(zxid);
        };
        Storage::open(&dir, options, on_durable, move |reason| fail(&to_failure, reason))
    });
    let (storage, tree) = opened.await.map_err(|error| StartError::Panic(error.to_string()))??;
    Ok((storage, tree, durable))
}

fn listen(host: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = SocketAddr::new(host, port);
    bind(address).map_err(|source| StartError::Listen { address, source })
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let bound = socket.local_addr()?;
    Ok((socket.listen(BACKLOG)?, bound))
}

/// When the program that runs was made.
fn built() -> SystemTime {
    let program = std::env::current_exe().and_then(std::fs::metadata);
    program.and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What `conf` answers.
fn describe(config: &Config, address: SocketAddr, secure: Option<SocketAddr>) -> four_letter::Settings {
    let Settings { tick_ms, min_session_ms, max_session_ms, .. } = config.settings();
    four_letter::Settings {
        address,
        secure,
        snapshots: config.data_dir.join("snapshots"),
        log: config.data_dir.join("log"),
        tick_ms,
        max_client_connections: config.max_client_connections,
        min_session_ms,
        max_session_ms,
    }
}
