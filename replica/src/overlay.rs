//! The newest state of keys and requests: what accepted entries that are not applied yet have changed.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::{RequestId, Version};

/// Versions of unapplied entries by the key they touch and by the request they came from.
///
/// Ordered maps, because keys come from clients (a fixed hash could be attacked) and the replica must be deterministic
/// (a random one could not be replayed).
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    keys: BTreeMap<Bytes, Vec<Version>>,
    requests: BTreeMap<RequestId, Version>,
}

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
            self.keys.entry(effect.key().clone()).or_default().push(entry.id.version);
        }
        if let Some(answered) = entry.answered() {
            self.requests.insert(answered.request, entry.id.version);
        }
    }

    /// The entry is in the state now, or was dropped from the log.
    pub(crate) fn remove(&mut self, entry: &Entry) {
        for effect in entry.effects() {
            let Some(versions) = self.keys.get_mut(effect.key()) else { continue };
            versions.retain(|&version| version != entry.id.version);
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
