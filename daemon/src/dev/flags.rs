//! What `kvd dev` was told, and what it means.

use std::path::PathBuf;

use clap::Args;
use quorumkv_protocol::membership::MAX_MEMBERS;

use super::DevError;
use crate::coordination::{ConnectString, DEFAULT_PORT};

/// How far a node's port for health and metrics is above its own: what a node does by itself, too.
const ADMIN_OFFSET: u16 = 1000;

/// The host of everything that `kvd dev` starts: it is for this machine only.
pub(super) const HOST: &str = "127.0.0.1";

/// The flags of `kvd dev`, as people write them.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLES)]
pub struct DevFlags {
    /// How many nodes [default: 3, or as many as --data-dir has]
    #[arg(long, value_name = "N")]
    pub nodes: Option<usize>,
    /// Port of the first node; the others have the next ones, and health and metrics are 1000 above [default: 5000, or
    /// as --data-dir has it]
    #[arg(long, value_name = "PORT")]
    pub base_port: Option<u16>,
    /// Directory that keeps everything for the next time, and with it how many nodes there are and on which ports
    /// [default: a temporary one, deleted at the end, or by the next start if this one is killed]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Use a ZooKeeper that runs already, and start no keeper
    #[arg(long, value_name = "HOST[:PORT][,…][/ROOT]", conflicts_with = "keeper_port")]
    pub zookeeper: Option<String>,
    /// Port of the keeper [default: 2181]
    #[arg(long, value_name = "PORT")]
    pub keeper_port: Option<u16>,
    /// Start nodes again that have ended, whatever ended them
    #[arg(long)]
    pub restart: bool,
}

const EXAMPLES: &str = "Examples:\n  \
    kvd dev                                # 127.0.0.1:5000, 5001, 5002; all is deleted at the end\n  \
    kvd dev --data-dir dev-data --restart  # keeps the data; nodes that end come back\n  \
    kvd dev --nodes 5 --base-port 7000 --keeper-port 7100\n  \
    kvd dev --zookeeper 127.0.0.1:2181     # with a real ZooKeeper";

/// The shape of a cluster: the same at every start with one directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub(super) nodes: usize,
    pub(super) base_port: u16,
}

impl Shape {
    pub(super) const DEFAULT: Self = Self { nodes: 3, base_port: 5000 };

    /// The port of node `i`.
    pub(super) fn port(self, i: usize) -> u16 {
        self.base_port + u16::try_from(i).expect("a cluster is smaller than a u16")
    }

    /// Where node `i` answers for its health.
    pub(super) fn admin_port(self, i: usize) -> u16 {
        self.port(i) + ADMIN_OFFSET
    }

    /// Where clients reach node `i`.
    pub(super) fn endpoint(self, i: usize) -> String {
        format!("{HOST}:{}", self.port(i))
    }

    /// `--nodes 3 --base-port 5000`.
    pub(super) fn flags(self) -> String {
        format!("--nodes {} --base-port {}", self.nodes, self.base_port)
    }

    /// All ports that the nodes listen on.
    pub(super) fn ports(self) -> impl Iterator<Item = u16> {
        (0..self.nodes).flat_map(move |i| [self.port(i), self.admin_port(i)])
    }

    /// Checks that there are such clusters.
    pub(super) fn check(self) -> Result<Self, DevError> {
        if !(1..=MAX_MEMBERS).contains(&self.nodes) {
            return Err(DevError::Usage(format!("--nodes must be 1 to {MAX_MEMBERS}")));
        }
        let highest = usize::from(self.base_port) + usize::from(ADMIN_OFFSET) + self.nodes - 1;
        if self.base_port == 0 || highest > usize::from(u16::MAX) {
            let most = usize::from(u16::MAX) - usize::from(ADMIN_OFFSET) - self.nodes + 1;
            return Err(DevError::Usage(format!("--base-port must be 1 to {most} for this many nodes")));
        }
        Ok(self)
    }
}

/// What stands in ZooKeeper's place.
#[derive(Clone, Debug)]
pub(super) enum Coordination {
    /// A keeper in this process, on this port.
    Keeper(u16),
    /// A ZooKeeper that runs already; without a root, if none was written.
    ZooKeeper { connect: ConnectString, has_root: bool },
}

impl DevFlags {
    /// What stands in ZooKeeper's place for a cluster of this shape.
    pub(super) fn coordination(&self, shape: Shape) -> Result<Coordination, DevError> {
        let Some(text) = &self.zookeeper else {
            let port = self.keeper_port.unwrap_or(DEFAULT_PORT);
            if port == 0 || shape.ports().any(|taken| taken == port) {
                let reason = format!("--keeper-port {port}: choose a port that no node has, and not 0");
                return Err(DevError::Usage(reason));
            }
            return Ok(Coordination::Keeper(port));
        };
        match text.parse() {
            Ok(connect) => Ok(Coordination::ZooKeeper { connect, has_root: text.contains('/') }),
            Err(error) => Err(DevError::Usage(format!("--zookeeper: {error}"))),
        }
    }

    /// The cluster's shape: what the flags say, and else what the directory remembers.
    pub(super) fn shape(&self, remembered: Option<Shape>) -> Result<Shape, DevError> {
        let other = remembered.unwrap_or(Shape::DEFAULT);
        let wanted = Shape {
            nodes: self.nodes.unwrap_or(other.nodes),
            base_port: self.base_port.unwrap_or(other.base_port),
        };
        match remembered {
            Some(remembered) if remembered != wanted => {
                Err(DevError::OtherShape { remembered: remembered.flags() })
            }
            _ => wanted.check(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_remembers_its_cluster() {
        let old = Shape { nodes: 5, base_port: 7000 };
        assert_eq!(DevFlags::default().shape(None).expect("a shape"), Shape::DEFAULT);
        assert_eq!(DevFlags::default().shape(Some(old)).expect("a shape"), old);
        let same = DevFlags { nodes: Some(5), ..DevFlags::default() };
        assert_eq!(same.shape(Some(old)).expect("a shape"), old);
        let other = DevFlags { nodes: Some(3), ..DevFlags::default() };
        let error = other.shape(Some(old)).expect_err("another number of nodes").to_string();
        assert!(error.contains("--nodes 5 --base-port 7000"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_remedy() {
        let shape = |nodes, base_port| DevFlags {
            nodes: Some(nodes),
            base_port: Some(base_port),
            ..DevFlags::default()
        };
        for (flags, words) in [
            (shape(0, 5000), "--nodes must be 1 to 64"),
            (shape(65, 5000), "--nodes must be 1 to 64"),
            (shape(3, 0), "1 to 64533"),
            (shape(3, 64_534), "1 to 64533"),
        ] {
            let error = flags.shape(None).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(shape(3, 64_533).shape(None).is_ok());
        for port in [0, 5002, 6000] {
            let flags = DevFlags { keeper_port: Some(port), ..DevFlags::default() };
            let error = flags.coordination(Shape::DEFAULT).expect_err("a port of a node").to_string();
            assert!(error.contains("--keeper-port"), "{error}");
        }
        let flags = DevFlags { zookeeper: Some("a:b".to_owned()), ..DevFlags::default() };
        assert!(
            flags.coordination(Shape::DEFAULT).expect_err("no address").to_string().contains("--zookeeper")
        );
    }
}
