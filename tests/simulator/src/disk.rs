//! A disk made up in memory, for the real write-ahead log: what is not synced may be lost, sector by sector, and syncs can
//! fail. It can also change what it was given to keep.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use quorumkv_wal::{Files, LogFile};

/// A disk writes this many bytes, or none of them.
const SECTOR: usize = 512;

/// And persistent memory this many.
const LINE: usize = 64;

/// A directory on the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Directory>>);

#[derive(Debug, Default)]
struct Directory {
    /// What a process sees.
    names: BTreeMap<String, SimFile>,
    /// What is left of that after a crash for certain.
    durable_names: BTreeMap<String, SimFile>,
    /// Shared with the files.
    syncs: Arc<Syncs>,
    made: u64,
}

/// A file, under whatever name.
#[derive(Clone, Debug)]
struct SimFile {
    content: Arc<Mutex<Content>>,
    syncs: Arc<Syncs>,
}

/// How many syncs still succeed.
#[derive(Debug)]
struct Syncs(AtomicU32);

impl Default for Syncs {
    fn default() -> Self {
        Self(AtomicU32::new(u32::MAX))
    }
}

impl Syncs {
    fn attempt(&self) -> io::Result<()> {
        let next = |left: u32| if left == u32::MAX { Some(left) } else { left.checked_sub(1) };
        let succeeds = self.0.fetch_update(Relaxed, Relaxed, next).is_ok();
        if succeeds { Ok(()) } else { Err(io::Error::other("the sync fails")) }
    }
}

#[derive(Debug, Default)]
struct Content {
    /// What a process sees.
    seen: Vec<u8>,
    /// What the medium has for certain.
    durable: Vec<u8>,
    /// What was written since the last sync: from where, and how long.
    unsynced: Vec<(usize, usize)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl SimDisk {
    fn lock(&self) -> MutexGuard<'_, Directory> {
        lock(&self.0)
    }

    /// No sync succeeds after `more` of them, until the next crash or until the disk is mended.
    pub(crate) fn fail_syncs_after(&self, more: u32) {
        self.lock().syncs.0.store(more, Relaxed);
    }

    /// Syncs succeed again.
    pub(crate) fn mend_syncs(&self) {
        self.fail_syncs_after(u32::MAX);
    }

    /// The process and the machine stop: of what was not synced, some is on the medium and some is not.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        self.mend_syncs();
        let mut directory = self.lock();
        // Names that were changed and not synced: all of the changes, or none.
        if rng.bool() {
            directory.names = directory.durable_names.clone();
        } else {
            directory.durable_names = directory.names.clone();
        }
        for file in directory.names.values() {
            lock(&file.content).crash(rng);
        }
    }

    /// Changes something of what is durable before `end` bytes of the log's last file, or in a file before it: a bit, a
    /// sector that reads zeros, or one that has the content of another. False if that changed nothing.
    pub(crate) fn damage(&self, rng: &mut Rng, end: u64) -> bool {
        let directory = self.lock();
        let files: Vec<&SimFile> =
            directory.names.iter().filter(|(name, _)| name.ends_with(".wal")).map(|(_, file)| file).collect();
        let Some(at) = (!files.is_empty()).then(|| rng.usize(0..files.len())) else { return false };
        let mut content = lock(&files[at].content);
        let is_last = at + 1 == files.len();
        let end = if is_last { usize::try_from(end).unwrap_or(usize::MAX) } else { usize::MAX };
        let end = end.min(content.durable.len());
        if end == 0 {
            return false;
        }
        let place = rng.usize(0..end);
        let before = content.durable.clone();
        match rng.u8(0..3) {
            0 => content.durable[place] ^= 1 << rng.u8(0..8),
            kind => {
                let start = place / SECTOR * SECTOR;
                let length = SECTOR.min(end - start);
                let source = rng.usize(0..content.durable.len() / SECTOR) * SECTOR;
                let misplaced = before[source..source + length].to_vec();
                let replacement = if kind == 1 { vec![0; length] } else { misplaced };
                content.durable[start..start + length].copy_from_slice(&replacement);
            }
        }
        content.seen = content.durable.clone();
        content.durable != before
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        self.unsynced.push((offset, bytes.len()));
    }

    fn sync(&mut self) {
        for (offset, length) in std::mem::take(&mut self.unsynced) {
            self.keep(offset, offset + length);
        }
        let length = self.seen.len();
        self.durable.resize(length, 0);
    }

    /// What was written from `start` to `end` reaches the medium.
    fn keep(&mut self, start: usize, end: usize) {
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.seen[start..end]);
    }

    /// Of the sectors that were written and not synced none reaches the medium, or all do, or those up to one, or any.
    fn crash(&mut self, rng: &mut Rng) {
        let unsynced = std::mem::take(&mut self.unsynced);
        // Memory that keeps what it was given is written line by line.
        let sector = *rng.choice(&[SECTOR, SECTOR, LINE]).expect("there are choices");
        let sectors: Vec<usize> = unsynced
            .iter()
            .flat_map(|&(offset, length)| offset / sector..(offset + length).div_ceil(sector))
            .collect();
        let kind = rng.u8(0..4);
        let upto = rng.usize(0..=sectors.len());
        for (at, number) in sectors.into_iter().enumerate() {
            let is_kept = match kind {
                0 => false,
                1 => true,
                2 => at < upto,
                _ => rng.bool(),
            };
            if is_kept {
                let start = number * sector;
                self.keep(start, (start + sector).min(self.seen.len()));
            }
        }
        self.seen = self.durable.clone();
    }
}

impl Files for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut directory = self.lock();
        let file = SimFile { content: Arc::default(), syncs: Arc::clone(&directory.syncs) };
        directory.names.insert(name(path), file.clone());
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let file = self.lock().names.get(&name(path)).cloned();
        Ok(Arc::new(file.ok_or_else(not_found)?))
    }

    fn names(&self, _directory: &Path) -> io::Result<Option<Vec<String>>> {
        Ok(Some(self.lock().names.keys().cloned().collect()))
    }

    fn make_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut directory = self.lock();
        let file = directory.names.remove(&name(from)).ok_or_else(not_found)?;
        directory.names.insert(name(to), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().names.remove(&name(path)).map(|_| ()).ok_or_else(not_found)
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        let mut directory = self.lock();
        directory.syncs.attempt()?;
        directory.durable_names = directory.names.clone();
        Ok(())
    }

    fn entropy(&self) -> u64 {
        let mut directory = self.lock();
        directory.made += 1;
        directory.made
    }
}

impl LogFile for SimFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        lock(&self.content).write(bytes, offset);
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let content = lock(&self.content);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let found = content.seen.get(offset..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.attempt()?;
        lock(&self.content).sync();
        Ok(())
    }

    fn read_all(&self, from_medium: bool) -> io::Result<Vec<u8>> {
        let mut content = lock(&self.content);
        if from_medium {
            self.syncs.attempt()?;
            content.sync();
        }
        Ok(content.seen.clone())
    }
}
