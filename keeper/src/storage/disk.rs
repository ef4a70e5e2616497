//! What this module does to the disk besides the log, open to fault injection; and how much room there is.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorumkv_wal::{FaultHook, Operation};

/// Faults of the disk; for tests.
#[derive(Clone, Default)]
pub struct Faults {
    /// Called before every operation that changes the disk; an error that it returns takes the place of the operation.
    pub hook: Option<FaultHook>,
    /// So many bytes are free, whatever the disk says.
    pub free_bytes: Option<Arc<AtomicU64>>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}

impl Faults {
    fn attempt(&self, operation: Operation, path: &Path) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(operation, path))
    }

    /// Makes an empty file, in place of one that is there.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.attempt(Operation::Create, path)?;
        File::create(path)
    }

    /// Makes what was written to a file durable.
    pub(super) fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.attempt(Operation::Sync, path)?;
        file.sync_all()
    }

    /// Gives a file another name, durably.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt(Operation::Rename, from)?;
        fs::rename(from, to)?;
        self.sync_directory(parent(to))
    }

    /// Makes a directory, and all that are missing above it, durably.
    pub(super) fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.create_directory(parent(path))?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        }
        self.sync_directory(parent(path))
    }

    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.attempt(Operation::SyncDirectory, path)?;
        File::open(path)?.sync_all()
    }

    /// Bytes that may still be written where a directory is.
    pub(super) fn free(&self, directory: &Path) -> io::Result<u64> {
        if let Some(free) = &self.free_bytes {
            return Ok(free.load(Ordering::Relaxed));
        }
        let disk = rustix::fs::statvfs(directory)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// The directory that a path stands in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
