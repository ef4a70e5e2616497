//! A node's directory, as it was left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{ClusterId, EntryId, Epoch, NodeId};
use quorumkv_wal as wal;

use super::RecoverError;
use crate::data_dir::DataDir;
use crate::state::{Options, State};
use crate::storage::{entry_id, epoch, read_entries};

/// Bytes of the log that are read at once.
const READ_BYTES: u64 = 4 << 20;

/// What one node has left. Nothing of it is changed, but for what the crash of a process leaves torn in the state's journal.
#[derive(Debug)]
pub(super) struct Survivor {
    pub(super) path: PathBuf,
    pub(super) node: NodeId,
    pub(super) cluster: ClusterId,
    pub(super) state: State,
    /// The last entry of the state: it is known to be committed, with all before it.
    pub(super) applied: EntryId,
    /// The last entry of the log, or of the state if that is further.
    pub(super) last: EntryId,
    /// The highest epoch that it has promised or seen in its log.
    pub(super) promise: Epoch,
    /// Why the log says nothing about what was committed after the state, if it does not.
    pub(super) log_lost: Option<String>,
    /// Why the state may not be what it should be.
    pub(super) state_doubt: Option<String>,
    /// The entries after the state.
    pub(super) unapplied: Vec<Arc<Entry>>,
    /// Keeps a daemon from using it meanwhile.
    _held: DataDir,
}

impl Survivor {
    /// With `force`, a state that is damaged is taken as far as it can be read.
    pub(super) fn open(path: &Path, force: bool) -> Result<Self, RecoverError> {
        if !path.join("node.json").is_file() {
            return Err(RecoverError::NoDataDir(path.to_owned()));
        }
        let data_dir = DataDir::open(path)?;
        let identity = data_dir.identity().clone();
        let membership = identity.membership.ok_or_else(|| RecoverError::NoCluster(path.to_owned()))?;
        let state = State::open(&data_dir.state(), Options::default())
            .map_err(|source| RecoverError::State { path: path.to_owned(), source })?;
        let state_doubt = match check_state(path, &state) {
            Err(RecoverError::Damaged { what, .. }) if force => Some(what),
            checked => checked.map(|()| None)?,
        };
        let applied = state.applied();
        let mut survivor = Self {
            path: path.to_owned(),
            node: identity.node,
            cluster: membership.cluster,
            state,
            applied,
            last: applied,
            promise: applied.epoch,
            log_lost: None,
            state_doubt,
            unapplied: Vec::new(),
            _held: data_dir,
        };
        survivor.read_log()?;
        Ok(survivor)
    }

    fn read_log(&mut self) -> Result<(), RecoverError> {
        let failed = |reason: String| RecoverError::Log { path: self.path.clone(), reason };
        let (reader, found) = match wal::Log::read_only(self._held.log()) {
            Ok(Some(read)) => read,
            Ok(None) => {
                self.log_lost = Some("it is missing".to_owned());
                return Ok(());
            }
            Err(error) if error.is_loss() => {
                self.log_lost = Some(error.to_string());
                return Ok(());
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        self.promise = self.promise.max(found.promise.map_or(Epoch::ZERO, epoch));
        if reader.mark(self.applied.version.get()).map(entry_id) != Some(self.applied) {
            // The state is ahead of it, or it begins after it.
            let base = entry_id(found.base);
            if base.version > self.applied.version {
                self.log_lost = Some(format!("it begins after entry {base}, and the state ends before"));
            }
            return Ok(());
        }
        self.last = entry_id(found.last);
        self.promise = self.promise.max(self.last.epoch);
        let mut next = self.applied.version.next();
        while next <= self.last.version {
            let entries =
                read_entries(&reader, next, READ_BYTES).map_err(|error| failed(error.to_string()))?;
            self.unapplied.extend(entries);
            next = self.unapplied.last().map_or(next, |entry| entry.id.version.next());
        }
        Ok(())
    }

    /// The configurations by which its log may have been committed from the state on: the newest last.
    pub(super) fn configurations(&self) -> Vec<Configuration> {
        let logged = self.unapplied.iter().filter_map(|entry| entry.configuration().cloned());
        std::iter::once(self.state.configuration()).chain(logged).collect()
    }
}

fn check_state(path: &Path, state: &State) -> Result<(), RecoverError> {
    let damaged = |what| RecoverError::Damaged { path: path.to_owned(), what };
    if state.is_marked_damaged() {
        return Err(damaged("its node had found that".to_owned()));
    }
    match state.find_damage() {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(damaged(what)),
        Err(error) => Err(damaged(error.to_string())),
    }
}
