//! What all connections of one client share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorumkv_protocol::client::Response;
use quorumkv_protocol::hello::{Hello, Role};
use quorumkv_protocol::{ClusterId, Version};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How patient connections are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For connecting and the handshake together.
    pub(crate) hello: Duration,
    /// A connection on which requests wait is given up after this long without a byte.
    pub(crate) silence: Duration,
}

impl Patience {
    pub(crate) const DEFAULT: Self = Self { hello: Duration::from_secs(5), silence: Duration::from_secs(3) };

    /// The silence after which a node that owes answers is probed.
    pub(crate) fn probe(&self) -> Duration {
        self.silence / 12
    }

    /// The silence after which what any node can do is asked of another: a node may only be slow, or far away, so
    /// its connection is kept.
    pub(crate) fn doubt(&self) -> Duration {
        self.silence / 6
    }
}

/// What all connections of one client share.
#[derive(Debug)]
pub(crate) struct Context {
    name: String,
    pub(crate) patience: Patience,
    /// The cluster that was asked for, or the first that was met: one client never talks to two.
    cluster: OnceLock<ClusterId>,
    /// The highest version known to be committed.
    committed: AtomicU64,
    /// Cancelled when the client is closed or its last clone dropped.
    pub(crate) closing: CancellationToken,
    /// All tasks of the client.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    pub(crate) fn new(name: String, cluster: Option<ClusterId>, patience: Patience) -> Self {
        Self {
            name,
            patience,
            cluster: cluster.map_or_else(OnceLock::new, OnceLock::from),
            committed: AtomicU64::new(0),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// What this client says first on a connection.
    pub(crate) fn hello(&self) -> Hello {
        Hello::new(self.cluster.get().copied(), Role::Client { name: self.name.clone() })
    }

    /// Takes note of the cluster that a node belongs to; returns the expected one if that is another.
    pub(crate) fn meet(&self, cluster: ClusterId) -> Result<(), ClusterId> {
        let expected = *self.cluster.get_or_init(|| cluster);
        if expected == cluster { Ok(()) } else { Err(expected) }
    }

    /// The highest version that is known to be committed.
    pub(crate) fn committed(&self) -> Version {
        Version::new(self.committed.load(Ordering::Acquire))
    }

    /// Takes note of a committed version.
    pub(crate) fn observe(&self, committed: Version) {
        self.committed.fetch_max(committed.get(), Ordering::AcqRel);
    }

    /// Takes note of the committed version that an answer shows.
    pub(crate) fn observe_answer(&self, response: &Response) {
        match response {
            Response::Written(written) => self.observe(written.version),
            Response::Got(got) => got.value.iter().for_each(|value| self.observe(value.version)),
            Response::Scanned(page) => self.observe(page.at),
            Response::Status(status) => self.observe(status.committed),
            Response::Stopping
            | Response::Failed(_)
            | Response::Members(_)
            | Response::Refused(_)
            | Response::Permitted
            | Response::Draining => {}
        }
    }
}
