//! Becoming what another node is: a snapshot is gathered beside the state, then takes its place.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use quorumkv_protocol::EntryId;
use quorumkv_protocol::peer::{SnapshotChunk, SnapshotPosition};

use super::error::{InstallError, RestoreError};
use super::format::Malformed;
use super::snapshot;
use super::store::Store;
use super::{Shared, State};

/// A snapshot that is being received. Dropped before it is installed, it leaves nothing behind.
#[derive(Debug)]
pub struct Staging {
    shared: Arc<Shared>,
    store: Store,
    identity: EntryId,
    /// Where the next piece begins; `None`: there is none.
    next: Option<Bytes>,
}

/// What became of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The piece was there already, or comes too early; it changed nothing.
    Ignored,
    /// It was taken, and others follow.
    Continues,
    /// It was taken, and it was the last.
    Complete,
}

/// A moment in [`Staging::install`] after which the process may die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Sealed,
    Prepared,
    Switched,
    Removed,
}

impl Staging {
    /// Prepares to receive the snapshot of another node's state after `identity`.
    ///
    /// # Errors
    /// [`RestoreError::Database`]
    pub fn begin(state: &State, identity: EntryId) -> Result<Self, RestoreError> {
        let shared = state.shared.clone();
        let directory = shared.home.database(shared.next_database());
        directory.set_doomed(true);
        let store = Store::create(directory, shared.options)?;
        Ok(Self { shared, store, identity, next: Some(Bytes::new()) })
    }

    /// The last entry that the snapshot covers.
    #[must_use]
    pub const fn identity(&self) -> EntryId {
        self.identity
    }

    /// Which piece is needed next; `None` when all are there.
    #[must_use]
    pub fn position(&self) -> Option<SnapshotPosition> {
        self.next.clone().map(|cursor| SnapshotPosition { snapshot: self.identity, cursor })
    }

    /// Takes a piece, if it is the next: pieces may arrive repeatedly and in any order.
    ///
    /// # Errors
    /// See [`RestoreError`]. After any of them this snapshot can only be dropped.
    pub fn write(&mut self, chunk: &SnapshotChunk) -> Result<Progress, RestoreError> {
        let SnapshotChunk { position, next, data, checksum } = chunk;
        if position.snapshot != self.identity {
            return Err(RestoreError::OtherSnapshot { expected: self.identity, found: position.snapshot });
        }
        if self.next.as_ref() != Some(&position.cursor) {
            return Ok(Progress::Ignored);
        }
        let found = crc32c::crc32c(data);
        if found != *checksum {
            return Err(RestoreError::Checksum { expected: *checksum, found });
        }
        // Cursors grow, so that no source can keep a restore going for ever.
        if next.as_ref().is_some_and(|next| *next <= position.cursor) {
            return Err(Malformed("a cursor that does not lead on").into());
        }
        self.store.restore(snapshot::decode(data.clone(), self.identity)?)?;
        self.next.clone_from(next);
        Ok(if next.is_some() { Progress::Continues } else { Progress::Complete })
    }

    /// Makes the snapshot the state, durably. All handles to the state see it from then on; views that are open go on
    /// with the old one, which is removed after the last of them.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn install(self) -> Result<(), InstallError> {
        self.install_in_steps(|_| ())
    }

    /// Calls `after` wherever a crash would leave something different behind.
    pub(super) fn install_in_steps(self, mut after: impl FnMut(Step)) -> Result<(), InstallError> {
        let Self { shared, store, identity, next } = self;
        if next.is_some() {
            return Err(InstallError::Incomplete);
        }
        let writer = shared.lock_writer();
        let applied = shared.store.read().unwrap_or_else(PoisonError::into_inner).applied();
        if identity.version < applied.version {
            return Err(InstallError::Behind { snapshot: identity.version, applied: applied.version });
        }
        store.seal(identity)?;
        after(Step::Sealed);
        shared.home.prepare_current(store.directory().number()).map_err(InstallError::Switch)?;
        after(Step::Prepared);
        // From here on the files may be the state after a restart, even if the switch reports an error.
        store.directory().set_doomed(false);
        shared.home.switch_current().map_err(InstallError::Switch)?;
        after(Step::Switched);
        let mut current = shared.store.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::new(store));
        drop(current);
        old.directory().set_doomed(true);
        drop(old);
        after(Step::Removed);
        drop(writer);
        Ok(())
    }
}
