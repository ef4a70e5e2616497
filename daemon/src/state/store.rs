//! One database, and what of it is kept in memory.

use std::borrow::Borrow;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
    Readable, Slice, Snapshot,
};
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{EntryId, RequestId, Version};
use quorumkv_replica::requests::{Known, Requests};

use super::error::{ApplyError, OpenStateError, PersistError, ReadError, RestoreError};
use super::format::{self, Malformed, MetaRow};
use super::home::Directory;
use super::journal;
use super::recent::{Batch, MoveFailed, Recent};
use super::rows::Rows;
use super::snapshot::{StoredRow, Table};
use super::{MAX_KEY_LENGTH, Options, Record};

/// Size at which what was written is sealed, to be moved from memory to a table. Up to four that wait to be moved are
/// kept besides, but only while entries come faster than the disk takes them. fjall's 64 MiB would fill with old
/// versions of a few thousand keys that are written again and again.
const DATA_MEMTABLE_BYTES: u64 = 8 << 20;

/// The same for results of requests, each a tenth of the size of a usual write.
const META_MEMTABLE_BYTES: u64 = 2 << 20;

/// Size of the tables on disk. Merging tables of fjall's 64 MiB takes seconds, in which no memtable is moved.
const TABLE_BYTES: u64 = 16 << 20;

/// When the journals that wait for a memtable to be moved take this much, fjall moves it: so a keyspace that is seldom
/// written does not keep them for ever. The smallest that fjall permits; together with the journal being written, some
/// 200 MiB of disk and a second of replay at start are the bound.
const JOURNALS_BYTES: u64 = 64 << 20;

/// fjall keeps one of several workers free for moving memtables, and that one spins while the others merge: a third
/// more processor time in all. A single one does everything in turn.
const WORKERS: usize = 1;

/// Files that are kept open; fjall's 900 would nearly use up the usual limit of a process.
const OPEN_FILES: usize = 256;

/// Entries of so many times the memory that may be taken are gathered, since most of what they wrote was replaced: so many have to be
/// replayed after the process was killed.
const REPLAYED: usize = 4;

/// A database in its directory. The order of the fields is that in which they must be dropped.
pub(super) struct Store {
    recent: RwLock<Recent>,
    /// What was read of the database lately. Changes together with it only while `recent` is held to write.
    rows: Rows,
    /// Of what was applied, how much is kept in memory only, in bytes.
    recent_bytes: usize,
    /// Held to move what was applied into the database.
    moving: Mutex<()>,
    configuration: RwLock<Configuration>,
    /// May be ahead of `applied` by the entries that are just being applied.
    requests: RwLock<Requests>,
    /// Held to write while a batch is committed, and to read while a snapshot is taken. fjall's background work makes
    /// new sequence numbers visible at any moment, and a snapshot taken then would show a part of the batch.
    commit: RwLock<()>,
    data: Keyspace,
    meta: Keyspace,
    database: Database,
    directory: Directory,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("directory", &self.directory).field("applied", &self.applied()).finish()
    }
}

impl Store {
    /// Creates an empty database, which is no state before it is [sealed](Self::seal).
    pub(super) fn create(directory: Directory, options: Options) -> fjall::Result<Self> {
        // Journals are not compressed: they live for seconds, and the processor is scarcer than the disk.
        let database = Database::builder(directory.path())
            .cache_size(options.cache_bytes / 4 * 3)
            .worker_threads(WORKERS)
            .max_journaling_size(JOURNALS_BYTES)
            .journal_compression(CompressionType::None)
            .max_cached_files(Some(OPEN_FILES))
            .open()?;
        // A keyspace keeps the settings that it was created with.
        let compaction = Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES));
        let keyspace = |name, memtable_bytes| {
            let options = KeyspaceCreateOptions::default().compaction_strategy(compaction.clone());
            database.keyspace(name, || options.max_memtable_size(2 * memtable_bytes))
        };
        Ok(Self {
            recent: RwLock::new(Recent::after(EntryId::ZERO)),
            rows: Rows::new(options.cache_bytes / 4),
            recent_bytes: options.recent_bytes,
            moving: Mutex::new(()),
            configuration: RwLock::new(Configuration::UNKNOWN),
            requests: RwLock::new(Requests::with_capacity(options.max_results)),
            commit: RwLock::new(()),
            data: keyspace("data", DATA_MEMTABLE_BYTES)?,
            meta: keyspace("meta", META_MEMTABLE_BYTES)?,
            database,
            directory,
        })
    }

    /// Opens a database that was sealed.
    pub(super) fn open(directory: Directory, options: Options) -> Result<Self, OpenStateError> {
        let last_whole = journal::mend(directory.path()).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenStateError::Locked,
            _ => OpenStateError::Io { path: directory.path().to_owned(), source },
        })?;
        let store = Self::create(directory, options)?;
        // fjall syncs the journal before it moves a memtable, so tables are never ahead of what a crash leaves of it.
        let tables = [&store.data, &store.meta].map(|keyspace| keyspace.tree.get_highest_persisted_seqno());
        if last_whole.is_some() && tables.into_iter().max().flatten() > last_whole {
            return Err(Malformed("the synced part of the journal").into());
        }
        let applied =
            store.meta.get(format::APPLIED)?.ok_or(Malformed("a database without an applied entry"))?;
        *store.write_recent() = Recent::after(format::decode_id(&applied)?);
        let after_applied = (Bound::Excluded(format::APPLIED), Bound::Unbounded);
        for row in store.database.snapshot().range::<&[u8], _>(&store.meta, after_applied) {
            let (key, value) = row.into_inner()?;
            store.restore_meta(MetaRow::decode(&key, &value)?)?;
        }
        Ok(store)
    }

    /// Makes what was restored the durable state after `applied`.
    pub(super) fn seal(&self, applied: EntryId) -> fjall::Result<()> {
        let mut batch = self.database.batch();
        batch.insert(&self.meta, format::APPLIED, format::id_value(applied));
        batch.commit()?;
        self.database.persist(PersistMode::SyncAll)?;
        *self.write_recent() = Recent::after(applied);
        Ok(())
    }

    pub(super) fn applied(&self) -> EntryId {
        self.read_recent().applied()
    }

    pub(super) fn configuration(&self) -> Configuration {
        self.configuration.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes this the configuration of a state in which nothing is applied and that has none. What a newcomer is told, which
    /// knows no members, is none.
    pub(super) fn begin_with(&self, first: &Configuration) -> Result<(), ApplyError> {
        let is_new = self.applied() == EntryId::ZERO && self.configuration() == Configuration::UNKNOWN;
        if is_new && *first != Configuration::UNKNOWN {
            let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), 1)
                .durability(Some(PersistMode::Buffer));
            batch.insert(&self.meta, format::CONFIGURATION, format::configuration_value(first));
            self.write(batch)?;
            self.set_configuration(first.clone());
        }
        Ok(())
    }

    pub(super) fn lookup(&self, request: RequestId, since: Version) -> Known {
        self.requests.read().expect(REQUESTS_INTACT).lookup(request, since)
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Record>, ReadError> {
        if !is_key(key) {
            return Ok(None);
        }
        let moves = {
            let recent = self.read_recent();
            if let Some(record) = recent.get(key) {
                return Ok(record);
            }
            if let Some(record) = self.rows.get(key) {
                return Ok(Some(record));
            }
            recent.moves()
        };
        let Some(stored) = self.data.get(key)? else { return Ok(None) };
        // Copied: fjall's may be a part of a whole block.
        let record = format::decode_record(Bytes::copy_from_slice(&stored))?;
        let recent = self.read_recent();
        if recent.moves() == moves {
            self.rows.insert(key, record.clone());
        }
        Ok(Some(record))
    }

    /// A moment between two batches, after all that was applied when this was called.
    pub(super) fn snapshot(&self) -> Result<Snapshot, ReadError> {
        self.settle().map_err(|error| ReadError::Move(error.into()))?;
        let _no_commit = self.commit.read().unwrap_or_else(PoisonError::into_inner);
        Ok(self.database.snapshot())
    }

    /// User's keys.
    pub(super) fn data(&self) -> &Keyspace {
        &self.data
    }

    /// Everything else.
    pub(super) fn meta(&self) -> &Keyspace {
        &self.meta
    }

    pub(super) fn persist(&self) -> Result<EntryId, PersistError> {
        let applied = self.applied();
        self.settle()?;
        self.database.persist(PersistMode::SyncAll)?;
        Ok(applied)
    }

    pub(super) fn apply<E: Borrow<Entry>>(&self, entries: &[E]) -> Result<(), ApplyError> {
        let (mut requests, mut recent) = (self.write_requests(), self.write_recent());
        for entry in entries {
            recent.add(entry.borrow(), &mut requests);
        }
        let is_much = recent.bytes() > self.recent_bytes || recent.taken() > REPLAYED * self.recent_bytes;
        let newest = entries.iter().rev().find_map(|entry| entry.borrow().configuration());
        if let Some(configuration) = newest {
            self.set_configuration(configuration.clone());
        }
        drop((requests, recent));
        if is_much {
            self.settle()?;
        }
        Ok(())
    }

    /// Moves everything that was applied into the database.
    pub(super) fn settle(&self) -> fjall::Result<()> {
        let _one_at_a_time = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = {
            // Nothing is applied while this is held, so it is the table after all of what is moved.
            let requests = self.requests.read().expect(REQUESTS_INTACT);
            let before = self.read_recent().before();
            let results = requests.rows_after(before).collect();
            self.write_recent().begin_move(results).map_err(|MoveFailed| fjall::Error::Poisoned)?
        };
        if let Some(batch) = batch {
            self.commit(&batch)?;
            self.write_recent().moved(&self.rows);
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch) -> fjall::Result<()> {
        let items = batch.data().len() + batch.results.len() + 3;
        // To the system, not to the disk: the end of the process alone loses nothing of it.
        let mut out = OwnedWriteBatch::with_capacity(self.database.clone(), items)
            .durability(Some(PersistMode::Buffer));
        for (key, record) in batch.data() {
            match record {
                Some(Record { id, value, .. }) => {
                    out.insert(&self.data, key.as_ref(), format::record_value(*id, value));
                }
                None => out.remove(&self.data, key.as_ref()),
            }
        }
        for row in &batch.results {
            out.insert(&self.meta, format::request_key(row.request), format::row_value(row));
        }
        for request in batch.forgotten() {
            out.remove(&self.meta, format::request_key(request));
        }
        if let Some(horizon) = batch.horizon {
            out.insert(&self.meta, format::HORIZON, format::horizon_value(horizon));
        }
        if let Some(configuration) = &batch.configuration {
            out.insert(&self.meta, format::CONFIGURATION, format::configuration_value(configuration));
        }
        out.insert(&self.meta, format::APPLIED, format::id_value(batch.applied));
        self.write(out)
    }

    fn write(&self, batch: OwnedWriteBatch) -> fjall::Result<()> {
        let no_snapshot = self.commit.write().unwrap_or_else(PoisonError::into_inner);
        batch.commit()?;
        drop(no_snapshot);
        // fjall would leave this to its worker, and while that is merging tables memory and journals would grow without
        // bound. Here, memtables that wait to be moved slow the next commit down.
        for (keyspace, limit) in [(&self.data, DATA_MEMTABLE_BYTES), (&self.meta, META_MEMTABLE_BYTES)] {
            if keyspace.tree.active_memtable().size() > limit {
                keyspace.rotate_memtable()?;
            }
        }
        Ok(())
    }

    /// Stores rows of another state. Until the database is sealed, none of this is a state.
    pub(super) fn restore(&self, rows: Vec<StoredRow>) -> Result<(), RestoreError> {
        let mut batch = self.database.batch();
        for StoredRow { table, key, value } in rows {
            let keyspace = match table {
                Table::Data => &self.data,
                Table::Meta(row) => {
                    self.restore_meta(row)?;
                    &self.meta
                }
            };
            batch.insert(keyspace, Slice::new(&key), Slice::new(&value));
        }
        Ok(self.write(batch)?)
    }

    /// Puts a stored row back into memory.
    fn restore_meta(&self, row: MetaRow) -> Result<(), Malformed> {
        match row {
            MetaRow::Configuration(configuration) => self.set_configuration(configuration),
            MetaRow::Horizon(horizon) => self.write_requests().restore_horizon(horizon),
            MetaRow::Result(row) => {
                self.write_requests().restore_row(row).map_err(|_| Malformed("the table of requests"))?;
            }
        }
        Ok(())
    }

    fn set_configuration(&self, configuration: Configuration) {
        *self.configuration.write().unwrap_or_else(PoisonError::into_inner) = configuration;
    }

    fn read_recent(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().expect(RECENT_INTACT)
    }

    fn write_recent(&self) -> RwLockWriteGuard<'_, Recent> {
        self.recent.write().expect(RECENT_INTACT)
    }

    fn write_requests(&self) -> RwLockWriteGuard<'_, Requests> {
        self.requests.write().expect(REQUESTS_INTACT)
    }
}

const RECENT_INTACT: &str = "no thread panicked while it applied entries";

const REQUESTS_INTACT: &str = "no thread panicked while it changed the results of requests";

/// Whether fjall can hold this key.
pub(super) const fn is_key(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY_LENGTH
}
