//! What the replica keeps on disk, and the threads that keep it: the log's writer and the state's applier.

mod applier;
mod journal;
mod snapshots;

pub(crate) use applier::{Applier, Job};
pub(crate) use journal::{
    Journal, JournalOptions, OpenJournalError, entry_id, epoch, mark, read_entries, wal_epoch,
};
pub(crate) use snapshots::SnapshotServer;

use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{RequestId, Version};
use quorumkv_replica::requests::Known;
use quorumkv_replica::{Record, StateView, Unreadable};

use crate::fatal::die;
use crate::state::State;

/// The state as the replica sees it.
#[derive(Clone, Debug)]
pub(crate) struct StateHandle(pub(crate) State);

impl StateView for StateHandle {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Unreadable> {
        match self.0.get(key) {
            Ok(record) => Ok(record),
            Err(error) if error.is_damage() => {
                tracing::error!("the state is damaged: {error}");
                Err(Unreadable)
            }
            Err(error) => die(&format!("the state cannot be read: {error}")),
        }
    }

    fn configuration(&self) -> Configuration {
        self.0.configuration()
    }

    fn lookup(&self, request: RequestId, since: Version) -> Known {
        self.0.lookup(request, since)
    }
}
