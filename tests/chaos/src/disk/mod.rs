//! A disk for one node, whose syncs can be slow or fail, which can be full, and which loses what was not synced when its
//! power does: a file system in memory, mounted with FUSE.

mod file;
mod mount;
mod tree;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, Errno, MountOption, ReplyEmpty};

use mount::Mounted;
use tree::Tree;

pub use tree::Loss;

/// What is free on a disk that has nothing wrong with it.
const FREE: u64 = 16 << 30;

/// What a sync does that does not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailedSync {
    /// It says so, and what it was to write is still there to be read.
    Keeps,
    /// It says so, and what it was to write is gone, as from a page cache that drops it.
    Drops,
}

/// What is wrong with a disk.
#[derive(Debug)]
struct Switches {
    delay: Duration,
    failing: Option<FailedSync>,
    free: u64,
    /// Whether writes that need room fail.
    full: bool,
    /// The node is dead, and nothing more becomes durable.
    off: bool,
}

impl Switches {
    const NONE: Self = Self { delay: Duration::ZERO, failing: None, free: FREE, full: false, off: false };
}

/// A sync that takes its time.
#[derive(Debug)]
struct Pending {
    ino: u64,
    due: Instant,
    reply: ReplyEmpty,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    switches: Switches,
    /// As many as a process has threads, at most.
    pending: VecDeque<Pending>,
    /// Syncs that were answered: how many failed, and how many did not.
    syncs: (u64, u64),
    /// How often a process was given a reason to end: an error, or a byte that is not what it was.
    troubles: u64,
    handles: u64,
    closing: bool,
}

impl State {
    /// Fails where there is no power, or no room for what needs some.
    fn check_room(&mut self, needs_room: bool) -> Result<(), Errno> {
        let error = match self.switches {
            Switches { off: true, .. } => Errno::EIO,
            Switches { full: true, .. } if needs_room => Errno::ENOSPC,
            _ => return Ok(()),
        };
        self.troubles += 1;
        Err(error)
    }

    fn sync(&mut self, ino: u64) -> Result<(), Errno> {
        let result = match self.switches.failing {
            _ if self.switches.off => Err(Errno::EIO),
            Some(FailedSync::Drops) => {
                self.tree.lose_file(ino);
                Err(Errno::EIO)
            }
            Some(FailedSync::Keeps) => Err(Errno::EIO),
            None => self.tree.sync(ino),
        };
        let count = if result.is_ok() { &mut self.syncs.1 } else { &mut self.syncs.0 };
        *count += 1;
        self.troubles += u64::from(result.is_err());
        result
    }
}

/// What the kernel's requests and those who switch faults on share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs now, or lets the thread for slow ones do it.
    fn sync(&self, ino: u64, reply: ReplyEmpty) {
        let mut state = self.lock();
        if state.switches.delay.is_zero() && state.pending.is_empty() {
            return answer(reply, state.sync(ino));
        }
        let due = Instant::now() + state.switches.delay;
        state.pending.push_back(Pending { ino, due, reply });
        self.changed.notify_all();
    }

    /// Answers slow syncs, one after the other, until the disk is closed.
    fn answer_slowly(&self) {
        let mut state = self.lock();
        loop {
            let due = state.pending.front().map(|pending| pending.due);
            let at_once = state.switches.delay.is_zero() || state.closing;
            state = match due.map(|due| due.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() || at_once => {
                    if let Some(Pending { ino, reply, .. }) = state.pending.pop_front() {
                        answer(reply, state.sync(ino));
                    }
                    continue;
                }
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None if state.closing => return,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn switch(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.lock().switches);
        self.changed.notify_all();
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

/// A mounted disk. Dropping it unmounts it; what it held is gone.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    slow: Option<JoinHandle<()>>,
}

impl Disk {
    /// Mounts an empty disk at a directory, which is made.
    ///
    /// # Errors
    /// There is no `/dev/fuse`, or this is not root.
    pub fn mount(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        let state = State {
            tree: Tree::default(),
            switches: Switches::NONE,
            pending: VecDeque::new(),
            syncs: (0, 0),
            troubles: 0,
            handles: 0,
            closing: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("quorumkv-chaos".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Mounted::new(Arc::clone(&shared)), path, &config);
        let session = session.with_context(|| {
            format!("mount a FUSE file system at {}: that needs root and /dev/fuse", path.display())
        })?;
        let slow = std::thread::Builder::new().name("slow-syncs".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.answer_slowly()
        })?;
        Ok(Self { path: path.to_owned(), shared, session: Some(session), slow: Some(slow) })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets every sync take this long.
    pub fn slow_syncs(&self, delay: Duration) {
        self.shared.switch(|switches| switches.delay = delay);
    }

    /// Lets every sync fail.
    pub fn fail_syncs(&self, how: FailedSync) {
        self.shared.switch(|switches| switches.failing = Some(how));
    }

    /// Leaves so many bytes free, as the disk says. With none, writes that need room fail.
    pub fn leave_free(&self, bytes: u64) {
        self.shared.switch(|switches| (switches.free, switches.full) = (bytes, bytes == 0));
    }

    /// Lets nothing more become durable: the moment at which power is lost. Whoever waits for a sync is told that it failed.
    pub fn power_off(&self) {
        self.shared.switch(|switches| *switches = Switches { off: true, ..Switches::NONE });
    }

    /// Power is back: what was not synced is lost. No process may have a file open.
    pub fn power_on(&self, loss: Loss) {
        let mut state = self.shared.lock();
        state.tree.lose(loss);
        state.switches = Switches::NONE;
    }

    /// Nothing is wrong with it any more.
    pub fn heal(&self) {
        self.shared.switch(|switches| *switches = Switches { off: switches.off, ..Switches::NONE });
    }

    /// Removes everything. No process may have a file open.
    pub fn clear(&self) {
        self.shared.lock().tree.clear();
    }

    /// How many syncs have failed, and how many have not.
    #[must_use]
    pub fn syncs(&self) -> (u64, u64) {
        self.shared.lock().syncs
    }

    /// How often it has given a process a reason to end: errors, and bytes that are not what they were.
    #[must_use]
    pub fn troubles(&self) -> u64 {
        self.shared.lock().troubles
    }

    /// Whether syncs take longer than they have to.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        let state = self.shared.lock();
        !state.switches.delay.is_zero() || !state.pending.is_empty()
    }

    /// The files in a directory whose names end so, in order, with how much of each is used: up to its last byte that is not
    /// zero.
    #[must_use]
    pub fn files(&self, directory: &str, ending: &str) -> Vec<(String, u64)> {
        let state = self.shared.lock();
        let files = state.tree.files_in(directory).into_iter();
        let files = files.map(|(name, ino)| (name.to_string_lossy().into_owned(), ino));
        let files = files.filter(|(name, _)| name.ends_with(ending));
        files.map(|(name, ino)| (name, state.tree.file(ino).map_or(0, file::Content::used))).collect()
    }

    /// Changes bits of one byte of a file, durably. Returns the number of the file, which no other ever has, if it is there.
    #[must_use]
    pub fn flip(&self, directory: &str, name: &OsStr, offset: u64, mask: u8) -> Option<u64> {
        let mut state = self.shared.lock();
        let files = state.tree.files_in(directory);
        let (_, ino) = files.into_iter().find(|(found, _)| found == name)?;
        state.tree.file_mut(ino).ok()?.flip(offset, mask);
        state.troubles += 1;
        Some(ino)
    }

    /// Whether a directory holds the file with this number.
    #[must_use]
    pub fn holds(&self, directory: &str, number: u64) -> bool {
        self.shared.lock().tree.files_in(directory).iter().any(|(_, ino)| *ino == number)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(slow) = self.slow.take() {
            // It panics only with the whole program's state in doubt.
            let _ = slow.join();
        }
        // Dropped, it unmounts; whoever still uses it keeps it until then.
        drop(self.session.take());
    }
}
