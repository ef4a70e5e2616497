//! Brings back the tree: the newest snapshot that is intact, and the log after it.

use std::path::Path;

use quorumkv_wal as wal;

use super::directory::DataDirectory;
use super::disk::Faults;
use super::snapshot::{self, Kept, SnapshotError};
use super::{OpenError, Options, journal};
use crate::tree::Tree;

/// How much of the log is read at once.
const REPLAY_BYTES: u64 = if cfg!(test) { 1 << 10 } else { 4 << 20 };

/// What a directory holds.
pub(super) struct Recovered {
    pub(super) tree: Tree,
    pub(super) log: wal::Log,
    /// Snapshots that are on disk and not known to be damaged, oldest first.
    pub(super) snapshots: Vec<Kept>,
    /// Bytes of the transactions that were replayed.
    pub(super) replayed_bytes: u64,
}

/// Recovers a directory.
pub(super) fn recover(directory: &DataDirectory, options: &Options) -> Result<Recovered, OpenError> {
    let at = directory.snapshots();
    let mut snapshots = snapshot::list(&at).map_err(OpenError::Snapshot)?;
    // A snapshot holds durable transactions only, so the log must have reached it, even if it can no longer be read.
    let known_durable = snapshots.last().map_or(0, |newest| newest.zxid);
    let (tree, damaged) = load_newest(&at, &mut snapshots)?;
    let snapshot_zxid = tree.last_zxid();
    let (log, found) = open_log(&directory.log(), options, known_durable)?;
    if let Some(torn) = &found.torn {
        tracing::warn!(
            bytes = torn.bytes, segment = %torn.segment.display(),
            "cut off the log's torn end: a write that had not become durable"
        );
    }
    if version(snapshot_zxid) < found.base.version {
        let snapshot = describe(snapshots.last(), &damaged);
        return Err(OpenError::Gap { snapshot, log: directory.log(), first: found.base.version + 1 });
    }
    let (tree, replayed_bytes) = replay(&log, tree, found.last.version)?;
    for zxid in damaged {
        set_aside(&at, zxid, &options.faults);
    }
    tracing::info!(
        znodes = tree.len(),
        sessions = tree.sessions().count(),
        zxid = format_args!("{:#x}", tree.last_zxid()),
        snapshot = format_args!("{snapshot_zxid:#x}"),
        replayed = tree.last_zxid() - snapshot_zxid,
        "recovered"
    );
    Ok(Recovered { tree, log, snapshots, replayed_bytes })
}

/// The newest intact snapshot's tree, or an empty one; and the damaged ones that are newer, which are taken out of the list.
fn load_newest(directory: &Path, snapshots: &mut Vec<Kept>) -> Result<(Tree, Vec<i64>), OpenError> {
    let mut damaged = Vec::new();
    while let Some(newest) = snapshots.last() {
        match snapshot::read(directory, newest.zxid) {
            Ok(tree) => return Ok((tree, damaged)),
            Err(error @ SnapshotError::Format { .. }) => return Err(OpenError::Snapshot(error)),
            // It says nothing of what the file holds.
            Err(error @ SnapshotError::Io { .. }) => return Err(OpenError::Unreadable(error)),
            Err(error @ SnapshotError::Damaged { .. }) => {
                tracing::error!("{error}; going on with the snapshot before it and more of the log");
                damaged.push(newest.zxid);
                snapshots.pop();
            }
        }
    }
    Ok((Tree::new(), damaged))
}

/// Opens the log, which must reach a zxid that is known to be durable.
fn open_log(
    path: &Path,
    options: &Options,
    known_durable: i64,
) -> Result<(wal::Log, wal::Recovered), OpenError> {
    let wal_options = wal::Options {
        segment_bytes: options.segment_bytes,
        // Whatever comes while one sync runs is much less; what a group takes in memory stays taken.
        group_bytes: 1 << 20,
        // What waits must find room on a disk that is nearly full.
        queue_bytes: 16 << 20,
        faults: options.faults.hook.clone(),
        ..wal::Options::default()
    };
    Ok(wal::Log::open(path, wal_options, version(known_durable))?)
}

fn replay(log: &wal::Log, mut tree: Tree, last: u64) -> Result<(Tree, u64), OpenError> {
    let reader = log.reader();
    let mut bytes = 0;
    let mut next = version(tree.last_zxid()) + 1;
    while next <= last {
        for entry in reader.read(next, REPLAY_BYTES)? {
            tree.apply(&journal::decode(&entry)?);
            bytes += entry.payload.len() as u64;
            next = entry.mark.version + 1;
        }
    }
    Ok((tree, bytes))
}

fn describe(intact: Option<&Kept>, damaged: &[i64]) -> String {
    let mut text = match intact {
        Some(kept) => format!("the newest intact snapshot is of zxid {:#x}", kept.zxid),
        None => "there is no intact snapshot".to_owned(),
    };
    if !damaged.is_empty() {
        let list: Vec<_> = damaged.iter().map(|zxid| format!("{zxid:#x}")).collect();
        text += &format!(" (damaged: {})", list.join(", "));
    }
    text
}

/// Gives a damaged snapshot another name, so that it is neither counted nor removed: people may want to look at it.
fn set_aside(directory: &Path, zxid: i64, faults: &Faults) {
    let path = snapshot::path(directory, zxid);
    let aside = directory.join(format!("damaged.{zxid:016x}"));
    match faults.rename(&path, &aside) {
        Ok(()) => tracing::warn!("the damaged snapshot is now {}", aside.display()),
        Err(error) => tracing::warn!("cannot rename the damaged snapshot {}: {error}", path.display()),
    }
}

fn version(zxid: i64) -> u64 {
    u64::try_from(zxid).expect("a zxid is not negative")
}
