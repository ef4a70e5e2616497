//! What all test processes of a machine share: ports that stay reserved, and slots that bound how much runs.
//!
//! Both are file locks in the temporary directory. They work between threads, between the test binaries of
//! one `cargo test` and between the processes of cargo-nextest, and a process that dies gives back what it
//! held.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::ZooKeeperError;

/// Ports for tests. They lie below the range from which systems take the ports of outgoing connections, so
/// that the port of a server which is stopped for a while is not taken by somebody's client.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 31_999;

/// How many clusters run at once on a machine. Two keep two cores busy and timing sane.
const SLOTS: usize = 2;
/// How often a waiting test looks for a free slot.
const SLOT_POLL: Duration = Duration::from_millis(50);

/// The right to run one cluster: a ZooKeeper ensemble and what uses it. Given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _lock: Lock,
}

impl Slot {
    /// Waits, for as long as it takes, until one of the two slots is free.
    pub fn acquire() -> Result<Self, ZooKeeperError> {
        loop {
            for slot in 0..SLOTS {
                if let Some(lock) = Lock::try_acquire(&format!("slot-{slot}"))? {
                    return Ok(Self { _lock: lock });
                }
            }
            thread::sleep(SLOT_POLL);
        }
    }
}

/// A port of 127.0.0.1 that no other test takes while this lives, whether anything listens on it or not.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    _lock: Lock,
}

impl ReservedPort {
    /// Reserves a port on which nothing listens now.
    pub fn reserve() -> Result<Self, ZooKeeperError> {
        Ok(Self::reserve_together(&[0])?.remove(0))
    }

    /// Reserves ports at these distances from each other: for programs that are told one and take others as well.
    pub fn reserve_together(distances: &[u16]) -> Result<Vec<Self>, ZooKeeperError> {
        let span = distances.iter().max().copied().unwrap_or(0);
        let count = LAST_PORT - FIRST_PORT + 1 - span;
        // Start anywhere, so that processes which start together do not try the same ports.
        let start = u16::try_from(random() % u64::from(count)).expect("the remainder is below a u16");
        for step in 0..count {
            let base = FIRST_PORT + (start + step) % count;
            let mut ports = Vec::new();
            for distance in distances {
                let Some(port) = Self::try_reserve(base + distance)? else { break };
                ports.push(port);
            }
            if ports.len() == distances.len() {
                return Ok(ports);
            }
        }
        Err(ZooKeeperError::NoPort { first: FIRST_PORT, last: LAST_PORT })
    }

    fn try_reserve(port: u16) -> Result<Option<Self>, ZooKeeperError> {
        let Some(lock) = Lock::try_acquire(&format!("port-{port}"))? else { return Ok(None) };
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        Ok(is_free.then_some(Self { port, _lock: lock }))
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// An exclusive lock on a named file, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock unless it is held.
    pub fn try_acquire(name: &str) -> Result<Option<Self>, ZooKeeperError> {
        let path = lock_path(name)?;
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { path, _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(lock_error(&path, source)),
        }
    }

    /// Takes the lock, waiting for it.
    pub fn acquire(name: &str) -> Result<Self, ZooKeeperError> {
        let path = lock_path(name)?;
        let file = open(&path)?;
        file.lock().map_err(|source| lock_error(&path, source))?;
        Ok(Self { path, _file: file })
    }

    /// Takes the lock of a holder that died. Nothing if it lives, or if this machine never had such a lock.
    pub fn inherit(name: &str) -> Result<Option<Self>, ZooKeeperError> {
        if lock_path(name)?.exists() { Self::try_acquire(name) } else { Ok(None) }
    }

    /// Deletes the file as well. Only for names that are never used again: others may wait on the same file.
    pub fn remove(&self) {
        // Somebody else may have cleaned the directory; then nothing is left to do.
        let _ = fs::remove_file(&self.path);
    }
}

/// A number that differs between threads, processes and runs.
pub fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

fn lock_path(name: &str) -> Result<PathBuf, ZooKeeperError> {
    // One directory per user: files of one user cannot be opened by another.
    let directory =
        std::env::temp_dir().join(format!("quorumkv-tests-{}", rustix::process::getuid().as_raw()));
    fs::create_dir_all(&directory).map_err(|source| lock_error(&directory, source))?;
    Ok(directory.join(format!("{name}.lock")))
}

fn open(path: &Path) -> Result<File, ZooKeeperError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(|source| lock_error(path, source))
}

fn lock_error(path: &Path, source: std::io::Error) -> ZooKeeperError {
    ZooKeeperError::Lock { path: path.display().to_string(), source }
}
