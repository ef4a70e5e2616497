//! The directory of the state: which database in it is the state, and how another one takes its place.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::OpenStateError;
use super::format::VERSION;

const CURRENT: &str = "CURRENT";
const CURRENT_NEW: &str = "CURRENT.new";
const DATABASE_PREFIX: &str = "state-";
const DAMAGED_SUFFIX: &str = ".damaged";
const FORMAT_LINE: &str = "quorumkv state format ";

/// In `CURRENT` of a state whose first database is not complete yet.
const NONE: u64 = 0;

/// The directory of the state.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
}

impl Home {
    /// Opens `path`, which is created if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, OpenStateError> {
        let home = Self { path: path.to_owned() };
        fs::create_dir_all(path).map_err(|source| home.failed("", source))?;
        Ok(home)
    }

    /// The path of a database.
    pub(super) fn database(&self, number: u64) -> Directory {
        let path = self.path.join(format!("{DATABASE_PREFIX}{number}"));
        Directory { path, number, is_doomed: AtomicBool::new(false) }
    }

    /// The number of the database that is the state; `None` if there has never been one.
    pub(super) fn current(&self) -> Result<Option<u64>, OpenStateError> {
        let damaged = |problem| OpenStateError::Damaged { path: self.path.join(CURRENT), problem };
        let text = match fs::read_to_string(self.path.join(CURRENT)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The first database is made only when `CURRENT` is there: so a database without it is no new state.
                return match self.databases()?.as_slice() {
                    [] => self.set_current(NONE).map(|()| None),
                    _ => Err(damaged("it is missing, but there are databases")),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged("it is no text")),
            Err(source) => return Err(self.failed(CURRENT, source)),
        };
        let number = parse_current(&text).map_err(|unfit| match unfit {
            Unfit::Format(found) => OpenStateError::Format { found },
            Unfit::Damaged(problem) => damaged(problem),
        })?;
        if number != NONE && !self.database(number).path.is_dir() {
            return Err(damaged("the database that it names is gone"));
        }
        Ok(Some(number).filter(|number| *number != NONE))
    }

    /// Makes a database the state, durably; it must be durable itself.
    pub(super) fn set_current(&self, number: u64) -> Result<(), OpenStateError> {
        self.prepare_current(number)
            .and_then(|()| self.switch_current())
            .map_err(|source| self.failed(CURRENT, source))
    }

    /// The first half of [`Self::set_current`], which changes nothing yet.
    pub(super) fn prepare_current(&self, number: u64) -> io::Result<()> {
        let mut file = File::create(self.path.join(CURRENT_NEW))?;
        file.write_all(current_text(number).as_bytes())?;
        file.sync_all()
    }

    /// The second half of [`Self::set_current`].
    pub(super) fn switch_current(&self) -> io::Result<()> {
        fs::rename(self.path.join(CURRENT_NEW), self.path.join(CURRENT))?;
        File::open(&self.path)?.sync_all()
    }

    /// Notes, durably, that a database is damaged.
    pub(super) fn mark_damaged(&self, number: u64) -> io::Result<()> {
        File::create(self.damage_mark(number))?.sync_all()?;
        File::open(&self.path)?.sync_all()
    }

    /// Whether a database was noted to be damaged.
    pub(super) fn is_marked_damaged(&self, number: u64) -> bool {
        self.damage_mark(number).exists()
    }

    fn damage_mark(&self, number: u64) -> PathBuf {
        self.path.join(format!("{DATABASE_PREFIX}{number}{DAMAGED_SUFFIX}"))
    }

    /// Removes all databases but one: what interrupted restores and removals have left.
    pub(super) fn remove_all_but(&self, kept: Option<u64>) -> Result<(), OpenStateError> {
        for number in self.databases()? {
            if Some(number) != kept {
                let directory = self.database(number);
                fs::remove_dir_all(directory.path())
                    .map_err(|source| OpenStateError::Io { path: directory.path.clone(), source })?;
            }
        }
        Ok(())
    }

    /// The numbers of the databases that are there.
    fn databases(&self) -> Result<Vec<u64>, OpenStateError> {
        let mut numbers = Vec::new();
        for file in fs::read_dir(&self.path).map_err(|source| self.failed("", source))? {
            let name = file.map_err(|source| self.failed("", source))?.file_name();
            numbers.extend(
                name.to_str().and_then(|name| name.strip_prefix(DATABASE_PREFIX)?.parse::<u64>().ok()),
            );
        }
        Ok(numbers)
    }

    /// Bytes that the directory takes on the disk. Files that vanish meanwhile do not count.
    pub(super) fn disk_bytes(&self) -> io::Result<u64> {
        fn of(path: &Path) -> io::Result<u64> {
            let metadata = fs::symlink_metadata(path)?;
            // Blocks of 512 bytes: journals are longer than what is written to them.
            let mut total = metadata.blocks() * 512;
            if metadata.is_dir() {
                for file in fs::read_dir(path)? {
                    match of(&file?.path()) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        bytes => total += bytes?,
                    }
                }
            }
            Ok(total)
        }
        of(&self.path)
    }

    fn failed(&self, name: &str, source: io::Error) -> OpenStateError {
        OpenStateError::Io { path: self.path.join(name), source }
    }
}

/// What `CURRENT` says when this database is the state.
pub(super) fn current_text(number: u64) -> String {
    format!("{FORMAT_LINE}{VERSION}\n{number}\n")
}

/// Why a text does not say which database is the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unfit {
    /// It is of another version of the format.
    Format(u32),
    /// Nobody has written it so.
    Damaged(&'static str),
}

/// The number in the text of `CURRENT`.
pub(super) fn parse_current(text: &str) -> Result<u64, Unfit> {
    let mut lines = text.lines();
    let format = lines.next().and_then(|line| line.strip_prefix(FORMAT_LINE)?.parse().ok());
    match format {
        Some(VERSION) => {}
        Some(found) => return Err(Unfit::Format(found)),
        None => return Err(Unfit::Damaged("its first line does not name a format")),
    }
    let number = lines.next().and_then(|line| line.parse().ok());
    let number = number.ok_or(Unfit::Damaged("its second line does not name a database"))?;
    if text == current_text(number) { Ok(number) } else { Err(Unfit::Damaged("it is not as it was written")) }
}

/// The directory of one database. Put last in the owner of the database, it is dropped when nothing uses it any more.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    number: u64,
    is_doomed: AtomicBool,
}

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether to remove it with all that is in it when it is dropped.
    pub(super) fn set_doomed(&self, is_doomed: bool) {
        self.is_doomed.store(is_doomed, Ordering::Relaxed);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.is_doomed.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove an old database; the next start will");
        }
    }
}
