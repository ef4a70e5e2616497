//! Whether the disk is nearly full, looked at again and again on a thread of its own: a disk may keep whoever asks waiting.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::disk::Faults;

/// How often it is looked at, however little is written.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the disk until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes that were free when it was last looked at.
    free: Arc<AtomicU64>,
    least: u64,
    /// Has the disk looked at now.
    look: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Bytes that were written since the disk was last looked at on their account, and how many make it worth it.
    written: u64,
    worth_it: u64,
}

impl Room {
    /// Looks once, and goes on to look. There is little room while fewer than `least` bytes are free.
    pub(super) fn watch(directory: PathBuf, faults: Faults, least: u64) -> io::Result<Self> {
        let free = Arc::new(AtomicU64::new(u64::MAX));
        let watched = Watched { directory, faults, least, free: Arc::clone(&free) };
        watched.look();
        let (look, looks) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name("room".to_owned()).spawn(move || watched.run(&looks))?;
        Ok(Self { free, least, look: Some(look), thread: Some(thread), written: 0, worth_it: least / 16 })
    }

    /// How many bytes are free, if that is little.
    pub(super) fn shortage(&self) -> Option<u64> {
        let free = self.free.load(Ordering::Relaxed);
        (free < self.least).then_some(free)
    }

    /// Notes that so many bytes are going to be written.
    pub(super) fn take(&mut self, bytes: u64) {
        self.written += bytes;
        if self.written >= self.worth_it
            && let Some(look) = &self.look
        {
            self.written = 0;
            // If it is full, somebody is about to look anyway.
            let _ = look.try_send(());
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.look = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks at the disk has panicked");
        }
    }
}

struct Watched {
    directory: PathBuf,
    faults: Faults,
    least: u64,
    free: Arc<AtomicU64>,
}

impl Watched {
    fn run(&self, looks: &Receiver<()>) {
        while !matches!(looks.recv_timeout(INTERVAL), Err(RecvTimeoutError::Disconnected)) {
            self.look();
        }
    }

    fn look(&self) {
        match self.faults.free(&self.directory) {
            Ok(free) => {
                let before = self.free.swap(free, Ordering::Relaxed);
                if (before < self.least) != (free < self.least) {
                    tell(free < self.least, free);
                }
            }
            Err(error) => tracing::warn!("cannot tell how full the disk is: {error}"),
        }
    }
}

fn tell(is_short: bool, free: u64) {
    if is_short {
        tracing::warn!(
            free,
            "the disk is nearly full: what makes the data larger is refused, deletes and reads go on"
        );
    } else {
        tracing::info!(free, "the disk has room again: all writes are taken");
    }
}
