//! Why an operation on the state failed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use quorumkv_protocol::{EntryId, Version};
use thiserror::Error;

use super::format::Malformed;

/// Why the state could not be opened.
#[derive(Debug, Error)]
pub enum OpenStateError {
    /// Another process has it open.
    #[error("the state is in use by another process")]
    Locked,
    /// A file or directory could not be read or written.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `CURRENT` is not there, but databases are; or it is not what this program writes; or the database that it names
    /// is gone.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The state was written by another version of this program.
    #[error("the state has format {found}, and this program knows {known}", known = super::format::VERSION)]
    Format {
        /// The format that `CURRENT` names.
        found: u32,
    },
    /// The database is damaged.
    #[error("the database is damaged: {0}")]
    Content(#[from] Malformed),
    /// The database could not be opened: it is damaged, or its files cannot be used. After a loss of power (never after
    /// the end of a process) this can be a journal that was written in part and out of order.
    #[error("cannot open the database: {0}")]
    Database(#[source] fjall::Error),
}

impl OpenStateError {
    /// Whether what was stored in this directory is damaged, or a part of it is gone.
    ///
    /// A database is written to when it is opened. The error does not tell whether it was that which failed: a medium that
    /// gives back every file has not lost any, and a failed write or sync, which all nodes may meet at once, is none's loss.
    #[must_use]
    pub fn is_damage(&self, directory: &Path) -> bool {
        match self {
            Self::Damaged { .. } | Self::Content(_) => true,
            Self::Database(error) => is_damage(error) && !(is_io_error(error) && is_readable(directory)),
            Self::Locked | Self::Io { .. } | Self::Format { .. } => false,
        }
    }
}

/// Whether the medium has refused something: to read, to write or to sync.
fn is_io_error(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => is_refused(error),
        _ => false,
    }
}

/// Whether every file in a directory and below it can be read to its end.
fn is_readable(directory: &Path) -> bool {
    let read = |path: &Path| -> io::Result<bool> {
        if path.is_dir() {
            return Ok(is_readable(path));
        }
        io::copy(&mut File::open(path)?, &mut io::sink()).map(|_| true)
    };
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.into_iter().all(|entry| entry.and_then(|entry| read(&entry.path())).unwrap_or(false))
}

impl From<fjall::Error> for OpenStateError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::Locked,
            other => Self::Database(other),
        }
    }
}

/// The storage failed while entries were applied: nothing more can be applied to this state.
#[derive(Debug, Error)]
#[error("cannot store applied entries: {0}")]
pub struct ApplyError(#[from] fjall::Error);

/// What is applied could not be made durable: nothing more can be applied to this state.
#[derive(Debug, Error)]
#[error("cannot sync the state: {0}")]
pub struct PersistError(#[from] fjall::Error);

/// Why the state could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The storage failed, or a checksum in it did not match.
    #[error("cannot read the state: {0}")]
    Database(#[from] fjall::Error),
    /// What was read is not what this program writes.
    #[error("the state is damaged: {0}")]
    Content(#[from] Malformed),
    /// What was applied last could not be put where it can be read: a failed write.
    #[error(transparent)]
    Move(ApplyError),
}

impl ReadError {
    /// What it tells about the state.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Database(error) if is_damage(error) => Cause::Damage,
            Self::Content(_) => Cause::Damage,
            Self::Database(_) => Cause::Disk,
            Self::Move(error) => error.cause(),
        }
    }

    /// Whether what the state holds is damaged, rather than that it could not be read for another reason.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.cause() == Cause::Damage
    }

    /// Whether a write has failed, so that the process must end.
    #[must_use]
    pub fn is_failed_write(&self) -> bool {
        matches!(self, Self::Move(error) if error.cause() == Cause::Disk)
    }
}

/// What an error in writing to the state tells about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// What it holds is damaged.
    Damage,
    /// Something has failed before, in the background, and was not told then.
    Earlier,
    /// The disk has failed. What it has of the last writes is not known, and the process must end.
    Disk,
}

impl Cause {
    const fn of(error: &fjall::Error) -> Self {
        match error {
            fjall::Error::Storage(error) if is_content(error) => Self::Damage,
            fjall::Error::Poisoned => Self::Earlier,
            _ => Self::Disk,
        }
    }
}

impl ApplyError {
    /// What it tells about the state.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        Cause::of(&self.0)
    }
}

impl PersistError {
    /// What it tells about the state.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        Cause::of(&self.0)
    }
}

/// Whether the disk gave back something else than was written, or could not give it back. What another version of fjall may
/// have written, or what somebody has removed, is not taken for that: all nodes could be in such a state at once.
fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => is_medium_error(error),
        fjall::Error::Storage(error) => is_content(error),
        _ => false,
    }
}

/// Whether what a table holds is not what was written.
const fn is_content(error: &fjall::LsmError) -> bool {
    matches!(
        error,
        fjall::LsmError::ChecksumMismatch { .. }
            | fjall::LsmError::Decompress(_)
            | fjall::LsmError::InvalidTag(_)
            | fjall::LsmError::InvalidTrailer
            | fjall::LsmError::InvalidHeader(_)
    )
}

/// Whether the medium could not give back what was written to it.
pub(super) fn is_medium_error(error: &io::Error) -> bool {
    is_refused(error) || matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}

fn is_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Why a piece of a snapshot could not be made.
#[derive(Debug, Error)]
pub enum ChunkError {
    /// The asker's cursor did not come from here.
    #[error("the cursor was not made by this program")]
    Cursor,
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl ChunkError {
    /// Whether what the state holds is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Cursor => false,
            Self::Read(error) => error.is_damage(),
        }
    }
}

impl From<fjall::Error> for ChunkError {
    fn from(error: fjall::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Why a piece of a snapshot was not taken. Nothing of the piece is kept, and the restore must begin again.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The piece belongs to another snapshot.
    #[error("a piece of snapshot {found} came for snapshot {expected}")]
    OtherSnapshot {
        /// What is being restored.
        expected: EntryId,
        /// What came.
        found: EntryId,
    },
    /// The piece was changed on its way.
    #[error("the checksum of the piece is {found:08x}, not {expected:08x}")]
    Checksum {
        /// What the source computed.
        expected: u32,
        /// What arrived.
        found: u32,
    },
    /// The source sent something that is no piece of a state.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The storage failed.
    #[error("cannot store the snapshot")]
    Database(#[from] fjall::Error),
}

/// Why a restored snapshot did not become the state.
#[derive(Debug, Error)]
pub enum InstallError {
    /// Pieces are missing. The state is as it was.
    #[error("the snapshot is not complete")]
    Incomplete,
    /// The state is further than the snapshot. It is as it was.
    #[error("the snapshot is at {snapshot}, the state at {applied}")]
    Behind {
        /// The snapshot's version.
        snapshot: Version,
        /// The state's.
        applied: Version,
    },
    /// The snapshot could not be stored. The state is as it was.
    #[error("cannot store the snapshot")]
    Database(#[from] fjall::Error),
    /// Which of the two will be the state after a restart is not known. The process must end.
    #[error("cannot switch to the snapshot")]
    Switch(#[source] io::Error),
}
