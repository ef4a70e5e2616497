//! The state of one node, in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorumkv_protocol::entry::{Effect, Entry};
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::peer::{Digest, SnapshotChunk, SnapshotPosition};
use quorumkv_protocol::{EntryId, RequestId, Version, frame};
use quorumkv_replica::requests::{Known, Requests, Row};
use quorumkv_replica::{DigestTask, Input, Record, StateView, Unreadable};
use serde::{Deserialize, Serialize};

/// The applied state.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) applied: EntryId,
    pub(crate) keys: BTreeMap<Bytes, Record>,
    pub(crate) configuration: Configuration,
    requests: Requests,
    capacity: usize,
    /// Keys that the disk does not give back.
    unreadable: BTreeSet<Bytes>,
    /// Whether something has happened to it on the disk.
    pub(crate) is_spoiled: bool,
    /// Told apart from other states by this, mostly.
    sum: u64,
}

/// What a key and its record add to the sum.
fn weight(key: &Bytes, record: &Record) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let id = [record.id.version.get(), record.id.epoch.counter(), record.id.epoch.node().get()];
    let bytes = key.iter().chain(record.value.iter());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, fold);
    id.iter().fold(hash, |hash, part| (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23))
}

/// What a damaged value begins with.
pub(crate) const DAMAGED: &[u8] = b"damaged";

/// A part of a snapshot.
#[derive(Clone, Serialize, Deserialize)]
enum Piece {
    Key { key: Bytes, id: EntryId, value: Bytes },
    Result(Row),
    Horizon(Version),
    Configuration(Configuration),
}

/// A state that is kept while it is sent.
pub(crate) struct Snapshot {
    id: EntryId,
    pieces: Vec<Piece>,
}

/// A state that is being received.
pub(crate) struct Staged {
    snapshot: EntryId,
    pieces: Vec<Piece>,
}

impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        let content = |store: &Self| (store.applied, store.capacity);
        content(self) == content(other)
            && self.keys == other.keys
            && self.configuration == other.configuration
            && self.requests == other.requests
            && self.unreadable == other.unreadable
    }
}

impl Store {
    /// An empty state of a cluster that began with this configuration. It remembers the results of `capacity` requests.
    pub(crate) fn new(configuration: Configuration, capacity: usize) -> Self {
        let requests = Requests::with_capacity(capacity);
        Self {
            applied: EntryId::ZERO,
            keys: BTreeMap::new(),
            configuration,
            requests,
            capacity,
            unreadable: BTreeSet::new(),
            is_spoiled: false,
            sum: 0,
        }
    }

    pub(crate) fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.id.version, self.applied.version.next(), "entries are applied without gaps");
        self.applied = entry.id;
        for effect in entry.effects() {
            self.unreadable.remove(effect.key());
            match effect {
                Effect::Put { key, value } => {
                    self.put(key, Record::new(entry.id, value.clone()));
                }
                Effect::Delete { key } => {
                    let gone = self.keys.remove(key);
                    self.sum = self.sum.wrapping_sub(gone.map_or(0, |gone| weight(key, &gone)));
                }
            }
        }
        if let Some(configuration) = entry.configuration() {
            self.configuration = configuration.clone();
        }
        self.requests.apply(entry);
    }

    fn put(&mut self, key: &Bytes, record: Record) {
        self.sum = self.sum.wrapping_add(weight(key, &record));
        let before = self.keys.insert(key.clone(), record);
        self.sum = self.sum.wrapping_sub(before.map_or(0, |before| weight(key, &before)));
    }

    /// Differs where what it holds differs, mostly.
    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }

    /// Something happens to a key on the disk: its value becomes this, or cannot be read any more. False if there is no such key.
    pub(crate) fn damage(&mut self, key: &Bytes, value: Option<Bytes>) -> bool {
        let Some(record) = self.keys.get_mut(key) else { return false };
        self.is_spoiled = true;
        if let Some(value) = value {
            *record = Record::new(record.id, value);
        } else {
            self.unreadable.insert(key.clone());
        }
        true
    }

    /// The digest of `size` pieces from `cursor` on, and the cursor of the next; `None` if a piece cannot be read.
    fn digest(&self, cursor: &[u8], size: u32) -> Option<(Digest, Option<Bytes>)> {
        let chunk = self.snapshot()?.chunk(cursor, size as usize);
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let hash = chunk.data.iter().fold(0xcbf2_9ce4_8422_2325, fold);
        Some((Digest(hash.into()), chunk.next))
    }

    /// What the digest that is asked for comes to, if the state is where it has to be.
    pub(crate) fn digested(&self, asked: &mut Option<DigestTask>) -> Option<Input> {
        let DigestTask { epoch, compare } =
            asked.take_if(|task| task.compare.version == self.applied.version)?;
        Some(match self.digest(&compare.begin, compare.bytes) {
            Some((digest, next)) => Input::Digested { epoch, round: compare.round, digest, next },
            None => Input::StateDamaged,
        })
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.unreadable.is_empty()
    }

    /// All of it, unless there is something that cannot be read.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        if !self.is_readable() {
            return None;
        }
        let key = |(key, record): (&Bytes, &Record)| Piece::Key {
            key: key.clone(),
            id: record.id,
            value: record.value.clone(),
        };
        let whole =
            [Piece::Configuration(self.configuration.clone()), Piece::Horizon(self.requests.horizon())];
        let results = self.requests.rows().map(Piece::Result);
        let pieces = self.keys.iter().map(key).chain(results).chain(whole).collect();
        Some(Snapshot { id: self.applied, pieces })
    }

    /// The state that a complete snapshot describes.
    pub(crate) fn restored(&self, staged: &Staged) -> Self {
        let mut store = Self::new(Configuration::UNKNOWN, self.capacity);
        store.applied = staged.snapshot;
        for piece in staged.pieces.iter().cloned() {
            match piece {
                Piece::Key { key, id, value } => {
                    store.put(&key, Record::new(id, value));
                }
                Piece::Result(row) => store.requests.restore_row(row).expect("a snapshot holds a table"),
                Piece::Horizon(horizon) => store.requests.restore_horizon(horizon),
                Piece::Configuration(configuration) => store.configuration = configuration,
            }
        }
        store
    }
}

impl Snapshot {
    pub(crate) const fn id(&self) -> EntryId {
        self.id
    }

    /// The `size` pieces from `cursor` on.
    pub(crate) fn chunk(&self, cursor: &[u8], size: usize) -> SnapshotChunk {
        let from = <[u8; 4]>::try_from(cursor).map_or(0, u32::from_be_bytes) as usize;
        let from = from.min(self.pieces.len());
        let upto = self.pieces.len().min(from + size);
        let mut data = BytesMut::new();
        frame::encode_body(&&self.pieces[from..upto], &mut data);
        let data = data.freeze();
        let next = u32::try_from(upto).expect("snapshots are small").to_be_bytes();
        SnapshotChunk {
            position: SnapshotPosition { snapshot: self.id, cursor: Bytes::copy_from_slice(cursor) },
            next: (upto < self.pieces.len()).then(|| Bytes::copy_from_slice(&next)),
            checksum: crc32c::crc32c(&data),
            data,
        }
    }
}

impl Staged {
    /// Takes in a chunk. One that does not go on with what is here begins anew.
    pub(crate) fn take(staged: &mut Option<Self>, chunk: &SnapshotChunk) {
        let pieces: Vec<Piece> = frame::decode(&chunk.data).expect("a checked chunk can be decoded");
        let snapshot = chunk.position.snapshot;
        match staged {
            Some(staged) if !chunk.position.cursor.is_empty() && staged.snapshot == snapshot => {
                staged.pieces.extend(pieces);
            }
            Some(_) | None => *staged = Some(Self { snapshot, pieces }),
        }
    }

    pub(crate) const fn snapshot(&self) -> EntryId {
        self.snapshot
    }
}

/// A state that the replica looks at while the shell changes it.
#[derive(Clone)]
pub(crate) struct Shared(pub(crate) Rc<RefCell<Store>>);

impl StateView for Shared {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Unreadable> {
        let store = self.0.borrow();
        if store.unreadable.contains(key) { Err(Unreadable) } else { Ok(store.keys.get(key).cloned()) }
    }

    fn configuration(&self) -> Configuration {
        self.0.borrow().configuration.clone()
    }

    fn lookup(&self, request: RequestId, since: Version) -> Known {
        self.0.borrow().requests.lookup(request, since)
    }
}
