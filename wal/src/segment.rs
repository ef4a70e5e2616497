//! Segment files: their names, and how one comes into being.
//!
//! A segment begins as the spare file, filled with zeros and synced. Its header is written and synced, and only then does it
//! get its name. So a file named as a segment always has a good header and its full size, whatever happened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorumkv_mutants::Mutant;

use crate::disk::{Disk, IoError};
use crate::files::{Blocks, LogFile};
use crate::format::SegmentHeader;

/// Zeros are written this many bytes at a time: so a sync of the log that comes meanwhile waits for no more.
const ZERO_CHUNK: u64 = 256 << 10;

/// An open segment. Its file stays readable for those who hold it, even when it was removed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    /// Absolute position of the first byte.
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn LogFile>,
}

impl Segment {
    /// The absolute position after the segment's last byte: where the next segment starts.
    pub(crate) fn limit(&self) -> u64 {
        self.start + self.size
    }
}

/// The one name of a file that is not (yet) a segment.
pub(crate) fn spare_path(directory: &Path) -> PathBuf {
    directory.join("spare.tmp")
}

pub(crate) fn segment_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:016x}.wal"))
}

/// The sequence in a segment's name; `None` for any other file.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let canonical =
        digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// Makes a file of `size` zero bytes, durable, under the spare's name. Real zeros, so that a later sync of a record has no
/// allocation to record. Before each piece `goes_on` is told how many bytes are there: `Ok(None)` as soon as it says no.
pub(crate) fn prepare_spare(
    disk: &Disk,
    directory: &Path,
    size: u64,
    goes_on: impl Fn(u64) -> bool,
) -> Result<Option<Arc<dyn LogFile>>, IoError> {
    let path = spare_path(directory);
    let file = disk.create(&path)?;
    let mut memory = Blocks::default();
    let zeros = memory.of(usize::try_from(size.min(ZERO_CHUNK)).expect("a small number"));
    zeros.fill(0);
    let mut written = 0;
    while written < size {
        if !goes_on(written) {
            return Ok(None);
        }
        let length = (size - written).min(ZERO_CHUNK);
        disk.write(&*file, &path, &zeros[..usize::try_from(length).expect("at most a chunk")], written)?;
        written += length;
    }
    disk.sync(&*file, &path)?;
    Ok(Some(file))
}

/// Turns the spare into the segment that `header` describes; durable under its name on return.
pub(crate) fn install_spare(
    disk: &Disk,
    directory: &Path,
    spare: Arc<dyn LogFile>,
    header: &SegmentHeader,
) -> Result<Segment, IoError> {
    let from = spare_path(directory);
    let path = segment_path(directory, header.sequence);
    disk.write(&*spare, &from, &header.encode(), 0)?;
    if !Mutant::SegmentHeaderNotSynced.on() {
        disk.sync(&*spare, &from)?;
    }
    disk.rename(&from, &path)?;
    if !Mutant::SegmentNameNotSynced.on() {
        disk.sync_directory(directory)?;
    }
    Ok(Segment { sequence: header.sequence, start: header.start, size: header.size, path, file: spare })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_names_are_segments() {
        let path = segment_path(Path::new("d"), 0x1f);
        assert_eq!(parse_name(path.file_name().unwrap().to_str().unwrap()), Some(0x1f));
        for name in [
            "spare.tmp",
            "1f.wal",
            "000000000000001F.wal",
            "+00000000000001f.wal",
            "000000000000001f.wal.bak",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
