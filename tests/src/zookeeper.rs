//! A real ZooKeeper for a test, or keeper in its place: started and removed by the test itself.
//!
//! ```no_run
//! use quorumkv_tests::zookeeper::ZooKeeper;
//!
//! let zookeeper = ZooKeeper::start(3)?;
//! println!("connect to {}", zookeeper.connect_string());
//! zookeeper.stop(0)?; // two of three go on serving
//! zookeeper.start_server(0)?; // on the same port, with the data it had
//! # Ok::<(), quorumkv_tests::zookeeper::ZooKeeperError>(())
//! ```
//!
//! The environment decides what is used:
//!
//! - `KV_TEST_ZOOKEEPER=docker` (the default): containers. `KV_TEST_ZOOKEEPER_IMAGE` names the image;
//!   otherwise it is `zookeeper:3.9` where that has been pulled, and else the image which
//!   `tests/zookeeper-image/build` makes.
//! - `KV_TEST_ZOOKEEPER=embedded`: this workspace's own keeper, one `keeperd` process with a port and a directory of its own.
//!   `KEEPERD_BIN` names another one. An ensemble of keepers does not exist yet; see [`ZooKeeper::start`].
//! - `KV_TEST_ZOOKEEPER=host:port[,host:port…]`: a ZooKeeper that runs already. Every test works below a path
//!   of its own, and a test that stops ZooKeeper fails with [`ZooKeeperError::NeedsOwnServers`].
//!
//! All functions block: starting takes one or two seconds, stopping half a second. An asynchronous test that
//! has background tasks should therefore use a multi-threaded runtime.

mod containers;
pub mod docker;
mod embedded;
mod error;
mod existing;
mod image;
mod reserve;
mod servers;

use std::env;

use containers::Containers;
use embedded::Embedded;
use existing::Existing;
use servers::Servers;

pub use error::ZooKeeperError;
pub use reserve::{Lock, ReservedPort, Slot, random};

/// The variable that chooses between Docker, keeper and a ZooKeeper that runs already.
pub const ZOOKEEPER_VARIABLE: &str = "KV_TEST_ZOOKEEPER";
/// The variable that names the image to use in Docker.
pub const IMAGE_VARIABLE: &str = "KV_TEST_ZOOKEEPER_IMAGE";

/// The image that containers are made of. It is there, unless [`IMAGE_VARIABLE`] names one that Docker will have to pull.
///
/// # Errors
/// There is none, and none can be built.
pub fn image() -> Result<String, ZooKeeperError> {
    image::resolve()
}

/// A ZooKeeper ensemble that belongs to one test. Dropping it removes its containers or its process, or its znodes.
///
/// At most two that were started exist at a time on a machine, over all test processes (see [`Slot`]): starting
/// a third waits. A test that holds one and starts another may therefore wait for ever.
#[derive(Debug)]
pub struct ZooKeeper {
    backend: Backend,
    _slot: Option<Slot>,
}

#[derive(Debug)]
enum Backend {
    Docker(Containers),
    Embedded(Embedded),
    Existing(Existing),
}

impl ZooKeeper {
    /// Starts an ensemble of `servers` (1 or 3, or another odd number) and waits until all of them serve.
    ///
    /// A tick is 200 ms and sessions may have timeouts from 200 ms to 60 s.
    ///
    /// With `KV_TEST_ZOOKEEPER=embedded` this is one server, however many are asked for: what a test then says about an
    /// ensemble that serves, it says about that one. A test of what happens while one of several servers is away takes
    /// [`Self::in_docker`] and stands in a module `docker_only`, which tells whoever chooses what to run.
    ///
    /// # Errors
    ///
    /// Says what to install or to start when Docker is missing, and shows the servers' logs when they do not
    /// serve.
    ///
    /// # Panics
    ///
    /// When `servers` is not odd.
    pub fn start(servers: usize) -> Result<Self, ZooKeeperError> {
        assert!(servers % 2 == 1, "an ensemble has an odd number of servers, not {servers}");
        let slot = Some(Slot::acquire()?);
        let choice = env::var_os(ZOOKEEPER_VARIABLE).unwrap_or_default().to_string_lossy().into_owned();
        let backend = match choice.as_str() {
            "" | "docker" => Backend::Docker(Containers::start(servers)?),
            "embedded" => Backend::Embedded(Embedded::start()?),
            addresses if addresses.contains(':') => Backend::Existing(Existing::connect(addresses)?),
            _ => return Err(ZooKeeperError::BadVariable { value: choice }),
        };
        Ok(Self { backend, _slot: slot })
    }

    /// Like [`Self::start`], but always Apache ZooKeeper in Docker, whatever the environment chooses.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn in_docker(servers: usize) -> Result<Self, ZooKeeperError> {
        let slot = Some(Slot::acquire()?);
        Ok(Self { backend: Backend::Docker(Containers::start(servers)?), _slot: slot })
    }

    /// Uses a ZooKeeper that runs already, below a path made for this test.
    ///
    /// `addresses` is `host:port[,host:port…][/path]`.
    pub fn at(addresses: &str) -> Result<Self, ZooKeeperError> {
        Ok(Self { backend: Backend::Existing(Existing::connect(addresses)?), _slot: None })
    }

    /// What a client connects to: `host:port[,host:port…][/path]`. It never changes, whatever is stopped.
    pub fn connect_string(&self) -> String {
        match &self.backend {
            Backend::Docker(containers) => containers.connect_string(),
            Backend::Embedded(embedded) => embedded.connect_string(),
            Backend::Existing(existing) => existing.connect_string().to_owned(),
        }
    }

    /// The server that leads the ensemble now (0 for a single one), if one does.
    pub fn leader(&self) -> Result<Option<usize>, ZooKeeperError> {
        self.servers("ask which server leads")?.leader()
    }

    /// Stops server `i` (counted from 0) with SIGTERM; its data stays.
    pub fn stop(&self, i: usize) -> Result<(), ZooKeeperError> {
        self.servers("stop a server")?.stop(&[i])
    }

    /// Starts server `i` again, and waits until it serves if enough servers run for a quorum.
    pub fn start_server(&self, i: usize) -> Result<(), ZooKeeperError> {
        self.servers("start a server")?.start_again(&[i])
    }

    /// Kills server `i` with SIGKILL; its data stays.
    pub fn kill(&self, i: usize) -> Result<(), ZooKeeperError> {
        self.servers("kill a server")?.kill(&[i])
    }

    /// Freezes server `i`: its connections stay open and nothing answers.
    pub fn pause(&self, i: usize) -> Result<(), ZooKeeperError> {
        self.servers("pause a server")?.pause(i)
    }

    /// Lets a paused server `i` go on.
    pub fn unpause(&self, i: usize) -> Result<(), ZooKeeperError> {
        self.servers("unpause a server")?.unpause(i)
    }

    /// Stops all servers that run, with SIGTERM.
    pub fn stop_all(&self) -> Result<(), ZooKeeperError> {
        let servers = self.servers("stop all servers")?;
        servers.stop(&servers.running()?)
    }

    /// Kills all servers that run, with SIGKILL.
    pub fn kill_all(&self) -> Result<(), ZooKeeperError> {
        let servers = self.servers("kill all servers")?;
        servers.kill(&servers.running()?)
    }

    /// Starts all servers that do not run, and waits until all serve.
    pub fn start_all(&self) -> Result<(), ZooKeeperError> {
        let servers = self.servers("start all servers")?;
        let running = servers.running()?;
        let stopped: Vec<usize> = (0..servers.len()).filter(|i| !running.contains(i)).collect();
        servers.start_again(&stopped)
    }

    /// The servers, for what can be done with one's own only.
    fn servers(&self, action: &'static str) -> Result<&dyn Servers, ZooKeeperError> {
        match &self.backend {
            Backend::Docker(containers) => Ok(containers),
            Backend::Embedded(embedded) => Ok(embedded),
            Backend::Existing(_) => Err(ZooKeeperError::NeedsOwnServers { action }),
        }
    }
}
