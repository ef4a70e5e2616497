//! What stands in ZooKeeper's place: a keeper in this process, or a ZooKeeper that runs already.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use quorumkv_keeper::server::{Config, Server, StartError, Whitelist};
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;
use zookeeper_client::{Client, Error};

use super::DevError;
use super::flags::{Coordination as Wanted, HOST};
use super::home::Home;
use super::text;

/// How long a ZooKeeper may take to forget a temporary cluster.
const PATIENCE: Duration = Duration::from_secs(5);

/// The keeper's tick. Sessions are two ticks at least: short ones let an election be watched.
const TICK: Duration = Duration::from_millis(500);

/// What the keeper logs.
const LOG: &str = "info";

/// What the nodes coordinate through.
pub(super) enum Coordination {
    /// A keeper in this process, on this port; it may have failed.
    Keeper { port: u16, server: Option<Server> },
    /// Somebody else's, where this cluster has a znode of its own.
    ZooKeeper { servers: String, root: String, is_ours: bool },
}

impl Coordination {
    /// Starts what has to be started.
    pub(super) async fn start(wanted: Wanted, home: &Home) -> Result<Self, DevError> {
        match wanted {
            Wanted::Keeper(port) => {
                log_to(&home.keeper_log())?;
                Ok(Self::Keeper { port, server: Some(start_keeper(port, home).await?) })
            }
            // Clusters at one ZooKeeper must not meet, so each has a root of its own unless one was written.
            Wanted::ZooKeeper { connect, has_root } => {
                let root =
                    if has_root { connect.root().to_owned() } else { format!("/quorumkv-dev-{}", home.id()) };
                Ok(Self::ZooKeeper { servers: connect.servers_text(), root, is_ours: !has_root })
            }
        }
    }

    /// What nodes are given as `--zookeeper`.
    pub(super) fn connect_string(&self) -> String {
        match self {
            Self::Keeper { port, .. } => format!("{HOST}:{port}"),
            Self::ZooKeeper { servers, root, .. } => format!("{servers}{root}"),
        }
    }

    /// What it is called, where it is reached, what there is to say about it, and where it logs.
    pub(super) fn describe(&self, home: &Home) -> [String; 4] {
        match self {
            Self::Keeper { .. } => {
                let log = home.keeper_log().display().to_string();
                ["keeper".to_owned(), self.connect_string(), "in this process".to_owned(), log]
            }
            Self::ZooKeeper { servers, root, .. } => {
                ["zookeeper".to_owned(), servers.clone(), format!("below {root}"), String::new()]
            }
        }
    }

    /// Resolves when what runs here is no more, with the reason.
    pub(super) async fn failed(&self) -> String {
        match self {
            Self::Keeper { server: Some(server), .. } => server.failed().await,
            Self::Keeper { server: None, .. } | Self::ZooKeeper { .. } => std::future::pending().await,
        }
    }

    /// Ends what is left of a keeper that has failed: then its port and its directory are free.
    pub(super) async fn clear(&mut self) {
        if let Self::Keeper { server, .. } = self
            && let Some(failed) = server.take()
        {
            // Why it has failed is known.
            let _ = failed.stop().await;
        }
    }

    /// Starts a keeper again that was cleared: with what its log holds, as after any other end.
    pub(super) async fn start_again(&mut self, home: &Home) -> Result<(), DevError> {
        if let Self::Keeper { port, server } = self {
            *server = Some(start_keeper(*port, home).await?);
        }
        Ok(())
    }

    /// Stops what was started; nodes that use it have ended.
    pub(super) async fn stop(self, home: &Home) -> Result<(), DevError> {
        match self {
            Self::Keeper { server: None, .. } => Ok(()),
            Self::Keeper { server: Some(server), .. } => server.stop().await.map_err(DevError::KeeperFailed),
            Self::ZooKeeper { servers, root, is_ours } => {
                if is_ours && home.is_temporary() {
                    let forgotten = timeout(PATIENCE, forget(&servers, &root)).await;
                    if !matches!(forgotten, Ok(Ok(()))) {
                        text::say(&format!(
                            "the znode {root} could not be deleted at {servers}, and may stay behind there\n"
                        ));
                    }
                }
                Ok(())
            }
        }
    }
}

async fn start_keeper(port: u16, home: &Home) -> Result<Server, DevError> {
    let config = Config {
        host: HOST.parse().expect("the host is an address"),
        port,
        tick: TICK,
        four_letter_words: Whitelist::all(),
        // All nodes, and whatever is tried out, come from one address.
        max_client_connections: 0,
        ..Config::new(home.keeper())
    };
    Server::start(config).await.map_err(|error| match error {
        StartError::Listen { source, .. } => DevError::KeeperPort { port, source },
        other => DevError::Keeper(other.to_string()),
    })
}

/// What is logged in this process is the keeper's log; its own words are for its user.
fn log_to(path: &Path) -> Result<(), DevError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.map_err(|source| DevError::Io { action: "open", path: path.to_owned(), source })?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(LOG))
        .with_writer(Mutex::new(file))
        .log_internal_errors(false)
        .with_ansi(false)
        .with_target(false)
        .init();
    Ok(())
}

/// Deletes a znode and all below it, children before their parents.
async fn forget(servers: &str, root: &str) -> Result<(), Error> {
    let client = Client::connect(servers).await?;
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        next += 1;
        match client.list_children(&parent).await {
            Ok(children) => found.extend(children.into_iter().map(|child| format!("{parent}/{child}"))),
            Err(Error::NoNode) => {}
            Err(other) => return Err(other),
        }
    }
    for path in found.iter().rev() {
        match client.delete(path, None).await {
            // Ephemeral znodes of nodes that were killed may vanish by themselves meanwhile.
            Ok(()) | Err(Error::NoNode) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}
