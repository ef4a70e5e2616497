//! Where a log keeps its files: the file system, or one that a simulator makes up.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, OFlags};

/// The disk takes whole blocks from memory that is aligned to them without a copy.
pub(crate) const BLOCK: usize = 4096;

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
        Ok(Arc::new(DiskFile::open(path, OpenOptions::new().create(true).truncate(true))?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(DiskFile::open(path, &mut OpenOptions::new())?))
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

/// A file of the file system.
#[derive(Debug)]
struct DiskFile {
    file: File,
    /// The same for writes that pass by the page cache, where the file system knows such. What is logged is hardly ever read, and pages
    /// of it would cost a copy and drive out what is.
    direct: Option<File>,
}

impl DiskFile {
    fn open(path: &Path, options: &mut OpenOptions) -> io::Result<Self> {
        let file = options.read(true).write(true).open(path)?;
        let flags = i32::try_from(OFlags::DIRECT.bits()).expect("flags of open are an int");
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        Ok(Self { file, direct })
    }
}

impl LogFile for DiskFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let is_whole = offset.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK);
        if let Some(direct) =
            self.direct.as_ref().filter(|_| is_whole && bytes.as_ptr().align_offset(BLOCK) == 0)
        {
            match direct.write_all_at(bytes, offset) {
                // Its blocks are larger, or it cannot do this after all.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
                written => return written,
            }
        }
        self.file.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn read_all(&self, from_medium: bool) -> io::Result<Vec<u8>> {
        if from_medium {
            self.file.sync_data()?;
            rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?;
        }
        let length = usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Memory for whole blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Vec<u8>);

impl Blocks {
    /// More than this is not kept.
    const KEPT: usize = 1 << 20;

    /// `length` bytes of any content that begin where a block may.
    pub(crate) fn of(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length + BLOCK || self.0.len() > length + Self::KEPT {
            self.0 = vec![0; length + BLOCK];
        }
        let start = self.0.as_ptr().align_offset(BLOCK);
        &mut self.0[start..start + length]
    }
}
