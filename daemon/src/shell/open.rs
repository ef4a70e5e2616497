//! Opening what a node has on disk, or what it has left of it.

use std::sync::Arc;

use quorumkv_protocol::client::DamagedPart;
use quorumkv_replica::Recovered;
use thiserror::Error;
use tokio::sync::mpsc;

use super::run::RunError;
use crate::config::Config;
use crate::data_dir::{DataDir, Membership};
use crate::metrics::Metrics;
use crate::net::Routes;
use crate::state::{OpenStateError, Options, State};
use crate::storage::{Journal, JournalOptions, OpenJournalError};

/// What a node has on disk.
pub(super) struct Opened {
    pub(super) data_dir: DataDir,
    pub(super) state: State,
    pub(super) journal: Journal,
    pub(super) recovered: Recovered,
    /// What of it was lost and set aside, if anything was.
    pub(super) lost: Option<(DamagedPart, String)>,
}

/// Opens what this node has on disk. If a part of that is lost, the node must not be who it was, since it may have promised
/// what it does not remember: all is set aside, and it begins anew, for the others to restore (DESIGN 8, amnesia).
pub(super) fn open(
    data_dir: DataDir,
    config: &Config,
    (routes, metrics): (&Arc<Routes>, &Arc<Metrics>),
    done: &mpsc::UnboundedSender<super::Done>,
) -> Result<Opened, RunError> {
    let open = |data_dir: &DataDir| {
        let state = State::open(&data_dir.state(), Options::with_cache(config.cache_bytes))?;
        let options = JournalOptions {
            must_exist: data_dir.identity().membership.is_some(),
            segment_bytes: config.log_segment_bytes,
            retain_bytes: config.log_retain_bytes,
        };
        let (routes, metrics) = (Arc::clone(routes), Arc::clone(metrics));
        let (journal, recovered) =
            Journal::open(&data_dir.log(), options, state.applied(), routes, done.clone(), metrics)?;
        let recovered = Recovered { damaged: state.is_marked_damaged(), ..recovered };
        Ok::<_, OpenError>((state, journal, recovered))
    };
    let others = |membership: &Membership| membership.configuration.voters.len() != 1;
    let has_others = data_dir.identity().membership.as_ref().is_some_and(others);
    let (data_dir, (state, journal, recovered), lost) = match open(&data_dir) {
        Ok(opened) => (data_dir, opened, None),
        Err(error) if error.is_loss(&data_dir) && has_others => {
            let old = data_dir.identity().node;
            let (data_dir, aside) = data_dir.set_aside()?;
            tracing::error!(
                %old, kept = %aside.display(),
                "a part of what this node had on disk is lost: {error}. It begins anew under another identity, to be restored from \
                 the other nodes"
            );
            let opened = open(&data_dir)?;
            let part =
                if matches!(error, OpenError::State(_)) { DamagedPart::State } else { DamagedPart::Log };
            let what = format!(
                "{error}, when it was started: it began anew, and what it had is in {}",
                aside.display()
            );
            (data_dir, opened, Some((part, what)))
        }
        Err(OpenError::Journal(error)) if error.is_loss() => {
            return Err(RunError::OnlyCopy(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Opened { data_dir, state, journal, recovered, lost })
}

/// Why what is on disk cannot be opened.
#[derive(Debug, Error)]
enum OpenError {
    #[error("the state: {0}")]
    State(#[from] OpenStateError),
    #[error("the log: {0}")]
    Journal(#[from] OpenJournalError),
}

impl OpenError {
    fn is_loss(&self, data_dir: &DataDir) -> bool {
        match self {
            Self::State(error) => error.is_damage(&data_dir.state()),
            Self::Journal(error) => error.is_loss(),
        }
    }
}

impl From<OpenError> for RunError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::State(error) => Self::State(error),
            OpenError::Journal(error) => Self::Journal(error.to_string()),
        }
    }
}
