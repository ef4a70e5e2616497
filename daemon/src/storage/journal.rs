//! The replica's log on disk: `quorumkv-wal` with the replica's types.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use quorumkv_protocol::entry::{Body, Entry};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version, frame};
use quorumkv_replica::{LogRecord, Outgoing, PersistId, Recovered};
use quorumkv_wal as wal;
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

use crate::fatal::die;
use crate::metrics::Metrics;
use crate::net::Routes;
use crate::shell::Done;

/// The log may grow to this many times what is kept for replicas that lag while one is being restored.
const RESTORE_FACTOR: u64 = 16;

/// How much is read at once when the log is replayed.
const REPLAY_BYTES: u64 = 4 << 20;

/// How the log is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalOptions {
    /// Whether there must be a log already: a member that has lost its log has forgotten its votes.
    pub(crate) must_exist: bool,
    /// Size of one file, in bytes.
    pub(crate) segment_bytes: u64,
    /// Bytes that are kept for replicas that lag.
    pub(crate) retain_bytes: u64,
}

/// What comes back when a batch is durable.
#[derive(Debug)]
struct Ticket {
    persist: Option<PersistId>,
    when_durable: Vec<Outgoing>,
}

/// The log, open for writing.
#[derive(Debug)]
pub(crate) struct Journal {
    writer: wal::Writer<Ticket>,
    /// Batches that found the log's queue full, in order.
    waiting: VecDeque<wal::Batch<Ticket>>,
    retain_bytes: u64,
}

/// Why the log cannot be used.
#[derive(Debug, Error)]
pub(crate) enum OpenJournalError {
    /// It cannot be opened, or is damaged.
    #[error(transparent)]
    Open(#[from] wal::OpenError),
    /// What it holds cannot be read.
    #[error("cannot read back the log: {0}")]
    Read(#[from] ReadEntriesError),
    /// The log, or a part of it, is gone: what this node had voted for is forgotten.
    #[error("the log is missing, although this node belongs to a cluster")]
    Missing,
    /// The state is older than the log reaches back.
    #[error(
        "the log begins after entry {base}, but the state ends at {applied}: an older state was put in its place"
    )]
    Gap {
        /// The entry before the first of the log.
        base: EntryId,
        /// The last entry of the state.
        applied: EntryId,
    },
    /// The system has no thread for it.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl OpenJournalError {
    /// Whether something that this node had on disk is lost for good: it may have promised what it does not remember.
    pub(crate) const fn is_loss(&self) -> bool {
        match self {
            Self::Open(error) => matches!(
                error,
                wal::OpenError::Damaged { .. }
                    | wal::OpenError::Absent { .. }
                    | wal::OpenError::Missing { .. }
                    | wal::OpenError::Foreign { .. }
                    | wal::OpenError::Size { .. }
            ),
            Self::Missing | Self::Gap { .. } => true,
            Self::Read(_) | Self::Thread(_) => false,
        }
    }
}

/// Why entries cannot be read.
#[derive(Debug, Error)]
pub(crate) enum ReadEntriesError {
    /// The log does not have them, or cannot be read.
    #[error(transparent)]
    Read(#[from] wal::ReadError),
    /// An intact record holds no entry: it was written by another version of kvd.
    #[error("the entry at {version} is not understood: {source}")]
    Decode {
        /// Its version.
        version: u64,
        /// Why.
        source: frame::FrameError,
    },
}

impl Journal {
    /// Opens the log of a replica whose state has applied everything up to `applied`.
    ///
    /// Tells `done` what becomes durable, and sends the messages that wait for it.
    pub(crate) fn open(
        dir: &Path,
        options: JournalOptions,
        applied: EntryId,
        routes: Arc<Routes>,
        done: UnboundedSender<Done>,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Recovered), OpenJournalError> {
        if options.must_exist && !has_files(dir) {
            return Err(OpenJournalError::Missing);
        }
        let wal_options = wal::Options { segment_bytes: options.segment_bytes, ..wal::Options::default() };
        // The state may be ahead of the log: entries are applied when a quorum holds them durably, and this node's own
        // sync may not have been done by then. So the state proves nothing about what the log must hold.
        let (log, found) = wal::Log::open(dir, wal_options, 0)?;
        if let Some(torn) = &found.torn {
            tracing::warn!(bytes = torn.bytes, segment = %torn.segment.display(), "cut off the log's torn tail");
        }
        let reader = log.reader();
        let on_durable = move |group: wal::DurableGroup<Ticket>| {
            if group.records > 0 {
                metrics.log_synced(group.records, group.bytes, group.write_time + group.sync_time);
            }
            let last = group.tickets.iter().filter_map(|ticket| ticket.persist).next_back();
            // The owner is told first: who hears of a write that was acknowledged with this vote, and asks here, must find
            // it durable.
            if let Some(last) = last {
                // The owner is gone only when the process is about to end.
                let _ = done.send(Done::Persisted(last));
            }
            for message in group.tickets.into_iter().flat_map(|ticket| ticket.when_durable) {
                routes.send(message);
            }
        };
        let on_failure = |error| die(&format!("the log cannot be written: {error}"));
        let writer = log.spawn(on_durable, on_failure)?;
        let mut journal = Self { writer, waiting: VecDeque::new(), retain_bytes: options.retain_bytes };
        let recovered = journal.recover(&found, &reader, applied)?;
        Ok((journal, recovered))
    }

    /// What the replica needs to know of the log. A log that does not lead up to the state is started anew after it:
    /// the process ended between the installation of a snapshot and the note of it in the log, or before the log had
    /// synced what was committed by others.
    fn recover(
        &mut self,
        found: &wal::Recovered,
        reader: &wal::Reader,
        applied: EntryId,
    ) -> Result<Recovered, OpenJournalError> {
        let promise = found.promise.map_or(Epoch::ZERO, epoch);
        let base = entry_id(found.base);
        if applied.version < base.version {
            return Err(OpenJournalError::Gap { base, applied });
        }
        if reader.mark(applied.version.get()).map(entry_id) != Some(applied) {
            tracing::warn!(log = %entry_id(found.last), state = %applied, "the log does not lead up to the state; it starts anew after it");
            self.submit(&[LogRecord::Base(applied)], None, Vec::new());
            let (base, last) = (applied, applied);
            return Ok(Recovered {
                promise,
                base,
                epochs: Vec::new(),
                last,
                applied,
                unapplied: Vec::new(),
                damaged: false,
            });
        }
        let last = entry_id(found.last);
        let mut unapplied: Vec<Arc<Entry>> = Vec::new();
        let mut next = applied.version.next();
        while next <= last.version {
            unapplied.extend(read_entries(reader, next, REPLAY_BYTES)?);
            next = unapplied.last().map_or(next, |entry| entry.id.version.next());
        }
        let epochs = found.epochs.iter().map(|&(e, first)| (epoch(e), Version::new(first))).collect();
        let base = entry_id(found.base);
        Ok(Recovered { promise, base, epochs, last, applied, unapplied, damaged: false })
    }

    /// Hands a batch to the log. What is in `when_durable` is sent when it, and all before it, is on disk.
    pub(crate) fn submit(
        &mut self,
        log: &[LogRecord],
        persist: Option<PersistId>,
        when_durable: Vec<Outgoing>,
    ) {
        let mut buffer = BytesMut::with_capacity(log.iter().map(payload_size).sum());
        let records = log.iter().map(|log| record(log, &mut buffer)).collect();
        self.waiting.push_back(wal::Batch { records, ticket: Ticket { persist, when_durable } });
        self.push();
    }

    /// Hands over what found the queue full before, as far as there is room by now.
    pub(crate) fn push(&mut self) {
        while let Some(batch) = self.waiting.pop_front() {
            match self.writer.try_submit(batch) {
                Ok(()) => {}
                Err(wal::SubmitError::Full(batch)) => return self.waiting.push_front(batch),
                Err(wal::SubmitError::Closed) => die("the log has stopped"),
                Err(wal::SubmitError::Invalid(reason)) => die(&format!("the log refuses a record: {reason}")),
            }
        }
    }

    /// Whether the log keeps up. While it does not, nothing new should be taken in.
    pub(crate) fn keeps_up(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A handle for reading.
    pub(crate) fn reader(&self) -> wal::Reader {
        self.writer.reader()
    }

    /// Whether there is more log than needs to be kept, so that it pays to persist the state and trim.
    pub(crate) fn is_long(&self) -> bool {
        self.writer.reader().bytes() > self.retain_bytes
    }

    /// Drops what a state that is durable up to `persisted` makes dispensable, beyond what is kept for replicas that
    /// lag. Returns the entry before the first that is left.
    ///
    /// What follows `needed`, which a replica is being restored to, stays as long as the log does not grow out of
    /// proportion: without it the replica would have to be restored again, for as long as writes go on.
    ///
    /// The files up to the one with the number `damaged` go in any case, as soon as they are dispensable.
    pub(crate) fn trim(
        &mut self,
        persisted: EntryId,
        needed: Option<Version>,
        damaged: Option<u64>,
    ) -> EntryId {
        let reader = self.writer.reader();
        let (first, last, bytes) = (reader.first_version(), reader.last().version, reader.bytes());
        let entries = (last + 1).saturating_sub(first);
        let surplus = bytes.saturating_sub(self.retain_bytes);
        let dispensable = u128::from(entries) * u128::from(surplus) / u128::from(bytes.max(1));
        let below =
            first.saturating_add(u64::try_from(dispensable).unwrap_or(0)).min(persisted.version.get() + 1);
        let needed = needed.filter(|_| bytes < self.retain_bytes.saturating_mul(RESTORE_FACTOR));
        let below = needed.map_or(below, |needed| below.min(needed.get() + 1));
        let below = damaged.map_or(below, |damaged| {
            below.max(reader.highest_upto(damaged) + 1).min(persisted.version.get() + 1)
        });
        self.writer.trim(below);
        entry_id(reader.base())
    }

    /// The number of the oldest file that is kept.
    pub(crate) fn first_segment(&self) -> u64 {
        self.writer.reader().first_segment()
    }

    /// Goes on in a new file.
    pub(crate) fn roll(&mut self) {
        self.writer.roll();
        self.submit(&[], None, Vec::new());
    }

    /// Writes and syncs everything that was submitted. Blocks.
    pub(crate) fn close(mut self) {
        for batch in self.waiting.drain(..) {
            if self.writer.submit(batch).is_err() {
                die("the log has stopped");
            }
        }
        self.writer.close();
    }
}

/// Whether there is anything in the directory. What cannot be told is left to the opening of the log.
fn has_files(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut files| files.next().is_some())
}

/// Reads entries from `from` on: about `max_bytes` of them, and at least one if there is one.
pub(crate) fn read_entries(
    reader: &wal::Reader,
    from: Version,
    max_bytes: u64,
) -> Result<Vec<Arc<Entry>>, ReadEntriesError> {
    let decode = |entry: wal::Entry| {
        let body: Body = frame::decode(&entry.payload)
            .map_err(|source| ReadEntriesError::Decode { version: entry.mark.version, source })?;
        Ok(Arc::new(Entry { id: entry_id(entry.mark), body }))
    };
    reader.read(from.get(), max_bytes)?.into_iter().map(decode).collect()
}

/// The record as the log takes it; what it carries is encoded into `buffer`, which all records of a batch share.
fn record(record: &LogRecord, buffer: &mut BytesMut) -> wal::Record {
    match record {
        LogRecord::Promise(epoch) => wal::Record::Promise { epoch: wal_epoch(*epoch) },
        LogRecord::Entry(entry) => {
            frame::encode_body(&entry.body, buffer);
            wal::Record::Entry { mark: mark(entry.id), payload: buffer.split().freeze() }
        }
        LogRecord::Base(id) => wal::Record::Base { mark: mark(*id) },
    }
}

/// Bytes that the record's payload takes.
fn payload_size(record: &LogRecord) -> usize {
    match record {
        LogRecord::Entry(entry) => frame::encoded_length(&entry.body),
        LogRecord::Promise(_) | LogRecord::Base(_) => 0,
    }
}

pub(crate) fn wal_epoch(epoch: Epoch) -> wal::Epoch {
    wal::Epoch { counter: epoch.counter(), node: epoch.node().get() }
}

pub(crate) fn mark(id: EntryId) -> wal::Mark {
    wal::Mark { epoch: wal_epoch(id.epoch), version: id.version.get() }
}

pub(crate) fn epoch(epoch: wal::Epoch) -> Epoch {
    Epoch::new(epoch.counter, NodeId::new(epoch.node))
}

pub(crate) fn entry_id(mark: wal::Mark) -> EntryId {
    EntryId::new(epoch(mark.epoch), Version::new(mark.version))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
