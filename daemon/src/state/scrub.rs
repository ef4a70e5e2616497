//! Reading back the tables on the disk, a little at a time, to find damage before the data is needed.
//!
//! A table is written once, and its checksum is kept apart from it. What is in memory or in fjall's journal is not looked at: the
//! journal is read only after a crash, and what is damaged there is applied anew from the log.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use fjall::AbstractTree;
use xxhash_rust::xxh3::Xxh3;

use super::error::is_medium_error;
use super::store::Store;
use super::{Shared, State};

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// Goes through the tables of a state, again and again.
#[derive(Debug)]
pub struct Scrub {
    shared: Arc<Shared>,
    /// The number of the database that the tables are of.
    database: u64,
    left: Vec<Table>,
    current: Option<Current>,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) path: PathBuf,
    checksum: u128,
}

struct Current {
    table: Table,
    file: File,
    hash: Xxh3,
}

impl Current {
    /// Reads on, and digests what was read.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("table", &self.table).finish_non_exhaustive()
    }
}

/// What a scrub has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scrubbed {
    /// There are tables left.
    Continues,
    /// All tables were as they were written. The next step begins anew.
    Whole,
    /// A table is not as it was written: this, for people.
    Damaged(String),
}

impl Scrub {
    /// Begins with the tables that there are now.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let shared = Arc::clone(&state.shared);
        Self { shared, database: 0, left: Vec::new(), current: None }
    }

    /// The number of the database that was read last.
    #[must_use]
    pub const fn database(&self) -> u64 {
        self.database
    }

    /// Reads about `max_bytes`, or to the end of the last table.
    ///
    /// # Errors
    /// The disk cannot be read, for a reason that has nothing to do with this state.
    pub fn step(&mut self, max_bytes: u64) -> io::Result<Scrubbed> {
        let store = Arc::clone(&self.shared.store.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        let database = store.directory().number();
        if self.database != database || (self.current.is_none() && self.left.is_empty()) {
            (self.database, self.current) = (database, None);
            self.left = tables(&store);
        }
        drop(store);
        let (mut budget, mut buffer) = (max_bytes, vec![0; BUFFER]);
        while budget > 0 {
            let Some(current) = self.next()? else { return Ok(Scrubbed::Whole) };
            let damaged = match current.read(&mut buffer) {
                Ok(0) => {
                    let is_whole = current.hash.digest128() == current.table.checksum;
                    (!is_whole).then(|| format!("{} is not as it was written", current.table.path.display()))
                }
                Ok(read) => {
                    budget = budget.saturating_sub(read as u64);
                    continue;
                }
                Err(error) if is_medium_error(&error) => {
                    Some(format!("{} cannot be read: {error}", current.table.path.display()))
                }
                Err(error) => return Err(error),
            };
            self.current = None;
            if let Some(damaged) = damaged {
                return Ok(Scrubbed::Damaged(damaged));
            }
        }
        Ok(Scrubbed::Continues)
    }

    /// The table being read, or the next; `None` after the last. One that was merged with others meanwhile is gone.
    fn next(&mut self) -> io::Result<Option<&mut Current>> {
        while self.current.is_none() {
            let Some(table) = self.left.pop() else { return Ok(None) };
            match File::open(&table.path) {
                Ok(file) => self.current = Some(Current { table, file, hash: Xxh3::new() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.current.as_mut())
    }
}

pub(super) fn tables(store: &Store) -> Vec<Table> {
    [store.data(), store.meta()]
        .into_iter()
        .flat_map(|keyspace| {
            let version = keyspace.tree.current_version();
            let tables = version.iter_tables().map(|table| Table {
                path: table.path.to_path_buf(),
                checksum: table.checksum().into_u128(),
            });
            tables.collect::<Vec<_>>()
        })
        .collect()
}
