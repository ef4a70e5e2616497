//! What is kept on disk: transactions in a log, and snapshots of the tree.
//!
//! | Path | Holds |
//! |---|---|
//! | `LOCK` | locked while a server runs |
//! | `format` | that this is a keeper's directory, and of which version |
//! | `log/` | the transactions, each with its zxid as its version |
//! | `snapshots/snapshot.<zxid>` | the tree as it was right after that transaction |
//!
//! A snapshot is exact, since it is made of a copy of the tree that nobody changes. The two newest are kept, and the log
//! from the older one on, so that a damaged newest snapshot costs nothing but time.
//!
//! After a write or sync has failed nothing is tried again and nothing becomes durable any more: the server has to end.

mod directory;
mod disk;
#[cfg(test)]
mod fuzz;
mod journal;
mod recover;
mod room;
mod snapshot;
mod snapshots;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorumkv_wal as wal;
use thiserror::Error;

use self::directory::DataDirectory;
pub use self::directory::DirectoryError;
pub use self::disk::Faults;
use self::journal::Journal;
use self::room::Room;
pub use self::snapshot::SnapshotError;
use self::snapshots::Snapshots;
use crate::tree::Tree;
use crate::txn::Txn;

/// When snapshots are made, and how the log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A snapshot is due after so many transactions. Default 100,000.
    pub snapshot_txns: u64,
    /// A snapshot is due after so many bytes of transactions. Default 64 MiB.
    pub snapshot_bytes: u64,
    /// The size of one file of the log, in bytes; two are allocated at the start. The largest transaction must fit into one.
    /// Default 16 MiB.
    pub segment_bytes: u64,
    /// While fewer bytes than this are free where the log is, [`Storage::is_nearly_full`]. What is on its way already, and
    /// what is still taken in then, must find room in them. Default 128 MiB.
    pub min_free_bytes: u64,
    /// Injects faults; for tests. Default none.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            snapshot_txns: 100_000,
            snapshot_bytes: 64 << 20,
            segment_bytes: 16 << 20,
            min_free_bytes: 128 << 20,
            faults: Faults::default(),
        }
    }
}

/// Why storage cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The log cannot be opened, or is damaged.
    #[error("the log cannot be opened: {}{}", chain(.0), if .0.is_loss() { RESTORE } else { "" })]
    Log(#[from] wal::OpenError),
    /// What the log holds cannot be read.
    #[error("the log cannot be read: {}", chain(.0))]
    Read(#[from] wal::ReadError),
    /// An intact record holds no transaction.
    #[error("the log's record {zxid:#x} is no transaction: {reason}")]
    NoTxn {
        /// Its place.
        zxid: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// There are transactions between the snapshot and the log that neither has.
    #[error(
        "transactions are missing: {snapshot}, and the log in {log} begins at zxid {first:#x}; restore the newer snapshots or \
         the older part of the log"
    )]
    Gap {
        /// The newest intact snapshot, or that there is none; and which are damaged.
        snapshot: String,
        /// The log's directory.
        log: PathBuf,
        /// The first transaction that the log has.
        first: u64,
    },
    /// A snapshot was written by another version of this software.
    #[error(transparent)]
    Snapshot(SnapshotError),
    /// The newest snapshot may be as good as it was, but cannot be read now.
    #[error(
        "{0}; if that does not pass, move the file away: the snapshot before it and the log may hold the same"
    )]
    Unreadable(SnapshotError),
    /// The system has no thread for what runs in the background.
    #[error("cannot start a thread of the storage: {0}")]
    Thread(#[from] std::io::Error),
}

/// What to do when a part of the log is lost.
const RESTORE: &str =
    "; nothing was changed: restore the data directory from a copy that is whole (docs/keeper.md, Damage)";

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The log and the snapshots, open for writing.
#[derive(Debug)]
pub struct Storage {
    journal: Journal,
    snapshots: Snapshots,
    room: Room,
    options: Options,
    // Last, so that the directory is free for others only when nothing is written any more.
    _directory: DataDirectory,
}

impl Storage {
    /// Opens a directory, which is made if it does not exist: loads the newest intact snapshot, and replays the log after it.
    ///
    /// `on_durable` is called on the log's thread with the zxid up to which transactions are on disk. `on_failure` is
    /// called at most once for the log and at most once for the snapshots, with what went wrong, for people: from then
    /// on nothing becomes durable, or no snapshot is made, and the server should end.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing was lost or changed then, except that a torn end of the log may have been cut off.
    pub fn open(
        dir: &Path,
        options: Options,
        on_durable: impl FnMut(i64) + Send + 'static,
        on_failure: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<(Self, Tree), OpenError> {
        let directory = DataDirectory::open(dir, &options.faults)?;
        let on_failure: OnFailure = Arc::new(on_failure);
        let recovered = recover::recover(&directory, &options)?;
        let journal = Journal::start(recovered.log, Box::new(on_durable), Arc::clone(&on_failure))?;
        let snapshots =
            Snapshots::new(directory.snapshots(), recovered.snapshots, recovered.replayed_bytes, on_failure);
        let room = Room::watch(directory.log(), options.faults.clone(), options.min_free_bytes)?;
        Ok((Self { journal, snapshots, room, options, _directory: directory }, recovered.tree))
    }

    /// Hands transactions to the log. Never waits: what the log has no room for is kept until it has.
    pub fn append(&mut self, txns: &[Arc<Txn>]) {
        if !txns.is_empty() {
            let bytes = self.journal.append(txns);
            self.snapshots.logged(bytes);
            self.room.take(bytes);
        }
    }

    /// Whether the disk is nearly full. Then nothing that makes the data larger should be taken in: what makes it smaller needs
    /// the log, too, and a server whose log cannot be written has to end.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.room.shortage().is_some()
    }

    /// Whether the log keeps up. While it does not, nothing new should be taken in.
    pub fn keeps_up(&mut self) -> bool {
        self.journal.push();
        self.journal.keeps_up()
    }

    /// Begins a snapshot of the tree if one is due, and trims the log when one is finished. Never waits.
    ///
    /// The tree must hold durable transactions only.
    pub fn maybe_snapshot(&mut self, tree: &Tree) {
        if let Some(dispensable) = self.snapshots.collect() {
            self.journal.trim(dispensable);
        }
        self.snapshots.maybe_begin(tree, &self.options, self.room.shortage());
    }

    /// Writes and syncs everything that was appended, and waits for a snapshot that has been begun. Blocks.
    pub fn close(self) {
        let Self { journal, snapshots, room: _, options: _, _directory } = self;
        journal.close();
        drop(snapshots);
    }
}

/// Told that storage has failed.
type OnFailure = Arc<dyn Fn(String) + Send + Sync>;

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").field("kept", &self.kept()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod tests;
