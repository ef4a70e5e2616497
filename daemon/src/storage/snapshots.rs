//! Serving this node's state to replicas that are too far behind for the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorumkv_protocol::client::SnapshotProgress;
use quorumkv_protocol::peer::{SnapshotChunk, SnapshotPosition};
use quorumkv_protocol::{NodeId, Version};

use crate::fatal::die;
use crate::metrics::Metrics;
use crate::state::{ChunkError, ReadError, SnapshotSource, State};

/// Bytes of one piece.
const CHUNK_BYTES: usize = 1 << 20;

/// A snapshot that nobody has asked about for this long is let go: it keeps replaced values on the disk.
const IDLE: Duration = Duration::from_secs(60);

/// The longest rest before a piece is sent. Replicas ask again after some times as long.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// One open snapshot for each replica that is being restored.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotServer {
    state: State,
    metrics: Arc<Metrics>,
    open: Arc<Mutex<HashMap<NodeId, Open>>>,
}

#[derive(Clone, Debug)]
struct Open {
    source: Arc<SnapshotSource>,
    /// When a piece was sent last.
    used: Instant,
    /// Writes that had come by then.
    writes: u64,
    sent: u64,
    /// Bytes of the state when the snapshot was opened: what it comes to, more or less.
    total: u64,
}

/// Why a piece cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The state cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The place to go on is no such place, or the state cannot be read.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

impl ServeError {
    /// Whether what the state holds is damaged.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Read(error) => error.is_damage(),
            Self::Chunk(error) => error.is_damage(),
        }
    }
}

impl SnapshotServer {
    pub(crate) fn new(state: State, metrics: Arc<Metrics>) -> Self {
        Self { state, metrics, open: Arc::default() }
    }

    /// The piece at `resume` if that snapshot is still held for the replica; else the first piece of a new one. Blocks.
    ///
    /// While this node leads and clients write, the replica is kept waiting for as long as it has taken for the piece before: it is
    /// restored in half of the time, and the other half of the disks and processors is the clients'. A contender that needs the state to
    /// lead is not kept waiting.
    pub(crate) fn chunk(
        &self,
        node: NodeId,
        resume: Option<&SnapshotPosition>,
    ) -> Result<SnapshotChunk, ServeError> {
        let held = self.held(node);
        let (mut snapshot, cursor) = match (held, resume) {
            (Some(held), Some(resume)) if held.source.identity() == resume.snapshot => {
                (held, resume.cursor.clone())
            }
            _ => {
                let source = SnapshotSource::open(&self.state).map_err(|error| match error {
                    failed if failed.is_failed_write() => die(&failed.to_string()),
                    other => other,
                })?;
                let source = Arc::new(source);
                // It is only told to people.
                let total = self.state.disk_bytes().unwrap_or_default();
                let writes = self.metrics.writes();
                (Open { source, used: Instant::now(), writes, sent: 0, total }, bytes::Bytes::new())
            }
        };
        let chunk = snapshot.source.chunk(&cursor, CHUNK_BYTES)?;
        let writes = self.metrics.writes();
        if writes > snapshot.writes && !cursor.is_empty() && self.metrics.leads() {
            std::thread::sleep(snapshot.used.elapsed().min(LONGEST_REST));
        }
        (snapshot.used, snapshot.writes) = (Instant::now(), writes);
        snapshot.sent += chunk.data.len() as u64;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(node, snapshot);
        Ok(chunk)
    }

    /// The snapshot that is held for the replica. Lets go of those that are no longer used.
    fn held(&self, node: NodeId) -> Option<Open> {
        self.expire();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// What the replica was sent so far of the snapshot that is held for it.
    pub(crate) fn progress(&self, node: NodeId) -> Option<SnapshotProgress> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&node).map(|&Open { sent, total, .. }| SnapshotProgress { sent, total: total.max(sent) })
    }

    /// The last version of the oldest snapshot that is being copied.
    pub(crate) fn oldest(&self) -> Option<Version> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|snapshot| snapshot.source.identity().version).min()
    }

    /// Lets go of all snapshots.
    pub(crate) fn close_all(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Lets go of snapshots that are no longer used.
    pub(crate) fn expire(&self) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, snapshot| snapshot.used.elapsed() < IDLE);
    }
}
