//! The writer: a handle that submits batches, and the thread that makes them durable in groups.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::append::Appender;
use crate::disk::IoError;
use crate::format::{ALIGNMENT, RECORD_HEADER, record_size};
use crate::gate::Gate;
use crate::housekeeper::Housekeeper;
use crate::index::Shared;
use crate::log::Options;
use crate::queue::{Queue, Room};
use crate::reader::Reader;
use crate::record::Record;
use crate::tail::InvalidRecord;

/// Records to append, in order, and a ticket to get back when they are durable.
///
/// A batch without records is a barrier: its ticket comes back after those before it.
/// A batch is not atomic: after a crash, a prefix of it may be in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<T> {
    /// What to append.
    pub records: Vec<Record>,
    /// Handed to `on_durable`.
    pub ticket: T,
}

/// What one sync has covered.
#[derive(Debug)]
pub struct DurableGroup<T> {
    /// The tickets of the batches, in the order of their submission.
    pub tickets: Vec<T>,
    /// The number of records. Zero if the batches were barriers only; then there was nothing to write or sync.
    pub records: usize,
    /// The bytes of the records on disk.
    pub bytes: usize,
    /// How long encoding and writing took, a change of segments included.
    pub write_time: Duration,
    /// How long the sync took.
    pub sync_time: Duration,
}

/// Why a batch was not taken in. Nothing of it is in the log then.
#[derive(thiserror::Error)]
pub enum SubmitError<T> {
    /// The queue is full; here is the batch. `on_durable` (or `on_failure`) will be called at least once more: try again then.
    #[error("the log's queue is full")]
    Full(Batch<T>),
    /// The writer has stopped after a failure.
    #[error("the log is closed")]
    Closed,
    /// A record cannot follow what the log holds.
    #[error("a record cannot be appended")]
    Invalid(#[from] InvalidRecord),
}

impl<T> fmt::Debug for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Full(batch) => write!(f, "Full({} records)", batch.records.len()),
            SubmitError::Closed => write!(f, "Closed"),
            SubmitError::Invalid(reason) => f.debug_tuple("Invalid").field(reason).finish(),
        }
    }
}

/// Submits to the log. There is one; dropping it is [`Writer::close`].
#[derive(Debug)]
pub struct Writer<T> {
    gate: Gate,
    queue: Arc<Queue<Batch<T>>>,
    shared: Arc<Shared>,
    housekeeper: Arc<Housekeeper>,
    thread: Option<JoinHandle<()>>,
}

impl<T> Writer<T> {
    /// Queues a batch without waiting.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn try_submit(&mut self, batch: Batch<T>) -> Result<(), SubmitError<T>> {
        let bytes = batch_bytes(&batch.records);
        match self.queue.room(bytes) {
            Room::Free => self.push(batch),
            Room::Full => Err(SubmitError::Full(batch)),
            Room::Closed => Err(SubmitError::Closed),
        }
    }

    /// Queues a batch, waiting for room if need be. Never returns [`SubmitError::Full`].
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&mut self, batch: Batch<T>) -> Result<(), SubmitError<T>> {
        match self.queue.wait_for_room(batch_bytes(&batch.records)) {
            Room::Free => self.push(batch),
            Room::Full | Room::Closed => Err(SubmitError::Closed),
        }
    }

    /// Whether [`Writer::try_submit`] would find room for a batch of `bytes` of payloads in `records` records.
    #[must_use]
    pub fn has_room(&self, records: usize, bytes: usize) -> bool {
        let overhead = records.saturating_mul(RECORD_HEADER + ALIGNMENT);
        self.queue.room(bytes.saturating_add(overhead)) == Room::Free
    }

    /// Forgets the segments that hold only entries below `below`, oldest first, and returns the first version retained.
    /// Their files go in the background. Promise and base stay known. What `below` passes must be known never to be
    /// needed or overwritten again: applied and persisted elsewhere.
    pub fn trim(&mut self, below: u64) -> u64 {
        self.gate.trim(&self.shared, &self.housekeeper, below)
    }

    /// Has the next batch, which may be a barrier, begin a new segment: so that the present one can be trimmed, however little is
    /// written.
    pub fn roll(&mut self) {
        self.shared.roll.store(true, Ordering::Relaxed);
    }

    /// A handle for reading.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Writes and syncs what is queued, hands out the tickets, and stops. Waits for that: not for an async task, and never
    /// from the callbacks. After a failure it returns at once.
    pub fn close(self) {
        drop(self);
    }

    /// Takes in a batch for which there is room: all of it or nothing.
    fn push(&mut self, batch: Batch<T>) -> Result<(), SubmitError<T>> {
        let records = self.gate.admit_all(batch.records)?;
        let bytes = batch_bytes(&records);
        self.queue.push(Batch { records, ticket: batch.ticket }, bytes);
        Ok(())
    }
}

impl<T: Send + 'static> Writer<T> {
    pub(crate) fn spawn(
        shared: Arc<Shared>,
        housekeeper: Arc<Housekeeper>,
        options: &Options,
        appender: Appender,
        on_durable: impl FnMut(DurableGroup<T>) + Send + 'static,
        on_failure: impl FnOnce(IoError) + Send + 'static,
    ) -> io::Result<Writer<T>> {
        let queue = Arc::new(Queue::new(options.queue_batches, options.queue_bytes));
        let gate = Gate::new(&shared, options.segment_bytes);
        let group_bytes = options.group_bytes;
        let work = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name("wal-writer".into())
            .spawn(move || run(&work, appender, group_bytes, on_durable, on_failure))?;
        Ok(Writer { gate, queue, shared, housekeeper, thread: Some(thread) })
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        self.queue.close();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of the log has panicked");
        }
    }
}

fn batch_bytes(records: &[Record]) -> usize {
    records.iter().map(|record| record_size(record.payload().len())).sum()
}

/// The thread's life: groups until the queue is closed and empty, or something fails.
fn run<T>(
    queue: &Queue<Batch<T>>,
    mut appender: Appender,
    group_bytes: usize,
    mut on_durable: impl FnMut(DurableGroup<T>),
    on_failure: impl FnOnce(IoError),
) {
    let _abandon_even_on_panic = AbandonGuard(queue);
    while let Some(batches) = queue.take(group_bytes) {
        match commit(&mut appender, batches) {
            Ok(group) => on_durable(group),
            Err(error) => {
                tracing::error!(%error, source = %error.source, "the log has failed and takes no more writes");
                queue.abandon();
                on_failure(error);
                return;
            }
        }
    }
}

/// Makes batches durable with one write and one sync (and one more of each per change of segments).
fn commit<T>(appender: &mut Appender, batches: Vec<Batch<T>>) -> Result<DurableGroup<T>, IoError> {
    let started = Instant::now();
    let records = batches.iter().map(|batch| batch.records.len()).sum();
    let bytes = batches.iter().map(|batch| batch_bytes(&batch.records)).sum();
    appender.roll_if_asked()?;
    for record in batches.iter().flat_map(|batch| &batch.records) {
        appender.append(record)?;
    }
    appender.flush()?;
    let written = Instant::now();
    appender.sync()?;
    Ok(DurableGroup {
        tickets: batches.into_iter().map(|batch| batch.ticket).collect(),
        records,
        bytes,
        write_time: written - started,
        sync_time: written.elapsed(),
    })
}

struct AbandonGuard<'a, T>(&'a Queue<Batch<T>>);

impl<T> Drop for AbandonGuard<'_, T> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
