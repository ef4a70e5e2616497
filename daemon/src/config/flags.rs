//! Flags, `KVD_…` variables and the TOML file, as people write them. All of it is optional here; what it means is
//! decided in the parent module.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use quorumkv_keeper::config::settings::Time;
use quorumkv_keeper::process::LogFormat;
use serde::Deserialize;

use crate::dev::DevFlags;
use crate::recover::RecoverFlags;

/// A node of a replicated key-value store: ZooKeeper names the leader, a quorum decides, any node answers.
///
/// Every flag has a variable (KVD_PORT for --port) and a key in the file of --config (port = 5000). Flags win over
/// variables, and variables over the file. For a whole cluster on this machine: kvd dev
#[derive(Parser, Debug)]
#[command(
    name = "kvd",
    version,
    max_term_width = 110,
    after_help = EXAMPLE,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct CommandLine {
    /// Something else than one node.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A node's settings.
    #[command(flatten)]
    pub node: Flags,
    /// Stop the node when its standard input is closed: whoever started it is gone then.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// What `kvd` can do besides being a node.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a whole cluster on this machine, with its own keeper in ZooKeeper's place: for trying out and developing
    ///
    /// Starts a keeper in this process and every node as a process of its own, says where they are, and tells what
    /// happens to them. Nodes can be killed and started again, by hand or with --restart. Ctrl-C stops everything.
    Dev(DevFlags),
    /// Make a new cluster from what is left of one that has lost its quorum for good
    ///
    /// Takes the best of the data directories that are left, as a new leader would, and makes from it the directory of a new cluster's
    /// first node, which further nodes can join. Says which versions are kept, and which may be lost.
    Recover(RecoverFlags),
}

/// Whether what a node keeps outlives its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// It does.
    #[default]
    Disk,
    /// It does not: a node that starts is a new one.
    Memory,
}

// No doc comment: clap would take it for the text above the help.
#[allow(missing_docs, reason = "the settings of one node, as people write them")]
#[derive(Args, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Flags {
    /// Address to listen on; other addresses than loopback need --insecure [default: 127.0.0.1]
    #[arg(long, env = "KVD_HOST")]
    pub host: Option<String>,
    /// TCP port for clients and other nodes [default: 5000]
    #[arg(long, env = "KVD_PORT")]
    pub port: Option<u16>,
    /// HOST:PORT by which other nodes reach this one [default: host and port]
    #[arg(long, env = "KVD_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Permit listening beyond loopback although nothing is encrypted and nobody is asked for a password
    #[arg(
        long,
        env = "KVD_INSECURE",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub insecure: Option<bool>,
    /// The ZooKeeper servers, and the znode to keep everything under [default: 127.0.0.1:2181/quorumkv]
    #[arg(long, env = "KVD_ZOOKEEPER", value_name = "HOST[:PORT][,…][/ROOT]")]
    pub zookeeper: Option<String>,
    /// Port of the ZooKeeper servers that are given without one [default: 2181]
    #[arg(long, env = "KVD_ZOOKEEPER_PORT", value_name = "PORT")]
    pub zookeeper_port: Option<u16>,
    /// After this time without a node, ZooKeeper has another elected [default: 6s]
    #[arg(long, env = "KVD_SESSION_TIMEOUT", value_name = "TIME")]
    pub session_timeout: Option<Time>,
    /// Nodes that form the cluster at its first start [default: 3]
    #[arg(long, env = "KVD_CLUSTER_SIZE", value_name = "N")]
    pub cluster_size: Option<usize>,
    /// Directory for everything that this node keeps; created at its first start
    #[arg(long, env = "KVD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Whether data outlives the process. In memory every start is one with a lost disk: the node is restored from the others
    /// [default: disk]
    #[arg(long, env = "KVD_STORAGE", value_name = "WHERE")]
    pub storage: Option<Storage>,
    /// Port for /metrics, /health/live and /health/ready; 0 for none [default: 1000 above --port]
    #[arg(long, env = "KVD_ADMIN_PORT", value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Permit `kvctl kill` from other machines
    #[arg(
        long,
        env = "KVD_ALLOW_REMOTE_KILL",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub allow_remote_kill: Option<bool>,
    /// How often the leader tells the others that it leads [default: 100ms]
    #[arg(long, env = "KVD_HEARTBEAT", value_name = "TIME")]
    pub heartbeat: Option<Time>,
    /// A leader that a majority has not heard for this time is replaced, without waiting for its ZooKeeper session; several
    /// heartbeats [default: five]
    #[arg(long, env = "KVD_FAILOVER_TIMEOUT", value_name = "TIME")]
    pub failover_timeout: Option<Time>,
    /// Longest time that a read may take before it gives up [default: 30s]
    #[arg(long, env = "KVD_READ_TIMEOUT", value_name = "TIME")]
    pub read_timeout: Option<Time>,
    /// Most client connections [default: 10000]
    #[arg(long, env = "KVD_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Memory for what was read of the state lately, rows and blocks of tables, in MiB [default: 32]
    #[arg(long, env = "KVD_CACHE_MIB", value_name = "MIB")]
    pub cache_mib: Option<u64>,
    /// Log kept for replicas that lag, in KiB; who lags further is sent a snapshot [default: 65536]
    #[arg(long, env = "KVD_LOG_RETAIN_KIB", value_name = "KIB")]
    pub log_retain_kib: Option<u64>,
    /// Size of one file of the log, in KiB [default: 32768]
    #[arg(long, env = "KVD_LOG_SEGMENT_KIB", value_name = "KIB")]
    pub log_segment_kib: Option<u64>,
    /// Writes are refused when the disk has less free than this, in MiB [default: 256]
    #[arg(long, env = "KVD_MIN_FREE_MIB", value_name = "MIB")]
    pub min_free_mib: Option<u64>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,kvd::election=debug [default: info]
    #[arg(long, env = "KVD_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log [default: human]
    #[arg(long, env = "KVD_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// TOML file with any of these settings
    #[arg(long, env = "KVD_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

const EXAMPLE: &str = "Examples: a cluster to try out; a node of a cluster of three on one machine\n  \
    kvd dev\n  \
    kvd --port 5000 --zookeeper 127.0.0.1:2181 --cluster-size 3 --data-dir /var/lib/kvd-5000";
