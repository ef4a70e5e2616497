//! What a node was told to be: checked once, here.

pub mod flags;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use quorumkv_keeper::config::settings::{self, SettingError, Time, host, in_range};
use quorumkv_keeper::process::LogFormat;
use quorumkv_protocol::membership::MAX_MEMBERS;
use thiserror::Error;

use crate::coordination::{ConnectString, ConnectStringError, HostPort, HostPortError};
use flags::Flags;

pub use flags::Storage;

/// Why other machines are let in only by who says that he knows.
const DANGER: &str = "kvd neither encrypts nor asks for passwords";

/// The longest time that can be set: multiples of it are still times.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The file system that Linux keeps in memory.
const MEMORY: &str = "/dev/shm";

/// A node's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port for clients and nodes.
    pub port: u16,
    /// How other nodes reach this one.
    pub advertise: HostPort,
    /// The ZooKeeper servers.
    pub zookeeper: ConnectString,
    /// Of the ZooKeeper session.
    pub session_timeout: Duration,
    /// Nodes at the first start.
    pub cluster_size: usize,
    /// Whether what this node keeps outlives its process.
    pub storage: Storage,
    /// Everything that this node keeps.
    pub data_dir: PathBuf,
    /// Port for health and metrics.
    pub admin_port: Option<u16>,
    /// Whether other machines may stop this node.
    pub allow_remote_kill: bool,
    /// Of the leader.
    pub heartbeat: Duration,
    /// How long the leader may be silent before a majority replaces it.
    pub failover_timeout: Duration,
    /// Longest time for a read.
    pub read_timeout: Duration,
    /// Most connections.
    pub max_connections: usize,
    /// Cache of the state, in bytes.
    pub cache_bytes: u64,
    /// Log kept for replicas that lag, in bytes.
    pub log_retain_bytes: u64,
    /// Size of one file of the log, in bytes.
    pub log_segment_bytes: u64,
    /// Free bytes of disk below which writes are refused.
    pub min_free_bytes: u64,
    /// What to log.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
}

/// Why the settings make no sense.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// One of those that all programs have.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// `--data-dir` with `--storage memory`.
    #[error("with --storage memory nothing is kept: leave out --data-dir, or --storage memory")]
    DataDirInMemory,
    /// `--data-dir` is missing.
    #[error(
        "where should this node keep its data? give --data-dir DIR (kvd dev runs a whole cluster to try out)"
    )]
    NoDataDir,
    /// `--port` is 0.
    #[error("--port must be 1 to 65535: other nodes and restarts need to find this one there")]
    NoPort,
    /// `--advertise` is missing where it cannot be guessed.
    #[error("--host {0} is no address that others can connect to: say --advertise HOST:PORT")]
    NoAdvertise(IpAddr),
    /// `--advertise` is no address.
    #[error("--advertise: {0}")]
    Advertise(HostPortError),
    /// `--zookeeper` is no connect string.
    #[error("--zookeeper: {0}")]
    ZooKeeper(ConnectStringError),
}

impl Config {
    /// Settings from flags and variables, with the file of `--config` behind them.
    ///
    /// # Errors
    /// What to mend, in one line.
    ///
    /// # Panics
    /// If the matches are not of the command of [`flags::CommandLine`].
    pub fn from_matches(matches: &ArgMatches) -> Result<Self, ConfigError> {
        Self::from_flags(settings::layered(matches, |flags: &Flags| flags.config.clone())?)
    }

    fn from_flags(flags: Flags) -> Result<Self, ConfigError> {
        let host = host(flags.host, flags.insecure, DANGER)?;
        let port = flags.port.unwrap_or(5000);
        if port == 0 {
            return Err(ConfigError::NoPort);
        }
        let admin_port = match flags.admin_port {
            Some(port) => (port != 0).then_some(port),
            None => {
                in_range("admin-port", "given (0 for none) where --port is above 64535", port <= 64_535)?;
                Some(port + 1000)
            }
        };
        let heartbeat = time("heartbeat", flags.heartbeat, Duration::from_millis(100))?;
        let failover_timeout = time("failover-timeout", flags.failover_timeout, heartbeat * 5)?;
        let is_longer = failover_timeout >= heartbeat * 2;
        in_range("failover-timeout", "at least two of the --heartbeat", is_longer)?;
        let cluster_size = flags.cluster_size.unwrap_or(3);
        in_range("cluster-size", "1 to 64", (1..=MAX_MEMBERS).contains(&cluster_size))?;
        let max_connections = flags.max_connections.unwrap_or(10_000);
        in_range("max-connections", "1 to 1000000", (1..=1_000_000).contains(&max_connections))?;
        let log_segment_kib = flags.log_segment_kib.unwrap_or(32 << 10);
        // A file of the log must hold the largest entry that a client can write.
        in_range("log-segment-kib", "16384 to 1048576", (16 << 10..=1 << 20).contains(&log_segment_kib))?;
        let advertise = advertise(flags.advertise, host, port)?;
        let storage = flags.storage.unwrap_or_default();
        Ok(Self {
            host,
            port,
            data_dir: data_dir(storage, flags.data_dir, &advertise)?,
            storage,
            advertise,
            zookeeper: zookeeper(flags.zookeeper, flags.zookeeper_port)?,
            session_timeout: time("session-timeout", flags.session_timeout, Duration::from_secs(6))?,
            cluster_size,
            admin_port,
            allow_remote_kill: flags.allow_remote_kill.unwrap_or(false),
            heartbeat,
            failover_timeout,
            read_timeout: time("read-timeout", flags.read_timeout, Duration::from_secs(30))?,
            max_connections,
            cache_bytes: amount("cache-mib", flags.cache_mib, 32)? << 20,
            log_retain_bytes: amount("log-retain-kib", flags.log_retain_kib, 64 << 10)? << 10,
            log_segment_bytes: log_segment_kib << 10,
            min_free_bytes: amount("min-free-mib", flags.min_free_mib, 256)? << 20,
            log: flags.log.unwrap_or_else(|| "info".to_owned()),
            log_format: flags.log_format.unwrap_or_default(),
        })
    }
}

fn time(flag: &'static str, time: Option<Time>, default: Duration) -> Result<Duration, SettingError> {
    let time = time.map_or(default, |Time(time)| time);
    in_range(flag, "above zero and at most 1day", !time.is_zero() && time <= LONGEST)?;
    Ok(time)
}

/// A number of KiB or MiB that is still a number in bytes.
fn amount(flag: &'static str, given: Option<u64>, default: u64) -> Result<u64, SettingError> {
    let amount = given.unwrap_or(default);
    in_range(flag, "0 to 1073741824", amount <= 1 << 30)?;
    Ok(amount)
}

/// Where a node keeps what it has. Without a disk that is in the file system that Linux keeps in memory.
fn data_dir(storage: Storage, given: Option<PathBuf>, address: &HostPort) -> Result<PathBuf, ConfigError> {
    match (storage, given) {
        (Storage::Disk, given) => given.ok_or(ConfigError::NoDataDir),
        (Storage::Memory, Some(_)) => Err(ConfigError::DataDirInMemory),
        (Storage::Memory, None) => {
            let name = address.to_string().replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
            Ok(Path::new(MEMORY).join(format!("kvd-{name}")))
        }
    }
}

fn advertise(text: Option<String>, host: IpAddr, port: u16) -> Result<HostPort, ConfigError> {
    match text {
        Some(text) => text.parse().map_err(ConfigError::Advertise),
        None if host.is_unspecified() => Err(ConfigError::NoAdvertise(host)),
        None => std::net::SocketAddr::new(host, port).to_string().parse().map_err(ConfigError::Advertise),
    }
}

/// The connect string, with `--zookeeper-port` for servers that are given without a port.
fn zookeeper(text: Option<String>, port: Option<u16>) -> Result<ConnectString, ConfigError> {
    let text = text.unwrap_or_else(|| "127.0.0.1".to_owned());
    let text = match port {
        Some(port) => {
            let (servers, root) = text.split_at(text.find('/').unwrap_or(text.len()));
            let has_port = |server: &str| server.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let servers: Vec<String> = servers
                .split(',')
                .map(|server| if has_port(server) { server.to_owned() } else { format!("{server}:{port}") })
                .collect();
            servers.join(",") + root
        }
        None => text,
    };
    text.parse().map_err(ConfigError::ZooKeeper)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
