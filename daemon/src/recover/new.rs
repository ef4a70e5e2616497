//! The directory of the new cluster's first node.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorumkv_protocol::entry::{Body, Entry, Reconfiguration};
use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::{ClusterId, EntryId, Epoch, NodeId};
use quorumkv_wal as wal;

use super::RecoverError;
use super::survivor::Survivor;
use crate::coordination::HostPort;
use crate::data_dir::{DataDir, Membership};
use crate::state::{Options, SnapshotSource, Staging, State};
use crate::storage::{mark, wal_epoch};

/// Bytes of the state that are copied at once, and entries that are applied at once.
const CHUNK_BYTES: usize = 4 << 20;
const BATCH: usize = 1024;

/// A cluster of one node that was just made.
#[derive(Debug)]
pub(super) struct NewCluster {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    /// Where the node is to be reached.
    pub(super) address: String,
    /// The entry that makes it the only member.
    pub(super) opening: EntryId,
}

/// The directory must be free, and apart from those that are left: it is made at once, when everything in it is complete.
pub(super) fn check_target(to: &Path, left: &[PathBuf]) -> Result<(), RecoverError> {
    let real = to.ancestors().find_map(|path| fs::canonicalize(path).ok());
    let inside = left.iter().find(|path| {
        fs::canonicalize(path).is_ok_and(|path| real.as_ref().is_some_and(|real| real.starts_with(path)))
    });
    if let Some(inside) = inside {
        return Err(RecoverError::Inside { to: to.to_owned(), inside: inside.clone() });
    }
    match fs::read_dir(to).map(Iterator::count) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) => Err(RecoverError::Occupied(to.to_owned())),
    }
}

impl NewCluster {
    /// Makes the directory `to` from the best that is left: its state, with all of its log applied, and one entry more.
    pub(super) fn make(
        best: &Survivor,
        survivors: &[Survivor],
        address: &HostPort,
        to: &Path,
    ) -> Result<Self, RecoverError> {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: &dyn std::fmt::Display| RecoverError::Make(error.to_string());
        let unfinished = tempfile::Builder::new()
            .prefix(".kvd-recover-")
            .tempdir_in(parent)
            .map_err(|error| failed(&error))?;
        let mut data_dir = DataDir::open(unfinished.path())?;
        let node = data_dir.identity().node;
        let highest = survivors.iter().map(|survivor| survivor.promise.counter()).max().unwrap_or(0);
        let opening = EntryId::new(Epoch::new(highest + 1, node), best.last.version.next());
        let member = Member { node, address: address.to_string() };
        let configuration = Configuration { id: opening, ..Configuration::first(vec![member]) };
        fill_state(best, &data_dir, opening, &configuration).map_err(|error| failed(&error))?;
        write_log(&data_dir, opening).map_err(|error| failed(&error))?;
        let cluster = ClusterId::new(rand::random());
        data_dir.join(Membership { cluster, configuration })?;
        drop(data_dir);
        fs::rename(unfinished.path(), to).map_err(|error| failed(&error))?;
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| failed(&error))?;
        // It has another name now.
        drop(unfinished.keep());
        Ok(Self { cluster, node, address: address.to_string(), opening })
    }
}

/// Copies the state, applies the entries after it, and makes the node of `configuration` the only member.
fn fill_state(
    best: &Survivor,
    data_dir: &DataDir,
    opening: EntryId,
    configuration: &Configuration,
) -> Result<(), Box<dyn std::error::Error>> {
    let state = State::open(&data_dir.state(), Options::default())?;
    let source = SnapshotSource::open(&best.state)?;
    let mut staging = Staging::begin(&state, source.identity())?;
    let total = best.state.disk_bytes()?;
    let mut progress = Progress::new();
    while let Some(position) = staging.position() {
        let chunk = source.chunk(&position.cursor, CHUNK_BYTES)?;
        progress.copied(chunk.data.len() as u64, total);
        staging.write(&chunk)?;
    }
    staging.install()?;
    for entries in best.unapplied.chunks(BATCH) {
        state.apply(entries)?;
    }
    let change = Reconfiguration { asked: None, configuration: configuration.clone() };
    state.apply(&[Entry { id: opening, body: Body::Configure(Box::new(change)) }])?;
    state.persist()?;
    Ok(())
}

/// Tells a person how far it is, once a second.
struct Progress {
    copied: u64,
    told: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { copied: 0, told: Instant::now() }
    }

    fn copied(&mut self, bytes: u64, total: u64) {
        self.copied += bytes;
        if self.told.elapsed() >= Duration::from_secs(1) && std::io::stderr().is_terminal() {
            self.told = Instant::now();
            // Nobody may be reading any more.
            let _ = writeln!(
                std::io::stderr(),
                "kvd: copied {} MiB of about {} MiB",
                self.copied >> 20,
                total.max(self.copied) >> 20
            );
        }
    }
}

/// Makes a log that goes on after the state.
fn write_log(data_dir: &DataDir, opening: EntryId) -> Result<(), Box<dyn std::error::Error>> {
    let (log, _) = wal::Log::open(data_dir.log(), wal::Options::default(), 0)?;
    let failed = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&failed);
    let mut writer = log.spawn(|_| {}, move |_| note.store(true, Ordering::Relaxed))?;
    let records = vec![
        wal::Record::Promise { epoch: wal_epoch(opening.epoch) },
        wal::Record::Base { mark: mark(opening) },
    ];
    let submitted = writer.submit(wal::Batch { records, ticket: () });
    writer.close();
    match submitted {
        Ok(()) if !failed.load(Ordering::Relaxed) => Ok(()),
        Ok(()) => Err("the log cannot be written".into()),
        Err(error) => Err(error.to_string().into()),
    }
}
