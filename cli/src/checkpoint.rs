//! How far an import has come, on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure};
use crate::invocation::with_suffix;
use crate::output::to_json;

/// The leading lines of an input that are surely written to a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The cluster that they were written to: elsewhere they would be missing.
    pub(crate) cluster: String,
    /// How many lines.
    pub(crate) lines: u64,
    /// CRC-32C of these lines: another input must not be continued in their place.
    pub(crate) crc32c: u32,
}

/// The file that holds the mark.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
}

impl Checkpoint {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The mark of an earlier run, if it left one; it must belong to this cluster.
    pub(crate) fn load(&self, cluster: &str) -> Result<Option<Mark>, Failure> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
        };
        let mark: Mark = serde_json::from_slice(&text)
            .map_err(|error| self.unfit(&format!("is not a checkpoint ({error})")))?;
        if mark.cluster != cluster {
            return Err(self.unfit(&format!("is of cluster {}, and this is cluster {cluster}", mark.cluster)));
        }
        Ok(Some(mark))
    }

    /// The checkpoint cannot be used for this import.
    pub(crate) fn unfit(&self, why: &str) -> Failure {
        Failure::new(Code::Other, format!("{} {why}", self.path.display()))
            .advise("delete it to begin from the first line, or name another with --checkpoint")
    }

    /// Replaces the mark; the old or the new one survives a crash.
    pub(crate) fn save(&self, mark: &Mark) -> Result<(), Failure> {
        replace(&self.path, to_json(mark).as_bytes()).map_err(|error| self.failed("write", &error))
    }

    /// Forgets the mark, when everything is written.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove", &error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn failed(&self, doing: &str, error: &io::Error) -> Failure {
        Failure::io(&format!("{doing} the checkpoint {}", self.path.display()), error)
    }
}

/// Replaces a file's content as a whole and durably.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = with_suffix(path, ".new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename_durably(&fresh, path)
}

/// Renames a file, and has the rename itself survive a crash.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_for_its_cluster_only_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(folder.path().join("progress"));
        assert_eq!(checkpoint.load("c").unwrap(), None);
        let mut mark = Mark { cluster: "c".to_owned(), lines: 3, crc32c: 5 };
        checkpoint.save(&mark).unwrap();
        mark.lines = 4;
        checkpoint.save(&mark).unwrap();
        assert_eq!(checkpoint.load("c").unwrap(), Some(mark));
        assert_eq!(checkpoint.load("d").unwrap_err().code(), Some(Code::Other));
        checkpoint.remove().unwrap();
        checkpoint.remove().unwrap();
        assert_eq!(checkpoint.load("c").unwrap(), None);
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("progress");
        fs::write(&path, "{\"lines\":").unwrap();
        assert!(Checkpoint::new(path).load("c").is_err());
    }
}
