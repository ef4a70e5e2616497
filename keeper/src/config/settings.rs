//! What the settings of this project's programs have in common: flags win over variables and variables over a TOML file,
//! and what is written in them is read in one way.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, FromArgMatches};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// Why settings make no sense, whichever program's they are.
#[derive(Debug, Error)]
pub enum SettingError {
    /// The file cannot be opened or read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key or value that the program does not know.
    #[error("the configuration file {path} is not understood, line {line}: {problem}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Why.
        problem: String,
    },
    /// `--host` is no IP address.
    #[error("--host {0:?} is no IP address (127.0.0.1 for this machine only, 0.0.0.0 for all interfaces)")]
    Host(String),
    /// `--host` is open to other machines.
    #[error(
        "--host {host} can be reached from other machines, and {danger}: \
         listen on 127.0.0.1, or say --insecure if the network is safe"
    )]
    NotLoopback {
        /// The address.
        host: IpAddr,
        /// What is dangerous about it.
        danger: &'static str,
    },
    /// A setting is out of range.
    #[error("--{flag} must be {range}")]
    Range {
        /// The flag.
        flag: &'static str,
        /// What it may be.
        range: &'static str,
    },
}

/// The settings that these flags and variables come to. `file` names the file behind them, if they do.
///
/// # Errors
/// The file's.
///
/// # Panics
/// If the matches are not of a command with the flags of `F`, or these are not all optional.
pub fn layered<F: FromArgMatches + DeserializeOwned>(
    matches: &ArgMatches,
    file: impl Fn(&F) -> Option<PathBuf>,
) -> Result<F, SettingError> {
    let given = F::from_arg_matches(matches).expect("optional flags of this command");
    let Some(path) = file(&given) else { return Ok(given) };
    let mut all: F = from_file(&path)?;
    all.update_from_arg_matches(matches).expect("optional flags of this command");
    Ok(all)
}

fn from_file<F: DeserializeOwned>(path: &Path) -> Result<F, SettingError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingError::Read { path: path.to_owned(), source })?;
    from_text(path, &text)
}

/// The settings in the text of a file.
///
/// # Errors
/// [`SettingError::Parse`].
pub fn from_text<F: DeserializeOwned>(path: &Path, text: &str) -> Result<F, SettingError> {
    toml::from_str(text).map_err(|error| SettingError::Parse {
        path: path.to_owned(),
        line: 1 + error.span().map_or(0, |span| text[..span.start].matches('\n').count()),
        problem: error.message().replace('\n', " ") + if is_zoo_cfg(text) { NO_ZOO_CFG } else { "" },
    })
}

/// What is said of a file of ZooKeeper's.
const NO_ZOO_CFG: &str = " (it looks like ZooKeeper's zoo.cfg; this file is TOML with the names of the flags: tick-time = 2000, data-dir = \"…\")";

fn is_zoo_cfg(text: &str) -> bool {
    let names = ["tickTime", "dataDir", "clientPort", "initLimit", "syncLimit"];
    text.lines().any(|line| line.split_once('=').is_some_and(|(name, _)| names.contains(&name.trim())))
}

/// A list in a file: of several texts, or in one text with commas between them, as in a flag.
///
/// # Errors
/// It is neither.
pub fn listed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "neither a text nor a list of texts")]
    enum Listed {
        Text(String),
        List(Vec<String>),
    }
    Ok(Some(match Listed::deserialize(deserializer)? {
        Listed::Text(text) => text,
        Listed::List(list) => list.join(","),
    }))
}

/// Variables of the environment that begin with this program's prefix (`KEEPERD_`) and mean nothing to `command`.
#[must_use]
pub fn unknown_variables(
    prefix: &str,
    command: &Command,
    environment: impl Iterator<Item = String>,
) -> Vec<String> {
    let known: Vec<_> = command.get_arguments().filter_map(Arg::get_env).collect();
    environment.filter(|name| name.starts_with(prefix) && !known.contains(&OsStr::new(name))).collect()
}

/// The address to listen on: that of `--host`, and 127.0.0.1 without one. Others than loopback need `--insecure`, because of
/// the `danger` that there is.
///
/// # Errors
/// [`SettingError::Host`], [`SettingError::NotLoopback`].
pub fn host(
    text: Option<String>,
    insecure: Option<bool>,
    danger: &'static str,
) -> Result<IpAddr, SettingError> {
    let text = text.unwrap_or_else(|| "localhost".to_owned());
    let host: IpAddr = match text.as_str() {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => text.parse().map_err(|_| SettingError::Host(text))?,
    };
    if host.is_loopback() || insecure == Some(true) {
        Ok(host)
    } else {
        Err(SettingError::NotLoopback { host, danger })
    }
}

/// Refuses a setting unless it is in its range.
///
/// # Errors
/// [`SettingError::Range`].
pub fn in_range(flag: &'static str, range: &'static str, is: bool) -> Result<(), SettingError> {
    if is { Ok(()) } else { Err(SettingError::Range { flag, range }) }
}

/// A time as people write it: `500ms`, `2s`, `1min`, or a number alone, which is milliseconds, as in ZooKeeper's files.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(try_from = "Written")]
pub struct Time(pub Duration);

/// A text says no time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("it is no time (write 500ms, 2s, 1min, or 2000 for milliseconds)")]
pub struct NoTime;

/// A time in a file.
#[derive(Deserialize)]
#[serde(untagged, expecting = "no time (write 2000 for milliseconds, or \"500ms\", \"2s\", \"1min\")")]
enum Written {
    Milliseconds(u64),
    Text(String),
}

impl TryFrom<Written> for Time {
    type Error = NoTime;

    fn try_from(written: Written) -> Result<Self, NoTime> {
        match written {
            Written::Milliseconds(number) => Ok(Self(Duration::from_millis(number))),
            Written::Text(text) => text.parse(),
        }
    }
}

impl FromStr for Time {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        match text.trim().parse() {
            Ok(number) => Ok(Self(Duration::from_millis(number))),
            Err(_) => humantime::parse_duration(text).map(Self).map_err(|_| NoTime),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_milliseconds() {
        let time = |text: &str| text.parse().map(|Time(duration)| duration.as_millis());
        assert_eq!(time("2000"), Ok(2000));
        assert_eq!(time("2000ms"), Ok(2000));
        assert_eq!(time("1min 2s"), Ok(62_000));
        for wrong in ["", "soon", "-1", "2.5", "99999999999999999999"] {
            assert_eq!(time(wrong), Err(NoTime), "{wrong:?}");
        }
    }

    #[test]
    fn variables_that_mean_nothing_are_found() {
        let command = Command::new("p").arg(Arg::new("port").long("port").env("P_PORT"));
        let environment = ["P_PORT", "P_PROT", "PATH"].map(ToOwned::to_owned);
        assert_eq!(unknown_variables("P_", &command, environment.into_iter()), ["P_PROT"]);
    }

    #[test]
    fn only_loopback_needs_no_permission() {
        let host = |text: &str, insecure| host(Some(text.to_owned()), insecure, "that is bad");
        assert_eq!(host("localhost", None).expect("this machine"), Ipv4Addr::LOCALHOST);
        assert!(host("127.0.0.2", None).is_ok() && host("::1", Some(false)).is_ok());
        assert!(host("0.0.0.0", Some(true)).is_ok());
        let refused = host("0.0.0.0", Some(false)).expect_err("not loopback").to_string();
        assert!(refused.contains("that is bad") && refused.contains("--insecure"), "{refused}");
        assert!(host("here", Some(true)).expect_err("a name").to_string().contains("IP address"));
    }
}
