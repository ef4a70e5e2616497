//! Why a test's ZooKeeper could not be started or controlled. The messages say what a person can do about it.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crate::cluster::ClusterError;

/// Starting, controlling or reaching a test's ZooKeeper failed.
#[derive(Debug, thiserror::Error)]
pub enum ZooKeeperError {
    /// The `docker` command does not exist.
    #[error(
        "tests need Docker for ZooKeeper, and there is no `docker` command: install it (Debian: \
         `apt-get install docker.io`; elsewhere: https://docs.docker.com/engine/install), or set \
         KV_TEST_ZOOKEEPER=embedded to use this workspace's own keeper, or host:port for a ZooKeeper that runs already"
    )]
    DockerMissing,

    /// The `docker` command exists but its daemon does not answer.
    #[error(
        "Docker is installed but its daemon does not answer: start it with `systemctl start docker`, or as \
         root with `dockerd &`, and make sure that this user may use it; docker said: {stderr}"
    )]
    DaemonDown {
        /// What the `docker` command printed.
        stderr: String,
    },

    /// A command failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command with its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        stderr: String,
    },

    /// A command could not be run at all.
    #[error("run `{command}`")]
    Spawn {
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },

    /// The servers run but did not serve in time.
    #[error("ZooKeeper does not serve after {waited:?}; its logs end with:\n{logs}")]
    NotServing {
        /// How long the harness waited.
        waited: Duration,
        /// The last lines of every server's log.
        logs: String,
    },

    /// The test does something that only servers of its own allow.
    #[error(
        "this test needs to {action}, which it can only do with its own: set KV_TEST_ZOOKEEPER to `docker` or `embedded`"
    )]
    NeedsOwnServers {
        /// What the test wanted to do.
        action: &'static str,
    },

    /// The test does something with one of several servers, and there is one.
    #[error(
        "this test needs the servers {servers:?} of an ensemble, and an embedded keeper is server 0 alone: such a test takes \
         ZooKeeper::in_docker"
    )]
    NeedsEnsemble {
        /// The servers it wanted.
        servers: Vec<usize>,
    },

    /// The embedded keeper.
    #[error("keeperd: {0}")]
    Keeperd(Box<ClusterError>),

    /// `KV_TEST_ZOOKEEPER` is not understood.
    #[error("KV_TEST_ZOOKEEPER must be `docker`, `embedded` or host:port[,host:port…], not {value:?}")]
    BadVariable {
        /// The value found.
        value: String,
    },

    /// The ZooKeeper of `KV_TEST_ZOOKEEPER` did not do as asked.
    #[error("{action} at the ZooKeeper {address} of KV_TEST_ZOOKEEPER")]
    Existing {
        /// What was tried.
        action: &'static str,
        /// Its addresses.
        address: String,
        /// Why it failed.
        source: Box<zookeeper_client::Error>,
    },

    /// A file in the temporary directory, by which test processes share ports and slots, could not be used.
    #[error("lock {path}")]
    Lock {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },

    /// Every port that tests use is taken.
    #[error("no port is free from {first} to {last}")]
    NoPort {
        /// The first port tried.
        first: u16,
        /// The last port tried.
        last: u16,
    },
}

impl From<ClusterError> for ZooKeeperError {
    fn from(error: ClusterError) -> Self {
        Self::Keeperd(Box::new(error))
    }
}
