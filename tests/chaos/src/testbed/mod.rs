//! Where a cluster runs whose processes, network, disks and clocks can be harmed: everything of one run, removed at its end.

mod clock;
mod command;
mod network;
mod node;
mod owner;
mod zookeeper;

use std::path::Path;

use anyhow::{Context, Result};
use quorumkv_tests::cluster::kvd_binary;

use clock::Shim;
use node::Program;
use owner::Owner;

pub use clock::Clock;
pub use network::{Harm, Network, Place, Way, between, ways, within};
pub use node::{Killed, Node};
pub use zookeeper::{Ensemble, SERVERS};

/// Sessions that are short enough for frequent elections, as in the tests.
const SESSION_TIMEOUT: &str = "2s";

/// Three ZooKeepers and places for nodes, none of which runs at first.
#[derive(Debug)]
pub struct Testbed {
    // In the order in which they are to go.
    nodes: Vec<Node>,
    ensemble: Ensemble,
    network: Network,
    owner: Owner,
}

impl Testbed {
    /// Makes all of it: places for so many nodes, of which `cluster_size` form the cluster.
    ///
    /// # Errors
    /// Something is missing: root, Docker, `ip`, `nft`, `cc`, `/dev/fuse`; the error says what.
    pub fn new(cluster_size: usize, nodes: usize) -> Result<Self> {
        let binary = kvd_binary()?;
        let owner = Owner::new()?;
        let network = Network::new(&owner)?;
        let shim = Shim::build(owner.directory())?;
        let ensemble = Ensemble::start(&owner, &network)?;
        let arguments = vec![
            "--insecure".to_owned(),
            // Nodes are drained from another namespace.
            "--allow-remote-kill".to_owned(),
            format!("--zookeeper={}/chaos", ensemble.connect_string()),
            format!("--session-timeout={SESSION_TIMEOUT}"),
            format!("--cluster-size={cluster_size}"),
            // Small, so that segments come and go, and who lags far needs a snapshot.
            "--log-segment-kib=16384".to_owned(),
            "--log-retain-kib=1024".to_owned(),
            "--cache-mib=8".to_owned(),
            "--read-timeout=10s".to_owned(),
        ];
        let program = Program { binary, arguments };
        let nodes = (0..nodes)
            .map(|number| Node::new(&owner, &network, &shim, number, &program))
            .collect::<Result<_>>()
            .context("make a place for a node")?;
        Ok(Self { nodes, ensemble, network, owner })
    }

    /// The nodes, running or not.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The ZooKeepers.
    #[must_use]
    pub const fn ensemble(&self) -> &Ensemble {
        &self.ensemble
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Keeps the nodes' logs when this is dropped, until another run begins; returns where they are.
    pub fn keep_logs(&self) -> &Path {
        self.owner.keep_directory()
    }
}
