//! Reading the state as it was after one entry.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Readable, Snapshot};
use quorumkv_protocol::EntryId;

use super::error::ReadError;
use super::format::{self, Malformed};
use super::store::{Store, is_key};
use super::{MAX_KEY_LENGTH, Record};

/// The state after one entry. It stays what it is, even when another state is installed.
pub struct View {
    snapshot: Snapshot,
    applied: EntryId,
    store: Arc<Store>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("applied", &self.applied).field("store", &self.store).finish()
    }
}

/// Some keys with their records, in the order of the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Keys and records.
    pub items: Vec<(Bytes, Record)>,
    /// Whether keys after the last of these begin with the prefix too.
    pub more: bool,
}

impl View {
    pub(super) fn open(store: Arc<Store>) -> Result<Self, ReadError> {
        let snapshot = store.snapshot()?;
        let applied = snapshot.get(store.meta(), format::APPLIED)?;
        let applied = format::decode_id(&applied.ok_or(Malformed("a state without an applied entry"))?)?;
        Ok(Self { snapshot, applied, store })
    }

    /// The last entry that this shows.
    #[must_use]
    pub const fn applied(&self) -> EntryId {
        self.applied
    }

    /// The number of the database that this is a view of.
    #[must_use]
    pub fn database(&self) -> u64 {
        self.store.directory().number()
    }

    /// What `key` holds.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Record>, ReadError> {
        if !is_key(key) {
            return Ok(None);
        }
        let stored = self.snapshot.get(self.store.data(), key)?;
        Ok(stored.map(|stored| format::decode_record(Bytes::from_owner(stored))).transpose()?)
    }

    /// The keys that begin with `prefix` and come after `after`, up to `limit_items` of them, and as many as have
    /// `limit_bytes` of keys and values together, but at least one.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit_items: usize,
        limit_bytes: usize,
    ) -> Result<Page, ReadError> {
        let mut page = Page { items: Vec::new(), more: false };
        let mut bytes = 0;
        for row in self.rows(prefix, after) {
            let (key, stored) = row.into_inner()?;
            let record = format::decode_record(Bytes::from_owner(stored))?;
            bytes += key.len() + record.value.len();
            if page.items.len() >= limit_items || bytes > limit_bytes && !page.items.is_empty() {
                page.more = true;
                break;
            }
            page.items.push((Bytes::from_owner(key), record));
        }
        Ok(page)
    }

    /// The rows of the keys that begin with `prefix` and come after `after`.
    fn rows(&self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = fjall::Guard> {
        let (first, end) = fjall::util::prefix_to_range(prefix);
        let begin = match after {
            // No key lies between a longer key and its longest possible part.
            Some(after) if after >= prefix => Bound::Excluded(&after[..after.len().min(MAX_KEY_LENGTH)]),
            _ => first.as_ref().map(AsRef::as_ref),
        };
        let end: Bound<&[u8]> = end.as_ref().map(AsRef::as_ref);
        let is_past_end =
            matches!((begin, end), (Bound::Excluded(begin), Bound::Excluded(end)) if begin >= end);
        let is_possible = prefix.len() <= MAX_KEY_LENGTH && !is_past_end;
        is_possible
            .then(|| self.snapshot.range::<&[u8], _>(self.store.data(), (begin, end)))
            .into_iter()
            .flatten()
    }

    pub(super) const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }
}
