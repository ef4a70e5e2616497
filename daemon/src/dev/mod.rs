//! `kvd dev`: a whole cluster on one machine, for trying out and developing.
//!
//! `flags` is what was told and `home` the directory; `coordination` is what stands in ZooKeeper's place. Each node is a
//! `process` of its own, so that killing one is what it is anywhere else; `leash` is the node's side of that: it does not
//! outlive its parent. `watch` asks the nodes how they are, and `story` decides what is told of it; `restarts` decides when
//! what has ended is started again. `register`
//! is where other programs of this machine find the nodes. `cluster` has the one task that owns them all; `text` prints.

mod cluster;
mod coordination;
mod flags;
#[cfg(test)]
mod fuzz;
mod home;
mod leash;
mod process;
mod register;
mod restarts;
mod story;
mod text;
mod watch;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;

use thiserror::Error;

use cluster::Cluster;
use coordination::Coordination;
use flags::{HOST, Shape};
use home::Home;

pub use flags::DevFlags;
pub use leash::stop_with_stdin;

/// Why there is no cluster, or no longer.
#[derive(Debug, Error)]
pub enum DevError {
    /// The flags make no sense.
    #[error("{0}")]
    Usage(String),
    /// The directory has another cluster.
    #[error(
        "the directory holds a cluster of another shape: say {remembered} or nothing at all, or choose another --data-dir"
    )]
    OtherShape {
        /// The flags that fit.
        remembered: String,
    },
    /// The directory is not ours.
    #[error("{0} is not empty and no directory of kvd dev: choose another --data-dir")]
    Foreign(PathBuf),
    /// The directory is used.
    #[error("another kvd dev runs in {0}: stop that one, or choose another --data-dir")]
    InUse(PathBuf),
    /// `dev.json` makes no sense.
    #[error("{path} is not understood ({reason}): restore it, or choose another --data-dir")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file, directory or program.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses something.
    #[error("the system refuses a signal handler or its own program's path: {0}")]
    System(io::Error),
    /// A node's port cannot be listened on.
    #[error("cannot listen on {HOST}:{port}: {source} (what runs there? --base-port chooses other ports)")]
    Port {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The keeper's port cannot be listened on.
    #[error(
        "cannot listen on {HOST}:{port}: {source} (if a ZooKeeper runs there, --zookeeper {HOST}:{port} uses it; \
         --keeper-port chooses another port)"
    )]
    KeeperPort {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The keeper does not start.
    #[error("the keeper does not start: {0}")]
    Keeper(String),
    /// The keeper has ended.
    #[error("the keeper has failed, and so the cluster was stopped: {0}")]
    KeeperFailed(String),
    /// Nodes that were started by hand still run.
    #[error("what was started by hand still runs, and has to be ended by hand: {0}")]
    Left(String),
    /// A node ended before the cluster served.
    #[error("node {node} did not start: it {ending}")]
    Start {
        /// The node.
        node: usize,
        /// How.
        ending: String,
    },
}

impl DevError {
    /// Whether the command line has to be mended.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::OtherShape { .. })
    }
}

/// Runs a cluster until it is told to stop by Ctrl-C or SIGTERM. Nothing that it started is left running.
///
/// # Errors
/// See [`DevError`].
pub async fn run(flags: DevFlags) -> Result<(), DevError> {
    let binary = std::env::current_exe().map_err(DevError::System)?;
    // Before anything is made: a Ctrl-C must find somebody who cleans up.
    let signals = cluster::Signals::new().map_err(DevError::System)?;
    if flags.data_dir.is_none() {
        for path in home::sweep() {
            text::say(&format!("deleted {}: an earlier kvd dev was killed and left it\n", path.display()));
        }
    }
    let mut home = Home::open(&flags)?;
    let wanted = flags.coordination(home.shape())?;
    check_ports(home.shape(), &wanted)?;
    home.remember()?;
    let mut coordination = Coordination::start(wanted, &home).await?;
    home.settle();
    let mut cluster = Cluster::new(&home, &mut coordination, &binary, flags.restart);
    let ended = cluster.run(signals).await;
    let left = cluster.stop().await;
    if left.is_some() {
        home.leave();
    }
    let stopped = coordination.stop(&home).await;
    let deleted = home.close();
    let left = match left {
        Some(nodes) => Err(DevError::Left(nodes)),
        None => {
            text::say("stopped: nothing is left running\n");
            Ok(())
        }
    };
    ended.and(stopped).and(left).and(deleted)
}

/// Notices ports that are in use while nothing has been made yet.
fn check_ports(shape: Shape, coordination: &flags::Coordination) -> Result<(), DevError> {
    for port in shape.ports() {
        TcpListener::bind((HOST, port)).map_err(|source| DevError::Port { port, source })?;
    }
    if let flags::Coordination::Keeper(port) = *coordination {
        TcpListener::bind((HOST, port)).map_err(|source| DevError::KeeperPort { port, source })?;
    }
    Ok(())
}
