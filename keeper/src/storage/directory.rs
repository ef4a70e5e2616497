//! The data directory: that it is a keeper's, and that nobody else uses it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::disk::Faults;

/// What may stand in the directory. The last is there where a file system is mounted.
const KNOWN: [&str; 6] = ["LOCK", "format", "format.new", "log", "snapshots", "lost+found"];

/// What the file `format` begins with; the version of the directory's layout follows.
const NAME: &str = "quorumkv-keeper ";

/// The version of the directory's layout.
const VERSION: u32 = 1;

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// Another server has it.
    #[error(
        "the data directory {0} is in use by another keeper: stop that one, or choose another --data-dir"
    )]
    Locked(PathBuf),
    /// It cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{0} is not empty and no data directory of keeper: choose another --data-dir")]
    Foreign(PathBuf),
    /// The file that says which version the directory is of makes no sense, or names another version.
    #[error("{path} does not say that this keeper can use the directory: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// For `map_err`: wraps what the system said.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io { action, path, source }
}

/// A data directory that this process holds.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    /// Held as long as this is.
    _lock: File,
}

impl DataDirectory {
    /// Locks the directory, and makes it if it is not there or empty.
    pub(super) fn open(path: &Path, faults: &Faults) -> Result<Self, DirectoryError> {
        faults.create_directory(path).map_err(io_error("create", path))?;
        let names: Vec<_> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect())
            .map_err(io_error("list", path))?;
        if !names.iter().all(|name| KNOWN.iter().any(|known| name == known)) {
            return Err(DirectoryError::Foreign(path.to_owned()));
        }
        let lock = lock(path)?;
        let format = path.join("format");
        if names.iter().any(|name| name == "format") {
            check_format(&format)?;
        } else if names.iter().any(|name| name == "log" || name == "snapshots") {
            return Err(DirectoryError::Format { path: format, reason: "it is missing".to_owned() });
        } else {
            write_format(path, faults).map_err(io_error("write", &format))?;
        }
        let directory = Self { path: path.to_owned(), _lock: lock };
        let snapshots = directory.snapshots();
        faults.create_directory(&snapshots).map_err(io_error("create", &snapshots))?;
        Ok(directory)
    }

    /// Where the log is.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the snapshots are.
    pub(super) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }
}

fn lock(directory: &Path) -> Result<File, DirectoryError> {
    let path = directory.join("LOCK");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::Locked(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn check_format(path: &Path) -> Result<(), DirectoryError> {
    let bytes = fs::read(path).map_err(io_error("read", path))?;
    is_known(&bytes).map_err(|reason| DirectoryError::Format { path: path.to_owned(), reason })
}

/// Whether the content of the file is that of this version; otherwise, what is wrong with it.
pub(super) fn is_known(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    match text.strip_prefix(NAME).map(str::parse) {
        Some(Ok(VERSION)) if text == format!("{NAME}{VERSION}") => Ok(()),
        Some(Ok::<u32, _>(version)) if version != VERSION => {
            Err(format!("its version is {version}, and this keeper knows {VERSION}"))
        }
        Some(_) | None => Err("it is damaged".to_owned()),
    }
}

/// Writes the file under another name first, so that it is there as a whole or not at all.
fn write_format(directory: &Path, faults: &Faults) -> io::Result<()> {
    let new = directory.join("format.new");
    let mut file = faults.create(&new)?;
    writeln!(file, "{NAME}{VERSION}")?;
    faults.sync(&file, &new)?;
    faults.rename(&new, &directory.join("format"))
}
