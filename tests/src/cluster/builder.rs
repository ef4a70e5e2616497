//! How a cluster is made.

use std::collections::BTreeMap;
use std::path::Path;

use super::node::Node;
use super::proxy::Links;
use super::{Cluster, ClusterError, client, kvd_binary};
use crate::zookeeper::{ReservedPort, ZooKeeper};

/// Sessions that are short enough for a test and long enough for a machine that stalls.
const SESSION_TIMEOUT: &str = "2s";

/// Settings of a [`Cluster`] that is about to be started.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct ClusterBuilder {
    nodes: usize,
    spares: usize,
    memory: bool,
    root: String,
    proxied: bool,
    arguments: Vec<String>,
    arguments_of: BTreeMap<usize, Vec<String>>,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            nodes: 3,
            spares: 0,
            memory: false,
            root: "/cluster".to_owned(),
            proxied: false,
            arguments: Vec::new(),
            arguments_of: BTreeMap::new(),
        }
    }
}

impl ClusterBuilder {
    /// How many nodes; three unless set.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many nodes there are besides, which are not started and have no place in the cluster; none unless set.
    pub fn spares(mut self, spares: usize) -> Self {
        self.spares = spares;
        self
    }

    /// Lets the nodes keep nothing: each start is one with a lost disk.
    pub fn memory(mut self) -> Self {
        self.memory = true;
        self
    }

    /// Gives all nodes an argument, as `--flag=value`. It stands in place of the harness's own.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Gives node `i` an argument, as `--flag=value`.
    pub fn arg_of(mut self, i: usize, argument: impl Into<String>) -> Self {
        self.arguments_of.entry(i).or_default().push(argument.into());
        self
    }

    /// The znode that everything is kept under, such as `/other`: two clusters at one ZooKeeper need two.
    pub fn root(mut self, root: impl Into<String>) -> Self {
        self.root = root.into();
        self
    }

    /// Lets the nodes reach each other through proxies, so that links can be cut. Needs a tokio runtime with more than
    /// one thread.
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Starts the nodes and waits until all of them serve.
    ///
    /// # Errors
    /// They do not.
    pub async fn start(self, zookeeper: &ZooKeeper) -> Result<Cluster, ClusterError> {
        let cluster = self.spawn(zookeeper).await?;
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// Starts the nodes, and does not wait for anything.
    ///
    /// # Errors
    /// A process cannot be started.
    pub async fn spawn(self, zookeeper: &ZooKeeper) -> Result<Cluster, ClusterError> {
        let nodes = self.nodes;
        let cluster = self.prepare(&zookeeper.connect_string()).await?;
        for i in 0..nodes {
            cluster.start_node(i)?;
        }
        Ok(cluster)
    }

    /// Reserves ports and makes directories, and starts nothing: [`Cluster::start_node`] does. `zookeeper` is
    /// `host:port[,host:port…][/path]`, where somebody may listen or not.
    ///
    /// # Errors
    /// `kvd` cannot be built, there are no ports, or no directory can be made.
    pub async fn prepare(self, zookeeper: &str) -> Result<Cluster, ClusterError> {
        let binary = kvd_binary()?;
        let directory = tempfile::Builder::new().prefix("quorumkv-cluster-").tempdir();
        let directory = directory
            .map_err(|source| ClusterError::Io { action: "make a temporary directory".to_owned(), source })?;
        let connect_string = format!("{zookeeper}{}", self.root);
        let mut nodes = Vec::new();
        let mut targets = Vec::new();
        for i in 0..self.nodes + self.spares {
            let (port, admin_port) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
            let proxy = if self.proxied { Some(ReservedPort::reserve()?) } else { None };
            let advertised = proxy.as_ref().unwrap_or(&port).port();
            let own = self.own_arguments(&connect_string, directory.path(), i);
            let ports = [("port", port.port()), ("admin-port", admin_port.port())];
            let ports = ports.iter().map(|(flag, port)| format!("--{flag}={port}"));
            let defaults =
                own.into_iter().chain(ports).chain([format!("--advertise=127.0.0.1:{advertised}")]);
            let arguments = self.with_settings(i, defaults);
            if let Some(proxy) = proxy {
                targets.push((proxy, port.port()));
            }
            nodes.push(Node::new(i, binary.clone(), arguments, directory.path(), port, admin_port)?);
        }
        let links = if self.proxied { Some(Links::start(targets).await?) } else { None };
        let observer = client(nodes.iter().map(|node| node.endpoint.as_str()));
        Ok(Cluster { nodes, links, observer, directory: Some(directory) })
    }

    fn own_arguments(&self, connect_string: &str, directory: &Path, i: usize) -> Vec<String> {
        let data_dir = Node::data_dir_in(directory, i);
        vec![
            format!("--zookeeper={connect_string}"),
            format!("--session-timeout={SESSION_TIMEOUT}"),
            format!("--cluster-size={}", self.nodes),
            if self.memory {
                "--storage=memory".to_owned()
            } else {
                format!("--data-dir={}", data_dir.display())
            },
        ]
    }

    /// The test's arguments for node `i`, and those of `defaults` whose flags it does not set.
    fn with_settings(&self, i: usize, defaults: impl Iterator<Item = String>) -> Vec<String> {
        let mut arguments = self.arguments.clone();
        arguments.extend(self.arguments_of.get(&i).into_iter().flatten().cloned());
        let flag = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        let set: Vec<String> = arguments.iter().map(|argument| flag(argument)).collect();
        arguments.extend(defaults.filter(|default| !set.contains(&flag(default))));
        arguments
    }
}
