//! Rows of the database that were read lately, in memory: fjall searches for each of them, in a list that is in no order in memory, or in
//! blocks of tables.

use ahash::RandomState;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::Record;
use super::recent::Batch;

/// What a row takes in memory besides its key and value, roughly.
const OVERHEAD: usize = 128;

/// Rows as the database has them after the last batch that was moved into it.
pub(super) struct Rows {
    cache: Cache<Bytes, Record, Weight, RandomState, DefaultLifecycle<Bytes, Record>>,
}

#[derive(Clone, Copy)]
struct Weight;

impl Weighter<Bytes, Record> for Weight {
    fn weight(&self, key: &Bytes, record: &Record) -> u64 {
        (key.len() + record.value.len() + OVERHEAD) as u64
    }
}

impl Rows {
    /// None, with room for so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let usual = usize::try_from(bytes).unwrap_or(usize::MAX) / (4 * OVERHEAD);
        let cache = Cache::with(usual, bytes, Weight, RandomState::new(), DefaultLifecycle::default());
        Self { cache }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Record> {
        self.cache.get(key)
    }

    /// The database has this row.
    pub(super) fn insert(&self, key: &[u8], record: Record) {
        self.cache.insert(Bytes::copy_from_slice(key), record);
    }

    /// The database has what was to be moved.
    pub(super) fn moved(&self, batch: &Batch) {
        for (key, record) in batch.data() {
            match record {
                // It stays if it was here: then it is read now and then.
                Some(record) => drop(self.cache.replace(key.clone(), record.clone(), true)),
                None => drop(self.cache.remove(key)),
            }
        }
    }
}
