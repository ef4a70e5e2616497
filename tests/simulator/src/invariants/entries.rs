//! Equal ids mean equal entries after equal prefixes, on all nodes at all times, and no log drops what is committed (DESIGN 5,
//! 8; Raft's log matching).

use std::collections::BTreeMap;
use std::sync::Arc;

use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};
use quorumkv_replica::LogRecord;

use super::commits::Commits;
use crate::model::disk::Image;

/// Every entry that was ever logged, with the one before it.
#[derive(Default)]
pub(crate) struct Entries(BTreeMap<EntryId, (Arc<Entry>, EntryId)>);

impl Entries {
    /// A node, whose log is as `before`, logs these records.
    pub(super) fn logged(&mut self, id: NodeId, before: &Image, records: &[LogRecord], commits: &Commits) {
        // Whoever has accepted an entry has promised its epoch, whatever became of the record of that.
        let (mut last, mut promise) = (before.last(), before.promise.max(before.last().epoch));
        let check_dropped = |from: Version, by: EntryId, promise: Epoch| {
            check_dropped(id, before, from, by, promise, commits);
        };
        for record in records {
            match record {
                LogRecord::Promise(higher) => promise = promise.max(*higher),
                LogRecord::Base(base) => {
                    promise = promise.max(base.epoch);
                    check_dropped(base.version.next(), *base, promise);
                    last = *base;
                }
                LogRecord::Entry(entry) => {
                    promise = promise.max(entry.id.epoch);
                    if entry.id.version <= last.version {
                        check_dropped(entry.id.version, entry.id, promise);
                    }
                    let previous = if entry.id.version <= last.version {
                        before.id_at(entry.id.version.previous()).unwrap_or(EntryId::ZERO)
                    } else {
                        last
                    };
                    self.check(id, entry, previous);
                    last = entry.id;
                }
            }
        }
    }

    fn check(&mut self, id: NodeId, entry: &Arc<Entry>, previous: EntryId) {
        let (known, after) = self.0.entry(entry.id).or_insert_with(|| (Arc::clone(entry), previous));
        let is_same = Arc::ptr_eq(known, entry) || known == entry;
        assert!(is_same, "{id} logs another entry as {} than was logged before", entry.id);
        // What a snapshot covers is not known one by one.
        let fits = *after == previous || *after == EntryId::ZERO || previous == EntryId::ZERO;
        assert!(fits, "{id} logs {} after {previous}, and another node after {after}", entry.id);
    }
}

/// What the log holds from this version on gives way to another entry, or to a snapshot: none of it may be committed, in an
/// epoch that this node has promised or an earlier one. A later one may have committed what an earlier leader was to replace:
/// whoever voted for that hears that leader no more, and the copies of others were not counted.
fn check_dropped(id: NodeId, before: &Image, from: Version, by: EntryId, promise: Epoch, commits: &Commits) {
    let committed = commits.entries().len() as u64;
    let dropped = before.entries.iter().rev().take_while(|entry| entry.id.version >= from);
    for entry in dropped.filter(|entry| entry.id.version.get() <= committed && entry.id != by) {
        let known = commits.entry(entry.id.version).id;
        let counts = promise >= commits.epoch_of(entry.id.version);
        assert!(known != entry.id || !counts, "{id} drops {known}, which is committed, for {by}");
    }
}
