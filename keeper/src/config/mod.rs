//! What keeperd was told to be: checked once, here.

pub mod flags;
pub mod settings;

use std::time::Duration;

use clap::ArgMatches;
use thiserror::Error;

use crate::process::LogFormat;
use crate::server::{self, Limits, NoWord, Secure, Whitelist};
use crate::storage;
use flags::Flags;
use settings::{SettingError, Time, host, in_range};

/// Why other machines are let in only by who says that he knows.
const DANGER: &str = "keeperd lets everybody in unencrypted";

/// keeperd's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's.
    pub server: server::Config,
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
    /// `--data-dir` is missing.
    #[error("where should this server keep its data? give --data-dir DIR")]
    NoDataDir,
    /// One of the settings for TLS is there without another.
    #[error("--{given} needs --{missing} as well")]
    Tls {
        /// What is there.
        given: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// A port is given twice.
    #[error("--port and --secure-port are both {0}: they must differ")]
    SamePort(u16),
    /// No timeout is between these.
    #[error("--min-session-timeout ({min:?}) is above --max-session-timeout ({max:?})")]
    SessionTimeouts {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// `--super-digest` is no digest.
    #[error("--super-digest must be USER:HASH, where HASH is the Base64 of the SHA-1 of USER:PASSWORD")]
    SuperDigest,
    /// `--4lw` names no words.
    #[error("--4lw: {0}")]
    FourLetterWords(#[from] NoWord),
}

impl Config {
    /// Settings from flags and variables, with the file of `--config` behind them.
    ///
    /// # Errors
    /// What to mend, in one line.
    ///
    /// # Panics
    /// If the matches are not of the command of [`Flags`].
    pub fn from_matches(matches: &ArgMatches) -> Result<Self, ConfigError> {
        let flags = settings::layered(matches, |flags: &Flags| flags.config.clone())?;
        let (log, log_format) = (flags.log.clone(), flags.log_format);
        Ok(Self {
            server: server_config(flags)?,
            log: log.unwrap_or_else(|| "info".to_owned()),
            log_format: log_format.unwrap_or_default(),
        })
    }
}

fn server_config(flags: Flags) -> Result<server::Config, ConfigError> {
    let host = host(flags.host.clone(), flags.insecure, DANGER)?;
    let port = flags.port.unwrap_or(2181);
    let secure = secure(&flags)?;
    if port != 0 && secure.as_ref().is_some_and(|secure| secure.port == port) {
        return Err(ConfigError::SamePort(port));
    }
    let tick = time("tick-time", flags.tick_time)?.unwrap_or(Duration::from_secs(2));
    let min = time("min-session-timeout", flags.min_session_timeout)?;
    let max = time("max-session-timeout", flags.max_session_timeout)?;
    let bounds = (min.unwrap_or(tick * 2), max.unwrap_or(tick * 20));
    if bounds.0 > bounds.1 {
        return Err(ConfigError::SessionTimeouts { min: bounds.0, max: bounds.1 });
    }
    let max_connections = flags.max_connections.unwrap_or(50_000);
    in_range("max-connections", "1 to 1000000", (1..=1_000_000).contains(&max_connections))?;
    let snapshot_txns = flags.snapshot_txns.unwrap_or(100_000);
    in_range("snapshot-txns", "at least 1", snapshot_txns > 0)?;
    let snapshot_kib = flags.snapshot_kib.unwrap_or(64 << 10);
    in_range("snapshot-kib", "1 to 1073741824", (1..=1 << 30).contains(&snapshot_kib))?;
    let min_free_mib = flags.min_free_mib.unwrap_or(128);
    in_range("min-free-mib", "0 to 1073741824", (0..=1 << 30).contains(&min_free_mib))?;
    let data_dir = flags.data_dir.ok_or(ConfigError::NoDataDir)?;
    // What is told of it (`conf`, the log) can be used from anywhere. Only an empty path cannot be completed.
    let data_dir = std::path::absolute(&data_dir).map_err(|_| ConfigError::NoDataDir)?;
    Ok(server::Config {
        host,
        port,
        secure,
        tick,
        min_session_timeout: min,
        max_session_timeout: max,
        container_check_interval: time("container-check-interval", flags.container_check_interval)?
            .unwrap_or(Duration::from_secs(60)),
        super_digest: flags.super_digest.map(super_digest).transpose()?,
        four_letter_words: match flags.four_letter_words {
            Some(text) => text.parse()?,
            None => Whitelist::default(),
        },
        max_client_connections: flags.max_client_cnxns.unwrap_or(60),
        limits: Limits { connections: max_connections, ..Limits::default() },
        storage: storage::Options {
            snapshot_txns,
            snapshot_bytes: snapshot_kib << 10,
            min_free_bytes: min_free_mib << 20,
            ..storage::Options::default()
        },
        ..server::Config::new(data_dir)
    })
}

fn time(flag: &'static str, time: Option<Time>) -> Result<Option<Duration>, SettingError> {
    let Some(Time(time)) = time else { return Ok(None) };
    in_range(flag, "1ms to 1day", (1..=86_400_000).contains(&time.as_millis()))?;
    Ok(Some(time))
}

fn secure(flags: &Flags) -> Result<Option<Secure>, ConfigError> {
    let given = [
        ("secure-port", flags.secure_port.is_some()),
        ("tls-cert", flags.tls_cert.is_some()),
        ("tls-key", flags.tls_key.is_some()),
    ];
    match (flags.secure_port, &flags.tls_cert, &flags.tls_key) {
        (Some(port), Some(certificate), Some(key)) => Ok(Some(Secure {
            port,
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: flags.tls_client_ca.clone(),
        })),
        (None, None, None) if flags.tls_client_ca.is_none() => Ok(None),
        _ => {
            let name = |is: bool| given.iter().find(|(_, given)| *given == is).map(|(name, _)| *name);
            let missing = name(false).unwrap_or("secure-port");
            Err(ConfigError::Tls { given: name(true).unwrap_or("tls-client-ca"), missing })
        }
    }
}

/// The hash is 20 bytes, in Base64.
fn super_digest(text: String) -> Result<String, ConfigError> {
    let is_hash = |hash: &str| hash.len() == 28 && hash.ends_with('=');
    let is_digest = text.split_once(':').is_some_and(|(user, hash)| !user.is_empty() && is_hash(hash));
    if is_digest { Ok(text) } else { Err(ConfigError::SuperDigest) }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
