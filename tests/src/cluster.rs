//! A cluster for a test: real `kvd` processes on ports and directories of their own, in front of a real ZooKeeper.
//!
//! ```no_run
//! use quorumkv_tests::cluster::Cluster;
//! use quorumkv_tests::zookeeper::ZooKeeper;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let zookeeper = ZooKeeper::start(1)?;
//! let cluster = Cluster::builder().nodes(3).arg("--read-timeout=5s").start(&zookeeper).await?;
//! cluster.client().put("key", "value").await?;
//! let leader = cluster.leader().await?;
//! cluster.kill(leader)?;
//! cluster.leader().await?; // another one
//! cluster.start_node(leader)?;
//! cluster.wait_ready().await?;
//! cluster.end().await?; // checks that no node ended by itself
//! # Ok(())
//! # }
//! ```
//!
//! A cluster that is dropped without [`Cluster::end`] belongs to a test that failed: its directories are kept, and
//! where they are and how the nodes' logs end is printed. In both cases no process is left behind.
//!
//! Nodes are counted from 0. Waiting has deadlines for a slow machine and fails with what was seen last; no test
//! needs to sleep or to measure time.

mod admin;
mod binaries;
mod builder;
mod error;
mod node;
mod proxy;
mod wait;

use std::path::Path;
use std::process::{ExitStatus, Output};
use std::time::Duration;

use quorumkv_client::{Client, NodeRole, NodeStatus};
use rustix::process::Signal;
use tempfile::TempDir;

use node::Node;
use proxy::Links;

pub use admin::HttpAnswer;
pub use binaries::{
    KEEPERD_VARIABLE, KVCTL_VARIABLE, KVD_VARIABLE, keeperd_binary, kvctl_binary, kvd_binary, mutant_binary,
};
pub use builder::ClusterBuilder;
pub use error::ClusterError;
pub use wait::{PATIENCE, wait_until};

/// How long one status may take: a node that is paused answers nothing.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// The deadline of the clients that this harness makes: longer than an election on a slow machine.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster of `kvd` processes that belongs to one test.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    links: Option<Links>,
    /// For the harness's own questions.
    observer: Client,
    directory: Option<TempDir>,
}

impl Cluster {
    /// Begins a cluster of three nodes.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// How many nodes it has, running or not.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients reach node `i`, as `host:port`.
    pub fn endpoint(&self, i: usize) -> &str {
        &self.nodes[i].endpoint
    }

    /// The endpoints of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.endpoint.clone()).collect()
    }

    /// The data directory of node `i`.
    pub fn data_dir(&self, i: usize) -> &Path {
        &self.nodes[i].data_dir
    }

    /// Everything that node `i` has logged, over all its starts.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self, i: usize) -> Result<String, ClusterError> {
        self.nodes[i].log()
    }

    /// A new client of all nodes, with a deadline of 30 seconds.
    pub fn client(&self) -> Client {
        self.client_of(&(0..self.size()).collect::<Vec<_>>())
    }

    /// A new client that is given only these nodes. Writes still go to the leader once it has been named.
    ///
    /// # Panics
    /// If no nodes are given.
    pub fn client_of(&self, nodes: &[usize]) -> Client {
        client(nodes.iter().map(|&i| self.endpoint(i)))
    }

    /// The nodes whose processes run, paused ones included.
    pub fn running(&self) -> Vec<usize> {
        (0..self.size()).filter(|&i| self.nodes[i].is_running()).collect()
    }

    /// Starts node `i`, which does not run, with the data it has. Does not wait until it is ready.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_node(&self, i: usize) -> Result<(), ClusterError> {
        self.nodes[i].start()
    }

    /// Kills node `i` with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self, i: usize) -> Result<(), ClusterError> {
        self.nodes[i].kill()
    }

    /// Stops node `i` with SIGTERM and waits until it has ended.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub async fn terminate(&self, i: usize) -> Result<ExitStatus, ClusterError> {
        self.nodes[i].signal(Signal::TERM)?;
        self.wait_ended(i).await
    }

    /// Waits until the process of node `i` has ended, because it was told to by other means.
    ///
    /// # Errors
    /// It goes on running.
    pub async fn wait_ended(&self, i: usize) -> Result<ExitStatus, ClusterError> {
        let ended = async || self.nodes[i].take_ended()?.ok_or(ClusterError::StillRuns { node: i });
        wait_until(PATIENCE, &format!("node {i} ends"), ended).await
    }

    /// The process id of node `i`.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self, i: usize) -> Result<u32, ClusterError> {
        self.nodes[i].pid()
    }

    /// Freezes node `i` (SIGSTOP): its connections stay open and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self, i: usize) -> Result<(), ClusterError> {
        self.nodes[i].signal(Signal::STOP)
    }

    /// Lets a paused node `i` go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self, i: usize) -> Result<(), ClusterError> {
        self.nodes[i].signal(Signal::CONT)
    }

    /// Asks node `i` how it is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, i: usize) -> Result<NodeStatus, ClusterError> {
        let status = self.observer.with_timeout(STATUS_TIMEOUT).status(self.endpoint(i)).await;
        status.map_err(|source| ClusterError::Status { node: i, source })
    }

    /// Waits until every running node serves.
    ///
    /// # Errors
    /// One does not, or has ended by itself.
    pub async fn wait_ready(&self) -> Result<(), ClusterError> {
        for i in self.running() {
            self.wait_node_ready(i).await?;
        }
        Ok(())
    }

    /// Waits until node `i` serves.
    ///
    /// # Errors
    /// It does not, or has ended by itself.
    pub async fn wait_node_ready(&self, i: usize) -> Result<NodeStatus, ClusterError> {
        let ready = async || {
            self.nodes[i].check_runs()?;
            let status = self.status(i).await?;
            if status.ready {
                Ok(status)
            } else {
                Err(ClusterError::NotReady { node: i, remarks: status.remarks })
            }
        };
        wait_until(PATIENCE, &format!("node {i} is ready"), ready).await
    }

    /// Waits until one of the running nodes leads an established epoch that no other node has gone beyond.
    ///
    /// # Errors
    /// None does.
    pub async fn leader(&self) -> Result<usize, ClusterError> {
        self.leader_among(&self.running()).await
    }

    /// The same, looking only at `nodes`: for when others are paused or cut off and may not know better.
    ///
    /// # Errors
    /// None of them leads.
    pub async fn leader_among(&self, nodes: &[usize]) -> Result<usize, ClusterError> {
        let leads = async || {
            let mut best = None;
            for &i in nodes {
                let Ok(status) = self.status(i).await else { continue };
                if best.as_ref().is_none_or(|(epoch, _, _)| *epoch <= status.epoch) {
                    let leads = status.role == NodeRole::Leader;
                    // Followers promise the leader's own epoch: of equals, the one that leads counts.
                    if leads || best.as_ref().is_none_or(|(epoch, _, _)| *epoch < status.epoch) {
                        best = Some((status.epoch, i, leads));
                    }
                }
            }
            match best {
                Some((_, i, true)) => Ok(i),
                _ => Err(ClusterError::NoLeader),
            }
        };
        wait_until(PATIENCE, &format!("one of the nodes {nodes:?} leads"), leads).await
    }

    /// Runs `kvctl` with these arguments against this cluster, and waits until it has ended.
    ///
    /// # Errors
    /// It cannot be built or run; how it ended is in the output.
    pub async fn kvctl(&self, arguments: &[&str]) -> Result<Output, ClusterError> {
        let binary = kvctl_binary()?;
        let mut command = tokio::process::Command::new(&binary);
        command.env("KVCTL_ENDPOINTS", self.endpoints().join(",")).args(arguments).kill_on_drop(true);
        let output = command.stdin(std::process::Stdio::null()).output().await;
        output.map_err(|source| ClusterError::Io { action: format!("run {}", binary.display()), source })
    }

    /// Asks the admin port of node `i` for a path such as `/health/ready`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn http(&self, i: usize, path: &str) -> Result<HttpAnswer, ClusterError> {
        admin::get(self.nodes[i].admin_port(), path).await
    }

    /// A metric of node `i` by its full name, summed over its labels; 0 if nothing was counted yet.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn metric(&self, i: usize, name: &str) -> Result<f64, ClusterError> {
        Ok(admin::metric(&self.http(i, "/metrics").await?.body, name))
    }

    /// Holds back everything on the connections that node `from` has opened or will open to node `to`: its requests
    /// and their answers. What was held is delivered once the link is healed, unless the connection was given up.
    ///
    /// Needs [`ClusterBuilder::proxied`]. Clients are not affected.
    ///
    /// # Errors
    /// Node `from` does not answer, and never has.
    ///
    /// # Panics
    /// If the cluster was not built with proxies.
    pub async fn cut(&self, from: usize, to: usize) -> Result<(), ClusterError> {
        let id = match self.links().id(from) {
            Some(id) => id,
            None => self.status(from).await?.node,
        };
        self.links().cut(from, id, to);
        Ok(())
    }

    /// Mends what [`Cluster::cut`] did between these two.
    ///
    /// # Panics
    /// If the cluster was not built with proxies.
    pub fn heal(&self, from: usize, to: usize) {
        self.links().heal(from, to);
    }

    /// Mends all links.
    ///
    /// # Panics
    /// If the cluster was not built with proxies.
    pub fn heal_all(&self) {
        self.links().heal_all();
    }

    /// Ends a test that has passed: kills what runs and deletes the directories.
    ///
    /// # Errors
    /// A node has ended by itself, or has panicked: then the test has not passed.
    pub async fn end(mut self) -> Result<(), ClusterError> {
        for node in &self.nodes {
            node.check_not_ended()?;
        }
        self.observer.close().await;
        for node in &self.nodes {
            node.kill_if_running();
            node.check_log()?;
        }
        if let Some(directory) = self.directory.take() {
            let action = format!("delete {}", directory.path().display());
            directory.close().map_err(|source| ClusterError::Io { action, source })?;
        }
        Ok(())
    }

    fn links(&self) -> &Links {
        self.links.as_ref().expect("links can only be cut in a cluster that was built with `proxied`")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.kill_if_running();
        }
        let Some(directory) = self.directory.take() else { return };
        let directory = directory.keep();
        eprintln!("the nodes' data and logs are kept in {}", directory.display());
        for node in &self.nodes {
            eprintln!("--- the log of node {} ends with\n{}", node.index, node.log_tail());
        }
    }
}

fn client<'a>(endpoints: impl Iterator<Item = &'a str>) -> Client {
    let client = Client::builder(endpoints).name("quorumkv-tests").timeout(CLIENT_TIMEOUT).connect();
    client.expect("the endpoints of a cluster are well formed")
}
