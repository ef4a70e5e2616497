//! The newest state of keys and requests: what accepted entries that are not applied yet have changed.

use std::collections::HashMap;

use ahash::RandomState;
use bytes::Bytes;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::{RequestId, Version};
use smallvec::{SmallVec, smallvec};

/// Versions of unapplied entries by the key they touch and by the request they came from.
///
/// Keys come from clients, who could attack a fixed hash, so it is a random one. The replica stays deterministic: nobody sees the order
/// in which the maps keep what is in them.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    keys: HashMap<Bytes, Versions, RandomState>,
    requests: HashMap<RequestId, Version, RandomState>,
}

/// In rising order. Few keys have several at a time.
type Versions = SmallVec<[Version; 2]>;

impl Overlay {
    /// The newest entry at or before `limit` that touched the key.
    pub(crate) fn touched(&self, key: &[u8], limit: Version) -> Option<Version> {
        self.keys.get(key)?.iter().rev().copied().find(|&version| version <= limit)
    }

    /// The entry that a request became.
    pub(crate) fn request(&self, request: RequestId) -> Option<Version> {
        self.requests.get(&request).copied()
    }

    /// The entry was appended to the log.
    pub(crate) fn add(&mut self, entry: &Entry) {
        for effect in entry.effects() {
            if let Some(versions) = self.keys.get_mut(effect.key()) {
                versions.push(entry.id.version);
            } else {
                // In memory of its own: the entry's is part of a larger piece, and a key that is written all the time stays here.
                let key = Bytes::copy_from_slice(effect.key());
                self.keys.insert(key, smallvec![entry.id.version]);
            }
        }
        if let Some(answered) = entry.answered() {
            self.requests.insert(answered.request, entry.id.version);
        }
    }

    /// The entry is in the state now, or was dropped from the log.
    pub(crate) fn remove(&mut self, entry: &Entry) {
        for effect in entry.effects() {
            let Some(versions) = self.keys.get_mut(effect.key()) else { continue };
            if let Some(at) = versions.iter().position(|version| *version == entry.id.version) {
                versions.remove(at);
            }
            if versions.is_empty() {
                self.keys.remove(effect.key());
            }
        }
        if let Some(answered) = entry.answered()
            && self.requests.get(&answered.request) == Some(&entry.id.version)
        {
            self.requests.remove(&answered.request);
        }
    }

    /// A snapshot replaced the state and the log.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.requests.clear();
    }
}
