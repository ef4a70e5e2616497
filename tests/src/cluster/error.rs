//! Why a test's cluster could not be started, controlled or observed.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use quorumkv_client::NodeError;

use crate::zookeeper::ZooKeeperError;

/// Starting, controlling or observing a cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No port could be reserved.
    #[error(transparent)]
    Reserve(#[from] ZooKeeperError),

    /// Something with files, processes or sockets.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },

    /// `cargo build` failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Build {
        /// The command with its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        stderr: String,
    },

    /// The test executable does not stand where cargo puts it.
    #[error("{0} is in no directory of cargo's: set KVD_BIN and KVCTL_BIN to the binaries to test")]
    NoProfile(String),

    /// Something did not come true in time.
    #[error("after {waited:?} it is not true that {what}: {last}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// For how long.
        waited: Duration,
        /// What was seen last.
        last: String,
    },

    /// A node's process is not there.
    #[error("node {node} does not run")]
    NotRunning {
        /// The node.
        node: usize,
    },

    /// A node's process is there.
    #[error("node {node} still runs")]
    StillRuns {
        /// The node.
        node: usize,
    },

    /// A node's process ended although nobody ended it.
    #[error("node {node} ended by itself ({status}); its log ends with:\n{log}")]
    Ended {
        /// The node.
        node: usize,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },

    /// A task of a node panicked.
    #[error("node {node} panicked: {line}")]
    Panicked {
        /// The node.
        node: usize,
        /// The line of its log that says so.
        line: String,
    },

    /// A node did not say how it is.
    #[error("node {node}: {source}")]
    Status {
        /// The node.
        node: usize,
        /// Why.
        source: NodeError,
    },

    /// A node does not serve yet.
    #[error("node {node} is not ready: {remarks}")]
    NotReady {
        /// The node.
        node: usize,
        /// Its own reason.
        remarks: String,
    },

    /// No node leads.
    #[error("none leads")]
    NoLeader,

    /// The admin port answered something that is not HTTP.
    #[error("port {port} answered {answer:?}")]
    NotHttp {
        /// The port.
        port: u16,
        /// The first line.
        answer: String,
    },
}
