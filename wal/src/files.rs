//! Where a log keeps its files: the file system, or one that a simulator makes up.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Advice;

/// An open file of a log.
pub trait LogFile: fmt::Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`. Not durable until [`LogFile::sync`].
    ///
    /// # Errors
    /// What the medium says.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads as many bytes as `bytes` has from `offset` on.
    ///
    /// # Errors
    /// What the medium says; [`io::ErrorKind::UnexpectedEof`] if the file is shorter.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the medium says. What is durable is unknown then.
    fn sync(&self) -> io::Result<()>;

    /// Reads the whole file. `from_medium`: what a crash has left in memory only must not be taken for durable, so it is
    /// synced, forgotten and read anew.
    ///
    /// # Errors
    /// What the medium says.
    fn read_all(&self, from_medium: bool) -> io::Result<Vec<u8>>;
}

/// Where a log keeps its files.
pub trait Files: fmt::Debug + Send + Sync {
    /// Makes an empty file, in place of one that is there.
    ///
    /// # Errors
    /// What the medium says, here and below.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;

    /// Opens a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;

    /// The names of all files in a directory; `None` if there is no such directory.
    ///
    /// # Errors
    /// What the medium says.
    fn names(&self, directory: &Path) -> io::Result<Option<Vec<String>>>;

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// What the medium says.
    fn make_directory(&self, directory: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of one that has it. Not durable until [`Files::sync_directory`].
    ///
    /// # Errors
    /// What the medium says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Those that hold it open can still read it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the medium says.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// A number that no other log is likely to be given.
    fn entropy(&self) -> u64;
}

/// The file system.
#[derive(Debug)]
pub(crate) struct FileSystem;

impl Files for FileSystem {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn names(&self, directory: &Path) -> io::Result<Option<Vec<String>>> {
        if !directory.is_dir() {
            return Ok(None);
        }
        let mut names = Vec::new();
        for file in fs::read_dir(directory)? {
            names.extend(file?.file_name().into_string());
        }
        Ok(Some(names))
    }

    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn entropy(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

impl LogFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn read_all(&self, from_medium: bool) -> io::Result<Vec<u8>> {
        if from_medium {
            self.sync_data()?;
            rustix::fs::fadvise(self, 0, None, Advice::DontNeed)?;
        }
        let length = usize::try_from(self.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        FileExt::read_exact_at(self, &mut bytes, 0)?;
        Ok(bytes)
    }
}
