//! The file operations that change the disk, each with its context and open to fault injection.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::{FileSystem, Files, LogFile};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct IoError {
    /// What was tried, as a verb: "write", "sync".
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl IoError {
    /// For `map_err`: wraps what the operating system said.
    pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IoError {
        let path = path.to_owned();
        move |source| IoError { action, path, source }
    }
}

/// An operation that changes the disk, as a [`FaultHook`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file is made, empty.
    Create,
    /// Bytes are written to a file.
    Write,
    /// A file's content is made durable.
    Sync,
    /// A file gets its final name.
    Rename,
    /// A directory's names are made durable.
    SyncDirectory,
    /// A file is removed.
    Remove,
}

/// Called before every operation that changes the disk; an error that it returns takes the place of the operation. For tests.
pub type FaultHook = Arc<dyn Fn(Operation, &Path) -> io::Result<()> + Send + Sync>;

/// The disk, with or without faults.
#[derive(Clone)]
pub(crate) struct Disk {
    files: Arc<dyn Files>,
    faults: Option<FaultHook>,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk { files: Arc::new(FileSystem), faults: None }
    }
}

impl Disk {
    pub(crate) fn new(files: Option<Arc<dyn Files>>, faults: Option<FaultHook>) -> Disk {
        Disk { files: files.unwrap_or_else(|| Arc::new(FileSystem)), faults }
    }

    /// The files, for what changes nothing.
    pub(crate) fn files(&self) -> &dyn Files {
        &*self.files
    }

    /// Makes an empty file, in place of one that is there.
    pub(crate) fn create(&self, path: &Path) -> Result<Arc<dyn LogFile>, IoError> {
        self.attempt(Operation::Create, "create", path, || self.files.create(path))
    }

    pub(crate) fn write(
        &self,
        file: &dyn LogFile,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), IoError> {
        self.attempt(Operation::Write, "write", path, || file.write_all_at(bytes, offset))
    }

    pub(crate) fn sync(&self, file: &dyn LogFile, path: &Path) -> Result<(), IoError> {
        self.attempt(Operation::Sync, "sync", path, || file.sync())
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.attempt(Operation::Rename, "rename", from, || self.files.rename(from, to))
    }

    pub(crate) fn sync_directory(&self, path: &Path) -> Result<(), IoError> {
        self.attempt(Operation::SyncDirectory, "sync directory", path, || self.files.sync_directory(path))
    }

    /// Removes a file; one that is not there is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), IoError> {
        self.attempt(Operation::Remove, "remove", path, || match self.files.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        })
    }

    fn attempt<R>(
        &self,
        operation: Operation,
        action: &'static str,
        path: &Path,
        work: impl FnOnce() -> io::Result<R>,
    ) -> Result<R, IoError> {
        self.faults
            .as_ref()
            .map_or(Ok(()), |hook| hook(operation, path))
            .and_then(|()| work())
            .map_err(IoError::at(action, path))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("faults", &self.faults.is_some()).finish()
    }
}
