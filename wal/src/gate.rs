//! What may be appended: checked before it is written, so that what is in the log always makes sense.

use crate::format::{SEGMENT_HEADER, record_size};
use crate::housekeeper::Housekeeper;
use crate::index::Shared;
use crate::record::Record;
use crate::tail::{InvalidRecord, Tail};

/// The state that the log will have once everything that was let through is written.
#[derive(Debug)]
pub(crate) struct Gate {
    tail: Tail,
    largest_record: usize,
}

impl Gate {
    pub(crate) fn new(shared: &Shared, segment_bytes: u64) -> Gate {
        let capacity = segment_bytes - SEGMENT_HEADER as u64;
        let largest_record = usize::try_from(capacity.min(u64::from(u32::MAX))).expect("at most 4 GiB");
        Gate { tail: shared.read().tail.clone(), largest_record }
    }

    /// Lets all records through, or none.
    pub(crate) fn admit_all(&mut self, records: Vec<Record>) -> Result<Vec<Record>, InvalidRecord> {
        let before = self.tail.clone();
        let admitted = self.admit(records);
        if admitted.is_err() {
            self.tail = before;
        }
        admitted
    }

    /// Checks records against the tail and moves it on; puts a truncation before every entry that overwrites.
    fn admit(&mut self, mut records: Vec<Record>) -> Result<Vec<Record>, InvalidRecord> {
        let mut at = 0;
        while at < records.len() {
            let record = &records[at];
            let bytes = record_size(record.payload().len());
            if bytes > self.largest_record {
                return Err(InvalidRecord::TooLarge { bytes, limit: self.largest_record });
            }
            match record {
                Record::Entry { mark, .. } => {
                    if let Some(to) = self.tail.truncation_before(*mark)? {
                        records.insert(at, Record::Truncate { to });
                    }
                }
                Record::Truncate { to } if to.version < self.tail.base.version => {
                    return Err(InvalidRecord::BelowBase { mark: *to, base: self.tail.base.version });
                }
                Record::Promise { .. } | Record::Base { .. } | Record::Truncate { .. } => {}
            }
            let change = records[at].change();
            self.tail.check(change)?;
            self.tail.apply(change);
            at += 1;
        }
        Ok(records)
    }

    /// See [`Writer::trim`](crate::Writer::trim).
    pub(crate) fn trim(&mut self, shared: &Shared, housekeeper: &Housekeeper, below: u64) -> u64 {
        let (removed, base) = {
            let mut index = shared.write();
            (index.trim(below), index.tail.base)
        };
        if !removed.is_empty() {
            tracing::debug!(segments = removed.len(), %base, "trimmed the log");
            housekeeper.remove(removed);
        }
        // What is on its way may have moved the base already (a snapshot); then that is the later word.
        if self.tail.mark(base.version) == Some(base) {
            self.tail.trim(base);
        }
        base.version + 1
    }
}
