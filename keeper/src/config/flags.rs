//! Flags, `KEEPERD_…` variables and the TOML file, as people write them. All of it is optional here; what it means is
//! decided in the parent module.

use std::path::PathBuf;

use clap::Parser;
use clap::builder::BoolishValueParser;
use serde::Deserialize;

use super::settings::{Time, listed};
use crate::process::LogFormat;

/// A coordination server that any ZooKeeper client can use.
///
/// Every flag has a variable (KEEPERD_PORT for --port) and a key in the file of --config (port = 2181). Flags win over
/// variables, and variables over the file.
#[derive(Parser, Deserialize, Clone, Debug, Default)]
#[command(name = "keeperd", version, max_term_width = 110, after_help = EXAMPLE)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Flags {
    /// Address to listen on; other addresses than loopback need --insecure [default: 127.0.0.1]
    #[arg(long, env = "KEEPERD_HOST")]
    pub host: Option<String>,
    /// TCP port for clients; 0 for any that is free, which is printed [default: 2181]
    #[arg(long, env = "KEEPERD_PORT")]
    pub port: Option<u16>,
    /// Permit listening beyond loopback although clients may come unencrypted and unknown
    #[arg(
        long,
        env = "KEEPERD_INSECURE",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub insecure: Option<bool>,
    /// TCP port for clients that use TLS; needs --tls-cert and --tls-key [default: none]
    #[arg(long, env = "KEEPERD_SECURE_PORT", value_name = "PORT")]
    pub secure_port: Option<u16>,
    /// PEM file with the server's certificate, followed by those that vouch for it
    #[arg(long, env = "KEEPERD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, env = "KEEPERD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// PEM file with the certificates that vouch for clients; with it, TLS clients must show one [default: none]
    #[arg(long, env = "KEEPERD_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Directory for everything that this server keeps; created at its first start
    #[arg(long, env = "KEEPERD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The unit of session timeouts [default: 2s]
    #[arg(long, env = "KEEPERD_TICK_TIME", value_name = "TIME")]
    pub tick_time: Option<Time>,
    /// Shortest session timeout that a client gets [default: 2 ticks]
    #[arg(long, env = "KEEPERD_MIN_SESSION_TIMEOUT", value_name = "TIME")]
    pub min_session_timeout: Option<Time>,
    /// Longest session timeout that a client gets [default: 20 ticks]
    #[arg(long, env = "KEEPERD_MAX_SESSION_TIMEOUT", value_name = "TIME")]
    pub max_session_timeout: Option<Time>,
    /// Who may do everything: a user and the digest of user and password, as ZooKeeper has it [default: nobody]
    #[arg(long, env = "KEEPERD_SUPER_DIGEST", value_name = "USER:HASH")]
    pub super_digest: Option<String>,
    /// Four-letter words that are answered, or * for all [default: srvr]
    #[arg(long = "4lw", env = "KEEPERD_4LW", value_name = "WORD,…")]
    #[serde(rename = "4lw", deserialize_with = "listed")]
    pub four_letter_words: Option<String>,
    /// Most connections from one address; 0 for no bound [default: 60]
    #[arg(long, env = "KEEPERD_MAX_CLIENT_CNXNS", value_name = "N")]
    pub max_client_cnxns: Option<usize>,
    /// Most connections altogether; no more than there may be open files [default: 50000]
    #[arg(long, env = "KEEPERD_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// How often containers without children and TTL znodes are looked for [default: 1min]
    #[arg(long, env = "KEEPERD_CONTAINER_CHECK_INTERVAL", value_name = "TIME")]
    pub container_check_interval: Option<Time>,
    /// A snapshot is due after so many transactions [default: 100000]
    #[arg(long, env = "KEEPERD_SNAPSHOT_TXNS", value_name = "N")]
    pub snapshot_txns: Option<u64>,
    /// A snapshot is due after so much log, in KiB [default: 65536]
    #[arg(long, env = "KEEPERD_SNAPSHOT_KIB", value_name = "KIB")]
    pub snapshot_kib: Option<u64>,
    /// What makes the data larger is refused while the disk has less than this free, in MiB [default: 128]
    #[arg(long, env = "KEEPERD_MIN_FREE_MIB", value_name = "MIB")]
    pub min_free_mib: Option<u64>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,quorumkv_keeper::server=debug [default: info]
    #[arg(long, env = "KEEPERD_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log [default: human]
    #[arg(long, env = "KEEPERD_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// TOML file with any of these settings
    #[arg(long, env = "KEEPERD_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

const EXAMPLE: &str = "Example: a server for this machine\n  \
    keeperd --port 2181 --data-dir /var/lib/keeperd";
