//! Mends what a loss of power does to fjall's journal.
//!
//! The state is not synced while entries are applied, so the last batches of a journal can reach the disk in part and
//! out of order. fjall 3.1 drops a batch that ends too soon, but gives up on one with a hole in it, and with it on the
//! whole database. Whatever was not synced is replayed from our log: here the journal is cut after its last batch that
//! is whole, before fjall sees it.
//!
//! The format is that of fjall's version 3, little-endian; only the part that we use:
//!
//! | what | bytes |
//! |---|---|
//! | start of a batch | 1, count of items u32, sequence number u64 |
//! | item | 2, type u8, compression u8 (0: none), keyspace u64, key's length u16, value's u32, stored value's u32, key, value |
//! | clearing of a keyspace, which counts as an item | 4, keyspace u64 |
//! | end | 3, XXH3 of the items u64, `FJL` 3 |

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START_LENGTH: usize = 1 + 4 + 8;
const ITEM_LENGTH: usize = 1 + 1 + 8 + 2 + 4 + 4;
const CLEAR_LENGTH: usize = 8;
const END_LENGTH: usize = 1 + 8 + 4;
const MAGIC: &[u8] = b"FJL\x03";

/// Cuts the journal that was being written when the process ended. Older ones were synced before it was begun. Returns
/// the sequence number of the last whole batch, if anything was cut after one.
///
/// # Errors
/// Of kind [`io::ErrorKind::WouldBlock`] if another process has the database open.
pub(super) fn mend(database: &Path) -> io::Result<Option<u64>> {
    // fjall's own lock, released at the end of this function for fjall to take it.
    let lock = File::options().read(true).write(true).open(database.join("lock"))?;
    lock.try_lock()?;
    let Some(path) = newest(database)? else { return Ok(None) };
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let (whole, last) = whole(BufReader::with_capacity(1 << 16, &file), length)?;
    if whole < length {
        file.set_len(whole)?;
        file.sync_all()?;
        return Ok(last);
    }
    Ok(None)
}

/// How many bytes of a journal with this length are whole batches, and the sequence number of the last of these.
pub(super) fn whole(reader: impl Read, length: u64) -> io::Result<(u64, Option<u64>)> {
    let mut scan = Scan { reader, left: length, piece: Vec::new() };
    let (mut whole, mut last) = (0, None);
    while let Some(sequence) = scan.batch()? {
        whole = length - scan.left;
        last = Some(sequence);
    }
    Ok((whole, last))
}

fn newest(database: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for file in fs::read_dir(database)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jnl")?.parse::<u64>().ok());
        newest = newest.max(number);
    }
    Ok(newest.map(|number| database.join(format!("{number}.jnl"))))
}

/// Reads a journal front to back.
struct Scan<R> {
    reader: R,
    /// Bytes until the end of the file.
    left: u64,
    piece: Vec<u8>,
}

impl<R: Read> Scan<R> {
    /// The sequence number of the next batch; `None` if it is not whole.
    fn batch(&mut self) -> io::Result<Option<u64>> {
        let Some([1, start @ ..]) = self.take(START_LENGTH)? else { return Ok(None) };
        let (count, sequence) = (number(&start[..4]), number(&start[4..]));
        let mut hash = Xxh3::new();
        for _ in 0..count {
            if !self.item(&mut hash)? {
                return Ok(None);
            }
        }
        let Some([3, end @ ..]) = self.take(END_LENGTH)? else { return Ok(None) };
        let is_whole = number(&end[..8]) == hash.digest() && end[8..] == *MAGIC;
        Ok(is_whole.then_some(sequence))
    }

    /// Whether the next item is whole, by its lengths.
    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let Some([tag]) = self.take(1)? else { return Ok(false) };
        let tag = *tag;
        hash.update(&[tag]);
        let header_length = match tag {
            2 => ITEM_LENGTH,
            4 => CLEAR_LENGTH,
            _ => return Ok(false),
        };
        let Some(header) = self.take(header_length)? else { return Ok(false) };
        hash.update(header);
        if tag == 4 {
            return Ok(true);
        }
        let (compression, key) = (header[1], number(&header[10..12]));
        let (value, stored_value) = (number(&header[12..16]), number(&header[16..20]));
        if compression != 0 || value != stored_value {
            return Ok(false);
        }
        let Ok(length) = usize::try_from(key + value) else { return Ok(false) };
        let Some(content) = self.take(length)? else { return Ok(false) };
        hash.update(content);
        Ok(true)
    }

    /// The next bytes; `None` if the file has not so many.
    fn take(&mut self, length: usize) -> io::Result<Option<&[u8]>> {
        let Some(left) = self.left.checked_sub(length as u64) else { return Ok(None) };
        self.piece.resize(length, 0);
        self.reader.read_exact(&mut self.piece)?;
        self.left = left;
        Ok(Some(&self.piece))
    }
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
