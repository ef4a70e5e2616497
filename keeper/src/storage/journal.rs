//! The transactions on disk: `quorumkv-wal` with the keeper's types.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quorumkv_wal as wal;

use super::{OnFailure, OpenError};
use crate::txn::Txn;

/// The epoch of every transaction: a single server has no others.
const EPOCH: wal::Epoch = wal::Epoch { counter: 1, node: 0 };

/// Most transactions are no longer than this.
const USUAL: usize = 256;

/// The log, open for writing. A ticket is the last zxid of a batch.
pub(super) struct Journal {
    writer: wal::Writer<i64>,
    /// Batches that found the log's queue full, in order.
    waiting: VecDeque<wal::Batch<i64>>,
    on_failure: OnFailure,
    /// Nothing is handed to the log any more.
    failed: bool,
}

impl Journal {
    /// Starts the log's threads.
    pub(super) fn start(
        log: wal::Log,
        mut on_durable: Box<dyn FnMut(i64) + Send>,
        on_failure: OnFailure,
    ) -> Result<Self, OpenError> {
        let failed = Arc::clone(&on_failure);
        let writer = log.spawn(
            move |group: wal::DurableGroup<i64>| {
                if let Some(&last) = group.tickets.last() {
                    on_durable(last);
                }
            },
            move |error| failed(format!("the log cannot be written: {error}: {}", error.source)),
        )?;
        Ok(Self { writer, waiting: VecDeque::new(), on_failure, failed: false })
    }

    /// Hands transactions to the log, and returns how many bytes they take.
    ///
    /// # Panics
    /// If there are none.
    pub(super) fn append(&mut self, txns: &[Arc<Txn>]) -> u64 {
        let ticket = txns.last().expect("a batch is not empty").zxid;
        let records: Vec<_> = txns.iter().map(|txn| record(txn)).collect();
        let bytes = records.iter().map(payload_bytes).sum();
        self.waiting.push_back(wal::Batch { records, ticket });
        self.push();
        bytes
    }

    /// Hands over what found the queue full before, as far as there is room by now.
    pub(super) fn push(&mut self) {
        while let Some(batch) = self.waiting.pop_front() {
            if self.failed {
                continue;
            }
            match self.writer.try_submit(batch) {
                Ok(()) => {}
                Err(wal::SubmitError::Full(batch)) => return self.waiting.push_front(batch),
                // The log has said itself why it has stopped.
                Err(wal::SubmitError::Closed) => self.failed = true,
                Err(wal::SubmitError::Invalid(reason)) => self.refused(&reason),
            }
        }
    }

    /// Whether everything has been handed over.
    pub(super) fn keeps_up(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Drops the files that hold only transactions up to `zxid`.
    pub(super) fn trim(&mut self, zxid: i64) {
        self.writer.trim(version(zxid) + 1);
    }

    /// The first transaction that the log has.
    #[cfg(test)]
    pub(super) fn first(&self) -> u64 {
        self.writer.reader().first_version()
    }

    /// Writes and syncs everything that was appended. Blocks.
    pub(super) fn close(mut self) {
        while let Some(batch) = self.waiting.pop_front() {
            match self.writer.submit(batch) {
                Ok(()) => {}
                Err(wal::SubmitError::Invalid(reason)) => return self.refused(&reason),
                Err(wal::SubmitError::Closed | wal::SubmitError::Full(_)) => return,
            }
        }
        self.writer.close();
    }

    fn refused(&mut self, reason: &wal::InvalidRecord) {
        self.failed = true;
        (self.on_failure)(format!("the log refuses a transaction: {reason}"));
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

fn version(zxid: i64) -> u64 {
    u64::try_from(zxid).expect("a zxid is not negative")
}

fn record(txn: &Txn) -> wal::Record {
    let payload = postcard::to_extend(txn, Vec::with_capacity(USUAL)).expect("a transaction always encodes");
    let mark = wal::Mark { epoch: EPOCH, version: version(txn.zxid) };
    wal::Record::Entry { mark, payload: Bytes::from(payload) }
}

fn payload_bytes(record: &wal::Record) -> u64 {
    match record {
        wal::Record::Entry { payload, .. } => payload.len() as u64,
        wal::Record::Promise { .. } | wal::Record::Base { .. } | wal::Record::Truncate { .. } => 0,
    }
}

/// Reads a transaction back.
pub(super) fn decode(entry: &wal::Entry) -> Result<Txn, OpenError> {
    let zxid = entry.mark.version;
    let no_txn = |reason: String| OpenError::NoTxn { zxid, reason };
    let (txn, rest) =
        postcard::take_from_bytes::<Txn>(&entry.payload).map_err(|error| no_txn(error.to_string()))?;
    if !rest.is_empty() {
        return Err(no_txn("something follows it".to_owned()));
    }
    // Numbers have longer forms, which nobody writes.
    if postcard::experimental::serialized_size(&txn) != Ok(entry.payload.len()) {
        return Err(no_txn("it is not in the form in which it is written".to_owned()));
    }
    if u64::try_from(txn.zxid) != Ok(zxid) {
        return Err(no_txn(format!("it says that its zxid is {:#x}", txn.zxid)));
    }
    Ok(txn)
}
