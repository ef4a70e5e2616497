//! An open log, before its writer runs.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::append::{Appender, End};
use crate::disk::{Disk, FaultHook, IoError};
use crate::files::Files;
use crate::gate::Gate;
use crate::housekeeper::Housekeeper;
use crate::index::Shared;
use crate::reader::Reader;
use crate::recover::{self, OpenError, Recovered};
use crate::stepped::SteppedLog;
use crate::writer::{DurableGroup, Writer};

/// How a log behaves.
#[derive(Clone)]
pub struct Options {
    /// The size of new segments in bytes; a record must fit into one. Default 32 MiB, at least 8 KiB.
    /// Segments that exist keep their size.
    pub segment_bytes: u64,
    /// Whether to sync what is written. Without it a power failure loses what was acknowledged; for benchmarks. Default true.
    pub sync: bool,
    /// The most batches that wait for the writer. Default 4,096.
    pub queue_batches: usize,
    /// The most bytes of records that wait for the writer. Default 64 MiB. An empty queue takes a batch of any size.
    pub queue_bytes: usize,
    /// The most bytes of records in one group, unless a single batch is larger. Default 4 MiB.
    pub group_bytes: usize,
    /// Where the files are. Default `None`: in the file system.
    pub files: Option<Arc<dyn Files>>,
    /// Injects faults; for tests. Default none.
    pub faults: Option<FaultHook>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 32 << 20,
            sync: true,
            queue_batches: 4096,
            queue_bytes: 64 << 20,
            group_bytes: 4 << 20,
            files: None,
            faults: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .field("sync", &self.sync)
            .field("queue_batches", &self.queue_batches)
            .field("queue_bytes", &self.queue_bytes)
            .field("group_bytes", &self.group_bytes)
            .field("faults", &self.faults.is_some())
            .finish()
    }
}

/// A log that was opened: it can be read, and with [`Log::spawn`] written.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    disk: Disk,
    directory: PathBuf,
    options: Options,
    end: End,
}

impl Log {
    /// Opens the log in `directory`, which is made if it does not exist, and recovers what it holds.
    ///
    /// `known_durable` is a version that the log is known to have reached durably (0 if nothing is known): what the caller
    /// has applied and persisted elsewhere. A log that ends below it is damaged, even if it looks like a torn tail.
    ///
    /// A torn tail, which a crash leaves behind, is cut off durably and reported. On an error nothing on disk was changed.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        directory: impl Into<PathBuf>,
        options: Options,
        known_durable: u64,
    ) -> Result<(Log, Recovered), OpenError> {
        let directory = directory.into();
        let disk = Disk::new(options.files.clone(), options.faults.clone());
        let opened = recover::open(&disk, &directory, options.segment_bytes, known_durable)?;
        let log = Log { shared: Arc::new(opened.shared), disk, directory, options, end: opened.end };
        Ok((log, opened.recovered))
    }

    /// Reads the log in `directory` and changes nothing: a torn tail is reported and stays. `None` if there is no log.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn read_only(directory: impl Into<PathBuf>) -> Result<Option<(Reader, Recovered)>, OpenError> {
        let read = recover::read_only(&directory.into())?;
        Ok(read.map(|(shared, recovered)| (Reader::new(Arc::new(shared)), recovered)))
    }

    /// A handle for reading.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The log without threads, for a caller that decides itself when to write and when to sync.
    #[must_use]
    pub fn in_steps(self) -> SteppedLog {
        let Log { shared, disk, directory, options, end } = self;
        let housekeeper =
            Arc::new(Housekeeper::without_thread(disk.clone(), directory.clone(), options.segment_bytes));
        let settings = (options.segment_bytes, options.sync);
        let appender =
            Appender::new(Arc::clone(&shared), disk, directory, Arc::clone(&housekeeper), settings, end);
        SteppedLog::new(Gate::new(&shared, options.segment_bytes), appender, shared, housekeeper)
    }

    /// Starts the thread that writes, and its helper.
    ///
    /// `on_durable` is called on that thread after every sync, with the tickets of the batches that the sync has covered. It
    /// should only pass them on: the next group waits for it. `on_failure` is called at most once, when a write or sync has failed:
    /// the thread has stopped then, for good, and tickets not yet handed out are dropped. Nothing is tried again, since a sync that
    /// succeeds after one that failed proves nothing; the process should end, and find out what it has by opening the log.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn spawn<T, D, F>(self, on_durable: D, on_failure: F) -> io::Result<Writer<T>>
    where
        T: Send + 'static,
        D: FnMut(DurableGroup<T>) + Send + 'static,
        F: FnOnce(IoError) + Send + 'static,
    {
        let Log { shared, disk, directory, options, end } = self;
        let housekeeper =
            Arc::new(Housekeeper::start(disk.clone(), directory.clone(), options.segment_bytes)?);
        let settings = (options.segment_bytes, options.sync);
        let appender =
            Appender::new(Arc::clone(&shared), disk, directory, Arc::clone(&housekeeper), settings, end);
        Writer::spawn(shared, housekeeper, &options, appender, on_durable, on_failure)
    }
}
