//! The applied state of a replica: every committed entry up to some version, and nothing else (DESIGN 9).
//!
//! It lives in [fjall], so that data may exceed memory, but for what was applied last: that is gathered in memory (`recent`), a few
//! megabytes, and goes into the database in one atomic batch: the
//! keys, the results of requests, the configuration, and the id of the last applied entry. Nothing is synced while entries are applied:
//! after a crash the state is that after *some* earlier entry, and the log replays the rest. [`State::persist`] says
//! up to where the log is no longer needed for that.
//!
//! ```text
//! <dir>/CURRENT      which database is the state; replaced atomically
//! <dir>/state-<n>/   a fjall database with two keyspaces:
//!     data           user's key → record
//!     meta           last applied entry, configuration, results of requests and their horizon
//! <dir>/state-<n>.damaged   is there if the database was found to be damaged: it must not be used, but replaced
//! ```
//!
//! A snapshot from another node is gathered in a database of its own and becomes the state by a change of `CURRENT`,
//! so it is applied whole or not at all.

mod error;
mod format;
mod home;
mod journal;
mod recent;
mod restore;
mod rows;
mod scrub;
mod snapshot;
mod store;
mod view;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{EntryId, RequestId, Version};
use quorumkv_replica::requests::{Known, MAX_RESULTS};

pub use quorumkv_replica::Record;

pub use error::{
    ApplyError, Cause, ChunkError, InstallError, OpenStateError, PersistError, ReadError, RestoreError,
};
pub use restore::{Progress, Staging};
pub use scrub::{Scrub, Scrubbed};
pub use snapshot::SnapshotSource;
pub use view::{Page, View};

use home::Home;
use store::Store;

/// Longest key, in bytes: fjall keeps the length in 16 bits. The shortest has one byte.
pub const MAX_KEY_LENGTH: usize = u16::MAX as usize;

/// What the state may be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Memory for what was read from the database, in bytes: a quarter for rows, the rest for blocks of tables.
    pub cache_bytes: u64,
    /// Results of requests that are remembered. Replicas must agree on it, so only tests change it.
    max_results: usize,
    /// What is applied is gathered in memory up to this many bytes before it goes into the database.
    recent_bytes: usize,
}

impl Options {
    /// A cache of this many bytes.
    #[must_use]
    pub fn with_cache(cache_bytes: u64) -> Self {
        Self { cache_bytes, ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, max_results: MAX_RESULTS, recent_bytes: 8 << 20 }
    }
}

/// The applied state. Clones are handles to the same state.
///
/// Its calls block, on locks and on the disk. Reads may come from any thread. Entries are applied by one thread at a
/// time, which the storage slows down when it cannot keep up.
#[derive(Clone, Debug)]
pub struct State {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    home: Home,
    options: Options,
    /// Held to change what the state is: to apply, and to install a snapshot.
    writer: Mutex<()>,
    /// Replaced as a whole when a snapshot is installed. Readers go on with the one that they began with.
    store: RwLock<Arc<Store>>,
    /// Number of the next database.
    next_number: AtomicU64,
}

impl State {
    /// Opens the state in `dir`, which is created if it is not there, and removes what an interrupted restore has left.
    ///
    /// # Errors
    /// See [`OpenStateError`]. Damage is never repaired here; the remedy is to remove the directory and be restored.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenStateError> {
        let home = Home::open(dir)?;
        let number = match home.current()? {
            Some(number) => number,
            None => create_first(&home, options)?,
        };
        let store = Store::open(home.database(number), options)?;
        home.remove_all_but(Some(number))?;
        Ok(Self {
            shared: Arc::new(Shared {
                home,
                options,
                writer: Mutex::new(()),
                store: RwLock::new(Arc::new(store)),
                next_number: AtomicU64::new(number + 1),
            }),
        })
    }

    /// The last applied entry. Reads from now on see it and all before it, and possibly later ones.
    #[must_use]
    pub fn applied(&self) -> EntryId {
        self.store().applied()
    }

    /// Applies consecutive entries. Returns when readers see them; they are
    /// durable when [`persist`](Self::persist) says so.
    ///
    /// # Errors
    /// The storage failed: what of the entries is visible is not known, and the process must end.
    ///
    /// # Panics
    /// If the entries do not follow [`applied`](Self::applied) without a gap, or a key's length is not within
    /// 1..=[`MAX_KEY_LENGTH`]: entries are validated before they reach the log.
    pub fn apply<E: Borrow<Entry>>(&self, entries: &[E]) -> Result<(), ApplyError> {
        let _writer = self.shared.lock_writer();
        self.store().apply(entries)
    }

    /// Moves what is applied from memory into the database: for when there is nothing else to do.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn settle(&self) -> Result<(), ApplyError> {
        Ok(self.store().settle()?)
    }

    /// What `key` holds. The entry that wrote it may be later than [`applied`](Self::applied) said just now.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Record>, ReadError> {
        self.store().get(key)
    }

    /// The members of the cluster after the last applied entry; [`Configuration::UNKNOWN`] if this state has not been
    /// told any.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        self.store().configuration()
    }

    /// Tells a new state which configuration its cluster began with. A state that has one keeps it.
    ///
    /// # Errors
    /// The storage failed, and the process must end.
    pub fn begin_with(&self, first: &Configuration) -> Result<(), ApplyError> {
        let _writer = self.shared.lock_writer();
        self.store().begin_with(first)
    }

    /// What became of a request that its client sent for the first time when it knew `since` to be committed.
    #[must_use]
    pub fn lookup(&self, request: RequestId, since: Version) -> Known {
        self.store().lookup(request, since)
    }

    /// The state after one entry, unchanged as long as it is held. It keeps replaced values on the disk: hold it
    /// briefly. Waits for entries that are just being applied.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn view(&self) -> Result<View, ReadError> {
        View::open(self.store())
    }

    /// Makes what is applied durable, and returns the last entry that is certainly so: that which was
    /// [applied](Self::applied) when the call began. Entries cannot be applied while the disk syncs.
    ///
    /// # Errors
    /// The disk did not sync: the process must end, since trying again can lose data silently.
    pub fn persist(&self) -> Result<EntryId, PersistError> {
        self.store().persist()
    }

    /// The number of the database that is the state: another one after each snapshot that was installed.
    #[must_use]
    pub fn database(&self) -> u64 {
        self.store().directory().number()
    }

    /// Notes, durably, that the state in this database is damaged. The note says nothing of other databases.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn mark_damaged(&self, database: u64) -> std::io::Result<()> {
        self.shared.home.mark_damaged(database)
    }

    /// Whether this state was noted to be damaged.
    #[must_use]
    pub fn is_marked_damaged(&self) -> bool {
        self.shared.home.is_marked_damaged(self.store().directory().number())
    }

    /// Whether a table on the disk is damaged: what, for people. Reads all of them.
    ///
    /// # Errors
    /// The disk cannot be read, for a reason that has nothing to do with this state.
    pub fn find_damage(&self) -> std::io::Result<Option<String>> {
        match Scrub::new(self).step(u64::MAX)? {
            Scrubbed::Damaged(what) => Ok(Some(what)),
            Scrubbed::Whole | Scrubbed::Continues => Ok(None),
        }
    }

    /// Bytes that the state takes on the disk, with what is about to be removed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn disk_bytes(&self) -> std::io::Result<u64> {
        self.shared.home.disk_bytes()
    }

    fn store(&self) -> Arc<Store> {
        self.shared.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    /// The lock guards no data of its own; a thread that panicked with it leaves nothing half done that matters.
    fn lock_writer(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A path for a database that no other had since the state was opened.
    fn next_database(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

/// Creates an empty state as if it were a restored one, so that a crash at any point leaves a state or nothing.
fn create_first(home: &Home, options: Options) -> Result<u64, OpenStateError> {
    const FIRST: u64 = 1;
    home.remove_all_but(None)?;
    Store::create(home.database(FIRST), options)?.seal(EntryId::ZERO)?;
    home.set_current(FIRST)?;
    Ok(FIRST)
}
