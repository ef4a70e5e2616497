//! What was applied and is not in the database yet.
//!
//! Entries are applied here, and go into the database together: most of what a store is told is soon replaced, results of requests above
//! all, and so never gets there. Nothing is lost by that. The state was never synced while entries are applied; what a process had only
//! here when it ends is in its log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;
use bytes::Bytes;
use quorumkv_protocol::entry::{Body, Entry};
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{EntryId, RequestId, Version};
use quorumkv_replica::requests::{Changes, Requests, Row};

use super::Record;
use super::rows::Rows;
use super::store::is_key;

/// What a key or a result takes in memory besides its own bytes, roughly.
const OVERHEAD: usize = 128;

/// What was applied since the last move into the database, and what is being moved.
#[derive(Debug)]
pub(super) struct Recent {
    open: Batch,
    /// It stays visible here until the database has it.
    moving: Option<Arc<Batch>>,
    /// How many times the database has changed.
    moves: u64,
}

/// What consecutive entries come to. Every key is in it once: fjall gives all of a batch one sequence number, and could not
/// tell which of two values for a key is the later.
#[derive(Debug)]
pub(super) struct Batch {
    /// The entry before the first: the database has what was applied up to here.
    before: EntryId,
    /// The last of the entries.
    pub(super) applied: EntryId,
    bytes: usize,
    taken: usize,
    data: HashMap<Bytes, Option<Record>, RandomState>,
    /// Results of these entries that are not forgotten again. Gathered only when the batch is moved.
    pub(super) results: Vec<Row>,
    /// Requests whose results are in the database and were forgotten; some may have come again.
    forgotten: Vec<RequestId>,
    pub(super) horizon: Option<Version>,
    pub(super) configuration: Option<Configuration>,
}

impl Recent {
    /// Nothing was applied after this entry.
    pub(super) fn after(applied: EntryId) -> Self {
        Self { open: Batch::after(applied), moving: None, moves: 0 }
    }

    /// The last applied entry.
    pub(super) const fn applied(&self) -> EntryId {
        self.open.applied
    }

    /// Applies an entry, and notes it in the table of requests.
    ///
    /// # Panics
    /// If it does not follow what was applied.
    pub(super) fn add(&mut self, entry: &Entry, requests: &mut Requests) {
        self.open.add(entry, requests);
    }

    /// What the key holds, if that is not in the database.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Record>> {
        let moving = self.moving.as_ref().and_then(|batch| batch.data.get(key));
        self.open.data.get(key).or(moving).cloned()
    }

    /// Bytes of memory that what was not moved takes, roughly.
    pub(super) const fn bytes(&self) -> usize {
        self.open.bytes
    }

    /// Bytes that the entries since the last move had, with those that wrote what was replaced meanwhile.
    pub(super) const fn taken(&self) -> usize {
        self.open.taken
    }

    /// Up to this version, the database has everything, or has been given it.
    pub(super) const fn before(&self) -> Version {
        self.open.before.version
    }

    /// What is to be moved now; nothing if nothing was applied. `results` are those after [`before`](Self::before). `Err` if the move
    /// before has failed.
    pub(super) fn begin_move(&mut self, results: Vec<Row>) -> Result<Option<Arc<Batch>>, MoveFailed> {
        if self.moving.is_some() {
            return Err(MoveFailed);
        }
        if self.open.applied != self.open.before {
            let next = Batch::after(self.open.applied);
            let batch = std::mem::replace(&mut self.open, next);
            self.moving = Some(Arc::new(Batch { results, ..batch }));
        }
        Ok(self.moving.clone())
    }

    /// The database has what was to be moved, and `rows` of it are kept in memory.
    pub(super) fn moved(&mut self, rows: &Rows) {
        if let Some(batch) = self.moving.take() {
            rows.moved(&batch);
        }
        self.moves += 1;
    }

    /// How many times the database has changed. A row that was read from it is the present one as long as this stays, unless
    /// the key is here.
    pub(super) const fn moves(&self) -> u64 {
        self.moves
    }
}

/// The database did not take what was applied before.
#[derive(Debug)]
pub(super) struct MoveFailed;

impl Batch {
    fn after(applied: EntryId) -> Self {
        Self {
            before: applied,
            applied,
            bytes: 0,
            taken: 0,
            data: HashMap::default(),
            results: Vec::new(),
            forgotten: Vec::new(),
            horizon: None,
            configuration: None,
        }
    }

    /// The keys that changed, and what they hold: nothing, if they are deleted.
    pub(super) fn data(&self) -> impl ExactSizeIterator<Item = (&Bytes, Option<&Record>)> {
        self.data.iter().map(|(key, record)| (key, record.as_ref()))
    }

    /// Requests whose results are to be removed from the database.
    pub(super) fn forgotten(&self) -> impl Iterator<Item = RequestId> {
        let back: HashSet<RequestId, RandomState> = match self.forgotten.is_empty() {
            true => HashSet::default(),
            false => self.results.iter().map(|row| row.request).collect(),
        };
        self.forgotten.iter().copied().filter(move |request| !back.contains(request))
    }

    fn add(&mut self, entry: &Entry, requests: &mut Requests) {
        let (before, id) = (self.applied, entry.id);
        assert!(id.version == before.version.next(), "{id} does not follow {before}");
        assert!(id.epoch >= before.epoch, "{id} is of an older epoch than {before}");
        self.applied = id;
        self.taken += OVERHEAD;
        if let Body::Write(write) = &entry.body {
            for effect in &write.effects {
                let key = effect.key();
                assert!(is_key(key), "a key of {} bytes was let into the log", key.len());
                self.set(key, effect.value().map(|value| Record::new(id, owned(value))));
            }
        }
        if let Some(configuration) = entry.configuration() {
            self.configuration = Some(configuration.clone());
        }
        let Changes { removed, horizon, .. } = requests.apply(entry);
        for (request, version) in removed {
            if version <= self.before.version {
                self.bytes += size_of::<RequestId>();
                self.forgotten.push(request);
            }
        }
        self.horizon = horizon.or(self.horizon);
    }

    fn set(&mut self, key: &[u8], record: Option<Record>) {
        let length = |record: Option<&Record>| record.map_or(0, |record| record.value.len());
        self.bytes += length(record.as_ref());
        self.taken += key.len() + length(record.as_ref());
        if let Some(before) = self.data.get_mut(key) {
            self.bytes -= length(before.as_ref());
            *before = record;
        } else {
            self.bytes += OVERHEAD + key.len();
            self.data.insert(owned(key), record);
        }
    }
}

/// In memory of its own. What entries hold is counted when they leave the log's memory, and it may be part of something larger; and
/// memory is given back sooner by the thread that took it.
fn owned(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
