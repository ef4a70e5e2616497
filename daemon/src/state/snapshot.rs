//! The state in pieces, for another node to be restored from.
//!
//! A piece is a sequence of rows, those of the keyspace `data` first:
//!
//! | bytes | meaning |
//! |---|---|
//! | 1 | keyspace: 0 `data`, 1 `meta` |
//! | 2 | length of the key |
//! | 4 | length of the value |
//! | | key, value, as [stored](super::format) |
//!
//! The last applied entry is not among the rows: it is the snapshot's identity. A cursor is the keyspace and the key of
//! the last row before it, so cursors grow from piece to piece; the empty one begins.

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fjall::{Readable, Slice};
use quorumkv_protocol::EntryId;
use quorumkv_protocol::peer::{Digest, SnapshotChunk, SnapshotPosition};
use xxhash_rust::xxh3::Xxh3;

use super::error::{ChunkError, ReadError};
use super::format::{self, Malformed, MetaRow};
use super::store::is_key;
use super::{State, View};

const DATA: u8 = 0;
const META: u8 = 1;

/// Bytes before the key of a row.
const ROW_HEADER: usize = 1 + 2 + 4;

/// A state that other nodes can copy piece by piece while this one goes on.
#[derive(Debug)]
pub struct SnapshotSource {
    view: View,
}

impl SnapshotSource {
    /// Takes a snapshot of `state`. It keeps replaced values on the disk as long as it lives.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(state: &State) -> Result<Self, ReadError> {
        Ok(Self { view: state.view()? })
    }

    /// The last entry that the snapshot covers.
    #[must_use]
    pub const fn identity(&self) -> EntryId {
        self.view.applied()
    }

    /// The number of the database that this is a snapshot of.
    #[must_use]
    pub fn database(&self) -> u64 {
        self.view.database()
    }

    /// The piece that begins at `cursor`, which is empty or the `next` of the piece before. Its data has at most
    /// `max_bytes`, or one row.
    ///
    /// # Errors
    /// See [`ChunkError`].
    pub fn chunk(&self, cursor: &[u8], max_bytes: usize) -> Result<SnapshotChunk, ChunkError> {
        let mut data = BytesMut::new();
        let next = self.view.walk(cursor, max_bytes, |header, key, value| {
            data.reserve(header.len() + key.len() + value.len());
            data.put_slice(header);
            data.put_slice(key);
            data.put_slice(value);
        })?;
        let data = data.freeze();
        let cursor = Bytes::copy_from_slice(cursor);
        Ok(SnapshotChunk {
            position: SnapshotPosition { snapshot: self.identity(), cursor },
            next,
            checksum: crc32c::crc32c(&data),
            data,
        })
    }
}

impl View {
    /// The digest of the piece that begins at `cursor`, and where the next begins. The piece is as a [`SnapshotSource`] would
    /// make it.
    ///
    /// # Errors
    /// See [`ChunkError`].
    pub fn digest(&self, cursor: &[u8], max_bytes: usize) -> Result<(Digest, Option<Bytes>), ChunkError> {
        let mut hash = Xxh3::new();
        let next = self.walk(cursor, max_bytes, |header, key, value| {
            hash.update(header);
            hash.update(key);
            hash.update(value);
        })?;
        Ok((Digest(hash.digest128()), next))
    }

    /// Calls `add` with the header, key and value of each row after `cursor`, as long as they are not longer than `max_bytes`
    /// together, but for one at least. Returns the cursor to go on from; `None` if there are no more.
    fn walk(
        &self,
        cursor: &[u8],
        max_bytes: usize,
        add: impl FnMut(&[u8; ROW_HEADER], &[u8], &[u8]),
    ) -> Result<Option<Bytes>, ChunkError> {
        let mut walk = Walk { length: 0, last: Bytes::copy_from_slice(cursor), max_bytes, add };
        let is_complete = match cursor.split_first() {
            None => walk.fill(self, DATA, &[])? && walk.fill(self, META, format::APPLIED)?,
            Some((&DATA, key)) if is_key(key) => {
                walk.fill(self, DATA, key)? && walk.fill(self, META, format::APPLIED)?
            }
            Some((&META, key)) if is_key(key) => walk.fill(self, META, key)?,
            Some(_) => return Err(ChunkError::Cursor),
        };
        Ok((!is_complete).then_some(walk.last))
    }
}

/// A piece that is being gone through.
struct Walk<F> {
    length: usize,
    /// The cursor of the last row in it.
    last: Bytes,
    max_bytes: usize,
    add: F,
}

impl<F: FnMut(&[u8; ROW_HEADER], &[u8], &[u8])> Walk<F> {
    /// Adds the rows of a keyspace after `key` to the piece. Returns whether that was all of them.
    fn fill(&mut self, view: &View, keyspace: u8, key: &[u8]) -> Result<bool, ChunkError> {
        let store = view.store();
        let handle = if keyspace == DATA { store.data() } else { store.meta() };
        let begin = if key.is_empty() { Bound::Unbounded } else { Bound::Excluded(key) };
        let mut last = None;
        for row in view.snapshot().range::<&[u8], _>(handle, (begin, Bound::Unbounded)) {
            let (key, value) = row.into_inner()?;
            let length = ROW_HEADER + key.len() + value.len();
            if self.length > 0 && self.length + length > self.max_bytes {
                self.last =
                    last.map_or_else(|| self.last.clone(), |key: Slice| [&[keyspace], &*key].concat().into());
                return Ok(false);
            }
            (self.add)(&row_header(keyspace, key.len(), value.len()), &key, &value);
            self.length += length;
            last = Some(key);
        }
        if let Some(key) = last {
            self.last = [&[keyspace], &*key].concat().into();
        }
        Ok(true)
    }
}

fn row_header(keyspace: u8, key: usize, value: usize) -> [u8; ROW_HEADER] {
    let mut header = [keyspace; ROW_HEADER];
    let key = u16::try_from(key).expect("fjall holds no longer keys");
    let value = u32::try_from(value).expect("fjall holds no longer values");
    header[1..3].copy_from_slice(&key.to_be_bytes());
    header[3..].copy_from_slice(&value.to_be_bytes());
    header
}

/// A row of another state, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoredRow {
    pub(super) table: Table,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

/// Where a row belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Table {
    Data,
    Meta(MetaRow),
}

/// Decodes a piece of the snapshot of `identity`. The rows share its memory.
pub(super) fn decode(mut piece: Bytes, identity: EntryId) -> Result<Vec<StoredRow>, Malformed> {
    let mut rows = Vec::new();
    while !piece.is_empty() {
        let row = decode_row(&mut piece).ok_or(Malformed("a row of a snapshot"))?;
        let (keyspace, key, value) = row;
        let (table, version) = match keyspace {
            DATA if is_key(&key) => (Table::Data, format::decode_record(value.clone())?.id.version),
            META => {
                let row = MetaRow::decode(&key, &value)?;
                let version = match &row {
                    MetaRow::Configuration(configuration) => configuration.id.version,
                    MetaRow::Horizon(horizon) => *horizon,
                    MetaRow::Result(row) => row.version,
                };
                (Table::Meta(row), version)
            }
            _ => return Err(Malformed("a row of a snapshot")),
        };
        if version > identity.version {
            return Err(Malformed("a row from after the snapshot"));
        }
        rows.push(StoredRow { table, key, value });
    }
    Ok(rows)
}

fn decode_row(piece: &mut Bytes) -> Option<(u8, Bytes, Bytes)> {
    let keyspace = piece.try_get_u8().ok()?;
    let key_length = usize::from(piece.try_get_u16().ok()?);
    let value_length = usize::try_from(piece.try_get_u32().ok()?).ok()?;
    if piece.len() < key_length.checked_add(value_length)? {
        return None;
    }
    Some((keyspace, piece.split_to(key_length), piece.split_to(value_length)))
}
