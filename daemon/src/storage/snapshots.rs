//! Serving this node's state to replicas that are too far behind for the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorumkv_protocol::peer::{SnapshotChunk, SnapshotPosition};
use quorumkv_protocol::{NodeId, Version};

use crate::state::{ChunkError, ReadError, SnapshotSource, State};

/// Bytes of one piece.
const CHUNK_BYTES: usize = 1 << 20;

/// A snapshot that nobody has asked about for this long is let go: it keeps replaced values on the disk.
const IDLE: Duration = Duration::from_secs(60);

/// One open snapshot for each replica that is being restored.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotServer {
    state: State,
    open: Arc<Mutex<HashMap<NodeId, Open>>>,
}

#[derive(Clone, Debug)]
struct Open {
    source: Arc<SnapshotSource>,
    used: Instant,
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

impl SnapshotServer {
    pub(crate) fn new(state: State) -> Self {
        Self { state, open: Arc::default() }
    }

    /// The piece at `resume` if that snapshot is still held for the replica; else the first piece of a new one. Blocks.
    pub(crate) fn chunk(
        &self,
        node: NodeId,
        resume: Option<&SnapshotPosition>,
    ) -> Result<SnapshotChunk, ServeError> {
        let held = self.held(node);
        let (source, cursor) = match (held, resume) {
            (Some(source), Some(resume)) if source.identity() == resume.snapshot => {
                (source, resume.cursor.clone())
            }
            _ => (Arc::new(SnapshotSource::open(&self.state)?), bytes::Bytes::new()),
        };
        let chunk = source.chunk(&cursor, CHUNK_BYTES)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(node, Open { source, used: Instant::now() });
        Ok(chunk)
    }

    /// The snapshot that is held for the replica. Lets go of those that are no longer used.
    fn held(&self, node: NodeId) -> Option<Arc<SnapshotSource>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, snapshot| snapshot.used.elapsed() < IDLE);
        open.get(&node).map(|snapshot| Arc::clone(&snapshot.source))
    }

    /// The last version of the oldest snapshot that is being copied.
    pub(crate) fn oldest(&self) -> Option<Version> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|snapshot| snapshot.source.identity().version).min()
    }

    /// Lets go of snapshots that are no longer used.
    pub(crate) fn expire(&self) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, snapshot| snapshot.used.elapsed() < IDLE);
    }
}
