//! One snapshot: a file with the tree as it was right after a transaction.
//!
//! Magic (8 bytes), format (u32), zxid (u64), the tree, the bytes that the tree takes (u64), and the CRC-32C of everything
//! before (u32); integers are big-endian. A file is checked as a whole before any of it is decoded.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::disk::Faults;
use crate::tree::{DecodeError, Tree};

const MAGIC: [u8; 8] = *b"qkvksnap";
const FORMAT: u32 = 1;
const HEADER: usize = 8 + 4 + 8;
const TRAILER: usize = 8 + 4;

/// Bytes after which a part is made durable: one sync of everything would hold up those of the log for long.
const SYNC_BYTES: u64 = 8 << 20;

const BUFFER: usize = 256 << 10;

/// What is wrong with a snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// It is not what was written.
    #[error("the snapshot {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        reason: String,
    },
    /// It was written by another version of this software.
    #[error("the snapshot {path} has the format {format}, and this keeper knows {FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that it names.
        format: u32,
    },
    /// It cannot be read or written.
    #[error("cannot {action} the snapshot {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { action, path, source }
}

/// A snapshot that is on disk, and not known to be damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub(super) zxid: i64,
    /// Of the file.
    pub(super) bytes: u64,
}

/// The name of the snapshot at `zxid`.
pub(super) fn path(directory: &Path, zxid: i64) -> PathBuf {
    directory.join(format!("snapshot.{zxid:016x}"))
}

/// The snapshots in a directory, oldest first. What an interrupted server has left unfinished is removed.
pub(super) fn list(directory: &Path) -> Result<Vec<Kept>, SnapshotError> {
    let mut snapshots = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
        let entry = entry.map_err(io_error("list", directory))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("snapshot.") && name.ends_with(".new") {
            fs::remove_file(entry.path()).map_err(io_error("remove", &entry.path()))?;
        } else if let Some(zxid) = name.strip_prefix("snapshot.").and_then(parse_zxid) {
            let bytes = entry.metadata().map_err(io_error("read", &entry.path()))?.len();
            snapshots.push(Kept { zxid, bytes });
        }
    }
    snapshots.sort_unstable_by_key(|kept| kept.zxid);
    Ok(snapshots)
}

fn parse_zxid(hex: &str) -> Option<i64> {
    let is_hex = hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| i64::from_str_radix(hex, 16).ok()).flatten()
}

/// Writes a snapshot of the tree; when this returns it is durable. Returns the size of the file. It is given up when it leaves
/// fewer than `least` bytes of the disk, which are for the log.
pub(super) fn write(
    directory: &Path,
    tree: &Tree,
    faults: &Faults,
    least: u64,
) -> Result<Kept, SnapshotError> {
    let zxid = tree.last_zxid();
    let path = path(directory, zxid);
    let new = path.with_extension(format!("{zxid:016x}.new"));
    let file = faults.create(&new).map_err(io_error("create", &new))?;
    let syncing = Syncing { file, unsynced: 0, faults, path: &new, directory, least };
    let mut out = Summed { inner: BufWriter::with_capacity(BUFFER, syncing), crc: 0, bytes: 0 };
    let write = |out: &mut Summed<BufWriter<Syncing<'_>>>| {
        out.write_all(&MAGIC)?;
        out.write_all(&FORMAT.to_be_bytes())?;
        out.write_all(&zxid.to_be_bytes())?;
        tree.encode(out)?;
        out.write_all(&(out.bytes - HEADER as u64).to_be_bytes())?;
        out.write_all(&out.crc.to_be_bytes())?;
        out.flush()
    };
    if let Err(error) = write(&mut out) {
        // Perhaps there is no room: then what is of no use is to take none. It is removed at the next start otherwise.
        let _ = fs::remove_file(&new);
        return Err(io_error("write", &new)(error));
    }
    faults.rename(&new, &path).map_err(io_error("rename", &new))?;
    Ok(Kept { zxid, bytes: out.bytes })
}

/// Reads a snapshot.
pub(super) fn read(directory: &Path, zxid: i64) -> Result<Tree, SnapshotError> {
    let path = path(directory, zxid);
    let length = fs::metadata(&path).map_err(io_error("read", &path))?.len();
    decode(&path, zxid, length, || File::open(&path))
}

/// Reads a snapshot of this length from what `open` returns, which is called twice.
pub(super) fn decode<R: Read>(
    path: &Path,
    zxid: i64,
    length: u64,
    open: impl Fn() -> io::Result<R>,
) -> Result<Tree, SnapshotError> {
    let damaged = |reason: &str| SnapshotError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let open = || open().map_err(io_error("open", path));
    let body = length.checked_sub((HEADER + TRAILER) as u64).ok_or_else(|| damaged("it is too short"))?;
    let mut header = [0; HEADER];
    let buffer = usize::try_from(length).map_or(BUFFER, |length| length.min(BUFFER));
    let checked = check(&mut BufReader::with_capacity(buffer, open()?), &mut header, body);
    let intact = checked.map_err(io_error("read", path))?;
    if header[..8] != MAGIC {
        return Err(damaged("it does not begin as a snapshot does"));
    }
    if !intact {
        return Err(damaged("its checksum is wrong"));
    }
    let format = u32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
    if format != FORMAT {
        return Err(SnapshotError::Format { path: path.to_owned(), format });
    }
    if header[12..] != zxid.to_be_bytes() {
        return Err(damaged("it is one of another transaction"));
    }
    let mut input = BufReader::with_capacity(buffer, open()?);
    input.read_exact(&mut header).map_err(io_error("read", path))?;
    let mut input = input.take(body);
    let tree = Tree::decode(&mut input).map_err(|error| match error {
        DecodeError::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            io_error("read", path)(source)
        }
        error => damaged(&error.to_string()),
    })?;
    if input.limit() > 0 {
        return Err(damaged("something follows the tree"));
    }
    if tree.last_zxid() != zxid {
        return Err(damaged("its tree is one of another transaction"));
    }
    Ok(tree)
}

/// Reads everything once. Whether length and checksum are what they should be.
fn check(input: &mut impl Read, header: &mut [u8], body: u64) -> io::Result<bool> {
    input.read_exact(header)?;
    let mut crc = crc32c::crc32c(header);
    let mut left = body;
    let mut buffer = vec![0; usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER))];
    while left > 0 {
        let part = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        input.read_exact(&mut buffer[..part])?;
        crc = crc32c::crc32c_append(crc, &buffer[..part]);
        left -= part as u64;
    }
    let mut trailer = [0; TRAILER];
    input.read_exact(&mut trailer)?;
    crc = crc32c::crc32c_append(crc, &trailer[..8]);
    Ok(trailer[..8] == body.to_be_bytes() && trailer[8..] == crc.to_be_bytes())
}

/// Sums up what is written.
struct Summed<W> {
    inner: W,
    crc: u32,
    bytes: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Makes durable what is written, in parts.
struct Syncing<'a> {
    file: File,
    unsynced: u64,
    faults: &'a Faults,
    path: &'a Path,
    directory: &'a Path,
    least: u64,
}

impl Write for Syncing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= SYNC_BYTES {
            self.flush()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.faults.sync(&self.file, self.path)?;
        self.unsynced = 0;
        if self.faults.free(self.directory)? < self.least {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is nearly full"));
        }
        Ok(())
    }
}
