//! The files of a log, in memory. Whatever is written is on the disk at once.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::image::SEGMENT;
use crate::disk;
use crate::files::{Files, LogFile};
use crate::recover::{self, OpenError, Opened};
use crate::segment::segment_path;

/// The directory of the log.
const DIRECTORY: &str = "log";

/// A disk with nothing but a log on it.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<[(String, Arc<Content>)]>);

#[derive(Debug)]
struct Content(Mutex<Vec<u8>>);

impl Disk {
    /// A disk with these segments.
    pub(super) fn holding(segments: &[(u64, Vec<u8>)]) -> Disk {
        let file = |(sequence, bytes): &(u64, Vec<u8>)| {
            let path = segment_path("".as_ref(), *sequence);
            let name = path.to_str().expect("segments have plain names").to_owned();
            (name, Arc::new(Content(Mutex::new(bytes.clone()))))
        };
        Disk(segments.iter().map(file).collect())
    }

    /// What is in the last segment.
    pub(super) fn last(&self) -> Vec<u8> {
        let (_, content) = self.0.last().expect("there is one");
        content.0.lock().expect("nobody fails").clone()
    }

    fn find(&self, path: &Path) -> io::Result<Arc<Content>> {
        let name = path.file_name().and_then(|name| name.to_str());
        let file = self.0.iter().find(|(known, _)| Some(&**known) == name);
        file.map(|(_, content)| Arc::clone(content)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Opens the log that is on the disk.
pub(super) fn open(disk: &Disk) -> Result<Opened, OpenError> {
    let disk = disk::Disk::new(Some(Arc::new(disk.clone())), None);
    recover::open(&disk, DIRECTORY.as_ref(), SEGMENT as u64, 0)
}

impl Files for Disk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        unreachable!("{} is not needed to open a log", path.display())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(self.find(path)?)
    }

    fn names(&self, _: &Path) -> io::Result<Option<Vec<String>>> {
        Ok(Some(self.0.iter().map(|(name, _)| name.clone()).collect()))
    }

    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, _: &Path) -> io::Result<()> {
        unreachable!("{} keeps its name", from.display())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.find(path).map(|_| unreachable!("a segment is never removed here"))
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn entropy(&self) -> u64 {
        unreachable!("the log is there already")
    }
}

impl LogFile for Content {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.0.lock().expect("nobody fails")[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.0.lock().expect("nobody fails");
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let part = content.get(from..from + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(part);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn read_all(&self, _: bool) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().expect("nobody fails").clone())
    }
}
