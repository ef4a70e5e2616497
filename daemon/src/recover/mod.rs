//! `kvd recover`: a new cluster from what is left of one that has lost its quorum for good, offline (docs/members.md).
//!
//! Of the directories that are left, the one with the best log is taken, as a new leader would take it: by the last entry's epoch
//! and version. Everything in it is kept, committed or not. What was acknowledged by others only is lost, and whether that can
//! be is known: if the nodes that are missing are too few to have committed anything without one of those that are left,
//! nothing is.

mod flags;
mod new;
mod report;
mod survivor;

pub use flags::RecoverFlags;

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use quorumkv_protocol::ClusterId;
use thiserror::Error;

use crate::coordination::{HostPort, HostPortError};
use crate::data_dir::DataDirError;
use crate::state::OpenStateError;
use new::NewCluster;
use report::Report;
use survivor::Survivor;

/// Why no cluster was made. What was there is as it was.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// `--address` is none.
    #[error("--address: {0}")]
    Address(#[from] HostPortError),
    /// A directory is not that of a node.
    #[error("{0} is no data directory of kvd: name those that held LOCK, node.json, log and state")]
    NoDataDir(PathBuf),
    /// A daemon runs with a directory.
    #[error("{0} is in use by a kvd that runs: stop it first")]
    InUse(PathBuf),
    /// A directory cannot be used.
    #[error(transparent)]
    DataDir(DataDirError),
    /// A node has never belonged to a cluster.
    #[error("the node of {0} has never belonged to a cluster: leave it out")]
    NoCluster(PathBuf),
    /// The directories are of different clusters.
    #[error("{path} is of cluster {found}, and the others are of {expected}: recover one cluster at a time")]
    OtherCluster {
        /// The odd one.
        path: PathBuf,
        /// Its cluster.
        found: ClusterId,
        /// That of the first directory.
        expected: ClusterId,
    },
    /// One node's directory is given twice, or a copy of it.
    #[error("{0} and {1} are of one node: leave one of them out")]
    Twice(PathBuf, PathBuf),
    /// A state cannot be used.
    #[error("the state in {path} cannot be used ({source}): leave it out")]
    State {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: OpenStateError,
    },
    /// A state is damaged.
    #[error(
        "the state in {path} is damaged ({what}): leave it out, or if there is no better one, take what can be read with --force"
    )]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// In which way.
        what: String,
    },
    /// A log cannot be used.
    #[error("the log in {path} cannot be used: {reason}")]
    Log {
        /// The data directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Those that are left can serve.
    #[error(
        "{present} of the {voters} nodes that vote are here, and {quorum} are a quorum: start them, and nothing is lost (--force makes a \
         new cluster all the same)"
    )]
    Quorum {
        /// Voters whose directories are there.
        present: usize,
        /// All voters.
        voters: usize,
        /// How many are enough.
        quorum: usize,
    },
    /// None of the nodes had a vote when they were last heard of.
    #[error(
        "the node of {0} had no vote by what it last knew (it was removed, or never promoted), so it may lack much; --force takes it all \
         the same"
    )]
    NoVoter(PathBuf),
    /// The new directory is to be inside one that is left.
    #[error("{to} is inside {inside}, which is not to be changed: name another directory")]
    Inside {
        /// The new directory.
        to: PathBuf,
        /// The one that is left.
        inside: PathBuf,
    },
    /// Nobody can connect to this address.
    #[error("--address: {0} is no address that others can connect to")]
    Unspecified(HostPort),
    /// There is something where the new directory is to be.
    #[error("{0} is there already, and not empty: name another directory")]
    Occupied(PathBuf),
    /// The new directory cannot be made.
    #[error("cannot make the new directory: {0}")]
    Make(String),
    /// The report cannot be written.
    #[error("cannot write to stdout: {0}")]
    Output(io::Error),
}

impl RecoverError {
    /// The exit code: those of kvctl (docs/kvctl.md).
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_)
            | Self::Unspecified(_)
            | Self::NoDataDir(_)
            | Self::Inside { .. }
            | Self::Occupied(_) => 2,
            Self::InUse(_)
            | Self::OtherCluster { .. }
            | Self::Twice(..)
            | Self::NoCluster(_)
            | Self::NoVoter(_)
            | Self::Damaged { .. }
            | Self::Quorum { .. } => 4,
            Self::DataDir(_) | Self::State { .. } | Self::Log { .. } | Self::Make(_) | Self::Output(_) => 1,
        }
    }
}

/// Makes the new cluster, or with `--dry-run` says what it would be.
///
/// # Errors
/// See [`RecoverError`].
pub fn run(flags: &RecoverFlags) -> Result<(), RecoverError> {
    let address: HostPort = flags.address.parse()?;
    if address.host().parse::<IpAddr>().is_ok_and(|host| host.is_unspecified()) {
        return Err(RecoverError::Unspecified(address));
    }
    new::check_target(&flags.to, &flags.directories)?;
    check_distinct(&flags.directories)?;
    let survivors = flags
        .directories
        .iter()
        .map(|path| Survivor::open(path, flags.force))
        .collect::<Result<Vec<_>, _>>()?;
    check_together(&survivors)?;
    // Of equal logs, the one with a state that is whole.
    let worth = |survivor: &&Survivor| (survivor.last, survivor.state_doubt.is_none());
    let best = survivors.iter().max_by_key(worth).expect("clap demands one directory");
    let report = Report::new(&survivors, best);
    match report.present_voters() {
        _ if flags.force => {}
        0 => return Err(RecoverError::NoVoter(best.path.clone())),
        _ if report.has_quorum() => return Err(report.quorum_error()),
        _ => {}
    }
    let made = match flags.dry_run {
        true => None,
        false => Some(NewCluster::make(best, &survivors, &address, &flags.to)?),
    };
    let text = if flags.json { report.json(made.as_ref()) } else { report.text(made.as_ref(), &flags.to) };
    writeln!(io::stdout(), "{text}").map_err(RecoverError::Output)
}

impl From<DataDirError> for RecoverError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Locked(path) => Self::InUse(path),
            other => Self::DataDir(other),
        }
    }
}

/// No directory is given twice.
fn check_distinct(directories: &[PathBuf]) -> Result<(), RecoverError> {
    let real: Vec<_> = directories.iter().map(|path| std::fs::canonicalize(path).ok()).collect();
    for (at, path) in real.iter().enumerate().filter(|(_, path)| path.is_some()) {
        if let Some(first) = real[..at].iter().position(|other| other == path) {
            return Err(RecoverError::Twice(directories[first].clone(), directories[at].clone()));
        }
    }
    Ok(())
}

/// All are of one cluster, and each of another node.
fn check_together(survivors: &[Survivor]) -> Result<(), RecoverError> {
    let expected = survivors[0].cluster;
    for (at, survivor) in survivors.iter().enumerate() {
        let Survivor { path, cluster: found, node, .. } = survivor;
        if *found != expected {
            return Err(RecoverError::OtherCluster { path: path.clone(), found: *found, expected });
        }
        if let Some(other) = survivors[..at].iter().find(|other| other.node == *node) {
            return Err(RecoverError::Twice(other.path.clone(), path.clone()));
        }
    }
    Ok(())
}
