//! Makes snapshots in the background, and removes those that are not needed any more.

use std::fs;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::snapshot::{self, Kept, SnapshotError};
use super::{OnFailure, Options};
use crate::tree::Tree;

/// How many are kept. The log reaches back to the oldest of them.
const KEPT: usize = 2;

/// What a znode takes in a snapshot besides its path and data, at most and roughly.
const ZNODE_BYTES: u64 = 64;

/// After one that could not be written, it is only after this time that another is tried to make room.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(10) };

/// The snapshots on disk, and the one that is being made.
pub(super) struct Snapshots {
    directory: PathBuf,
    /// Oldest first.
    kept: Vec<Kept>,
    /// Bytes of transactions that were logged since the last one was begun, whether it came to an end or not.
    logged_bytes: u64,
    /// Bytes that were logged between the newest and then, and bytes before the newest that the log still has, as far as they
    /// are known.
    since_newest: u64,
    before_newest: u64,
    /// When the last one could not be written, if it could not.
    gave_up: Option<Instant>,
    /// The zxid of the last one that was begun, whether it came to an end or not.
    tried: i64,
    running: Option<Running>,
    on_failure: OnFailure,
    failed: bool,
}

struct Running {
    zxid: i64,
    thread: JoinHandle<Result<Kept, SnapshotError>>,
}

impl Snapshots {
    /// Goes on with those that are on disk, oldest first.
    pub(super) fn new(directory: PathBuf, kept: Vec<Kept>, logged_bytes: u64, on_failure: OnFailure) -> Self {
        Self {
            directory,
            kept,
            logged_bytes,
            since_newest: 0,
            before_newest: 0,
            gave_up: None,
            tried: 0,
            running: None,
            on_failure,
            failed: false,
        }
    }

    pub(super) fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Notes that so many bytes of transactions were logged.
    pub(super) const fn logged(&mut self, bytes: u64) {
        self.logged_bytes += bytes;
    }

    /// Begins a snapshot if one is due and none is being made. `shortage`: what is free of a disk that is nearly full.
    pub(super) fn maybe_begin(&mut self, tree: &Tree, options: &Options, shortage: Option<u64>) {
        if self.running.is_some() || self.failed {
            return;
        }
        if self.is_due(tree, options) || shortage.is_some_and(|free| self.makes_room(tree, options, free)) {
            self.begin(tree.clone(), options);
        }
    }

    /// Whether there is room for one, and it is worth it for what the log and older snapshots take. Two are needed before these
    /// can go.
    fn makes_room(&self, tree: &Tree, options: &Options, free: u64) -> bool {
        let log = self.before_newest + self.since_newest + self.logged_bytes;
        let now = log + self.kept.iter().map(|kept| kept.bytes).sum::<u64>();
        let one = tree.data_bytes() + ZNODE_BYTES * tree.len() as u64;
        let is_worth_trying = self.gave_up.is_none_or(|at| at.elapsed() >= RETRY);
        tree.last_zxid() > self.newest().zxid.max(self.tried)
            && is_worth_trying
            && one + options.min_free_bytes / 2 <= free
            && now > 4 * (one + options.segment_bytes)
    }

    fn newest(&self) -> Kept {
        self.kept.last().copied().unwrap_or(Kept { zxid: 0, bytes: 0 })
    }

    /// However few transactions are to make a snapshot due: a large tree is not written again for little, since then most of
    /// what the disk does would be snapshots.
    fn is_due(&self, tree: &Tree, options: &Options) -> bool {
        let newest = self.newest();
        let txns =
            u64::try_from(tree.last_zxid() - newest.zxid.max(self.tried)).expect("the tree only goes on");
        let enough = txns >= options.snapshot_txns || self.logged_bytes >= options.snapshot_bytes;
        txns > 0 && enough && self.logged_bytes >= newest.bytes / 2
    }

    fn begin(&mut self, tree: Tree, options: &Options) {
        let (zxid, directory) = (tree.last_zxid(), self.directory.clone());
        // Half of what is kept free is for the log alone.
        let (faults, least) = (options.faults.clone(), options.min_free_bytes / 2);
        let work = move || {
            let begun = Instant::now();
            let kept = snapshot::write(&directory, &tree, &faults, least)?;
            tracing::info!(
                zxid = format_args!("{zxid:#x}"), znodes = tree.len(), bytes = kept.bytes, took = ?begun.elapsed(),
                "wrote a snapshot"
            );
            Ok(kept)
        };
        match std::thread::Builder::new().name("snapshot".to_owned()).spawn(work) {
            Ok(thread) => {
                self.since_newest += std::mem::take(&mut self.logged_bytes);
                self.tried = zxid;
                self.running = Some(Running { zxid, thread });
            }
            Err(error) => self.fail(format!("cannot start the thread that writes snapshots: {error}")),
        }
    }

    /// If a snapshot has been finished: removes those that are too many, and says up to which zxid the log can be trimmed.
    pub(super) fn collect(&mut self) -> Option<i64> {
        let running = self.running.take_if(|running| running.thread.is_finished())?;
        self.finish(running)
    }

    fn finish(&mut self, running: Running) -> Option<i64> {
        match running.thread.join() {
            Ok(Ok(kept)) => {
                self.kept.push(kept);
                self.gave_up = None;
            }
            // The log is whole, and holds what the snapshot would have held: it is tried again when as much has been logged.
            Ok(Err(error)) => {
                tracing::error!("{error}; the log keeps growing until a snapshot can be written");
                self.gave_up = Some(Instant::now());
                return None;
            }
            Err(_) => {
                self.fail(format!(
                    "the thread that writes the snapshot of zxid {:#x} has panicked",
                    running.zxid
                ));
                return None;
            }
        }
        while self.kept.len() > KEPT {
            let path = snapshot::path(&self.directory, self.kept[0].zxid);
            if let Err(error) = fs::remove_file(&path) {
                // It does no harm; it is tried again after the next snapshot.
                tracing::warn!("cannot remove the old snapshot {}: {error}", path.display());
                break;
            }
            self.kept.remove(0);
        }
        let since_newest = std::mem::take(&mut self.since_newest);
        // With one snapshot alone, the log has to make up for it.
        if self.kept.len() < KEPT {
            self.before_newest += since_newest;
            return None;
        }
        self.before_newest = since_newest;
        Some(self.kept[self.kept.len() - KEPT].zxid)
    }

    /// Waits for the snapshot that is being made. Blocks.
    pub(super) fn wait(&mut self) -> Option<i64> {
        let running = self.running.take()?;
        self.finish(running)
    }

    fn fail(&mut self, reason: String) {
        self.failed = true;
        (self.on_failure)(reason);
    }
}

impl Drop for Snapshots {
    /// The directory must not be given to others while something is written to it.
    fn drop(&mut self) {
        self.wait();
    }
}
