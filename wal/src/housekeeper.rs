//! The helper thread: it keeps a zero-filled spare segment ready and removes trimmed ones, so that no commit waits for either.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::disk::{Disk, IoError};
use crate::files::LogFile;
use crate::segment::{Segment, prepare_spare, spare_path};

/// Pause between pieces of a spare that is not urgent, so that syncs of the log find the disk free.
const PAUSE: Duration = Duration::from_millis(5);

/// What there is to do, and what is done. Bounded: one spare, and as many segments as the log has.
#[derive(Debug, Default)]
struct Chores {
    spare_wanted: bool,
    /// The log waits for the spare.
    spare_awaited: bool,
    spare: Option<Result<Arc<dyn LogFile>, IoError>>,
    /// Trimmed segments, oldest first. They go in that order, each durably, so that what is left never has a gap.
    trimmed: VecDeque<Arc<Segment>>,
    /// A removal failed: the rest waits until the next trim.
    removal_failed: bool,
    stop: bool,
}

#[derive(Debug)]
struct Room {
    disk: Disk,
    directory: PathBuf,
    segment_bytes: u64,
    /// How far the log's last segment is written.
    filled: AtomicU64,
    chores: Mutex<Chores>,
    changed: Condvar,
}

/// Handle of the helper thread; joins it when dropped. Without a thread its work is done when it is asked for.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    room: Arc<Room>,
    thread: Option<JoinHandle<()>>,
}

enum Chore {
    Remove(Arc<Segment>),
    Prepare,
    Stop,
}

impl Housekeeper {
    /// Starts the thread, which begins with a spare.
    pub(crate) fn start(disk: Disk, directory: PathBuf, segment_bytes: u64) -> io::Result<Housekeeper> {
        let chores = Mutex::new(Chores { spare_wanted: true, ..Chores::default() });
        let room = Arc::new(Room::new(disk, directory, segment_bytes, chores));
        let worker = Arc::clone(&room);
        let thread = thread::Builder::new().name("wal-housekeeper".into()).spawn(move || worker.run())?;
        Ok(Housekeeper { room, thread: Some(thread) })
    }

    /// Without a thread: for a log in steps.
    pub(crate) fn without_thread(disk: Disk, directory: PathBuf, segment_bytes: u64) -> Housekeeper {
        Housekeeper {
            room: Arc::new(Room::new(disk, directory, segment_bytes, Mutex::default())),
            thread: None,
        }
    }

    /// The spare, waiting for it if need be. What went wrong in preparing it may have passed (a full disk), so it is
    /// prepared anew once: nothing is lost by that, unlike with a sync of records.
    pub(crate) fn take_spare(&self) -> Result<Arc<dyn LogFile>, IoError> {
        match self.next_spare() {
            Err(error) => {
                tracing::warn!(%error, source = %error.source, "no spare segment; trying once more");
                self.next_spare()
            }
            spare => spare,
        }
    }

    fn next_spare(&self) -> Result<Arc<dyn LogFile>, IoError> {
        if self.thread.is_none() {
            let Room { disk, directory, segment_bytes, .. } = &*self.room;
            let spare = prepare_spare(disk, directory, *segment_bytes, |_| true)?;
            return Ok(spare.expect("nothing cancels it"));
        }
        let mut chores = self.room.lock();
        loop {
            if let Some(spare) = chores.spare.take() {
                chores.spare_awaited = false;
                return spare;
            }
            if chores.stop {
                let stopped = io::Error::other("the housekeeper has stopped");
                return Err(IoError::at("prepare", &spare_path(&self.room.directory))(stopped));
            }
            (chores.spare_wanted, chores.spare_awaited) = (true, true);
            self.room.changed.notify_all();
            chores = self.room.changed.wait(chores).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has the next spare prepared in the background. Only when the one taken has got its name as a segment:
    /// until then the spare's name is its own.
    pub(crate) fn prepare_next(&self) {
        self.room.lock().spare_wanted = true;
        self.room.changed.notify_all();
    }

    /// Takes note of how far the last segment is written.
    pub(crate) fn note(&self, filled: u64) {
        self.room.filled.store(filled, Ordering::Relaxed);
    }

    /// Has segments removed, oldest first, in the background.
    pub(crate) fn remove(&self, segments: Vec<Arc<Segment>>) {
        let mut chores = self.room.lock();
        chores.trimmed.extend(segments);
        chores.removal_failed = false;
        self.room.changed.notify_all();
        drop(chores);
        if self.thread.is_none() {
            self.room.remove_all();
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.room.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the housekeeper of the log has panicked");
        }
    }
}

impl Room {
    const fn new(disk: Disk, directory: PathBuf, segment_bytes: u64, chores: Mutex<Chores>) -> Room {
        Room { disk, directory, segment_bytes, filled: AtomicU64::new(0), chores, changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Chores> {
        self.chores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        let _stop_even_on_panic = StopGuard(self);
        loop {
            match self.next_chore() {
                Chore::Stop => return,
                Chore::Prepare => self.prepare(),
                Chore::Remove(segment) => self.remove(&segment),
            }
        }
    }

    /// Removals first: they make room for the spare. They are finished before a stop, a spare is not.
    fn next_chore(&self) -> Chore {
        let mut chores = self.lock();
        loop {
            if let Some(oldest) = chores.trimmed.front().filter(|_| !chores.removal_failed) {
                return Chore::Remove(Arc::clone(oldest));
            }
            if chores.stop {
                return Chore::Stop;
            }
            if chores.spare_wanted && chores.spare.is_none() {
                return Chore::Prepare;
            }
            chores = self.changed.wait(chores).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn prepare(&self) {
        let Room { disk, directory, segment_bytes, .. } = self;
        let spare =
            prepare_spare(disk, directory, *segment_bytes, |written| self.goes_on(written)).transpose();
        let mut chores = self.lock();
        chores.spare_wanted = false;
        chores.spare = spare;
        self.changed.notify_all();
    }

    /// Lets the log have the disk for a while if there is time: the spare is to be ready when the last segment is half full.
    fn goes_on(&self, written: u64) -> bool {
        let chores = self.lock();
        let is_urgent = chores.spare_awaited || !chores.trimmed.is_empty();
        if chores.stop || is_urgent || written < self.filled.load(Ordering::Relaxed).saturating_mul(2) {
            return !chores.stop;
        }
        let waited = self.changed.wait_timeout(chores, PAUSE);
        let (chores, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !chores.stop
    }

    /// Removes what there is to remove, until something cannot be.
    fn remove_all(&self) {
        loop {
            let chores = self.lock();
            let Some(oldest) = chores.trimmed.front().filter(|_| !chores.removal_failed).cloned() else {
                return;
            };
            drop(chores);
            self.remove(&oldest);
        }
    }

    fn remove(&self, segment: &Segment) {
        let removed =
            self.disk.remove(&segment.path).and_then(|()| self.disk.sync_directory(&self.directory));
        let mut chores = self.lock();
        match removed {
            Ok(()) => {
                chores.trimmed.pop_front();
                tracing::debug!(segment = segment.sequence, "removed a trimmed segment");
            }
            Err(error) => {
                chores.removal_failed = true;
                tracing::warn!(%error, source = %error.source, "a trimmed segment stays until the next trim");
            }
        }
    }
}

struct StopGuard<'a>(&'a Room);

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_takes_its_time_unless_the_log_needs_it() {
        let room = Room::new(Disk::default(), PathBuf::new(), 100, Mutex::default());
        assert!(room.goes_on(0), "after a pause");
        room.lock().spare_awaited = true;
        assert!(room.goes_on(50));
        room.lock().spare_awaited = false;
        room.filled.store(u64::MAX, Ordering::Relaxed);
        assert!(room.goes_on(50), "the last segment is nearly full");
        room.stop();
        assert!(!room.goes_on(50) && !room.goes_on(0));
    }
}
