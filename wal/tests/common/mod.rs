//! What the tests of the log share.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};

use quorumkv_wal::{
    Batch, DurableGroup, Entry, Epoch, IoError, Log, Mark, Options, Reader, Record, Recovered, Writer,
};

/// Where the records of a segment start.
pub(crate) const HEADER: usize = 4096;

/// Small segments: 12 KiB of records each.
pub(crate) fn small() -> Options {
    Options { segment_bytes: 16 << 10, ..Options::default() }
}

pub(crate) fn epoch(counter: u64) -> Epoch {
    Epoch { counter, node: 7 }
}

pub(crate) fn mark(counter: u64, version: u64) -> Mark {
    Mark { epoch: epoch(counter), version }
}

pub(crate) fn entry(counter: u64, version: u64) -> Record {
    sized_entry(counter, version, 20 + usize::try_from(version % 9).unwrap())
}

/// An entry whose payload has no zero byte and tells its mark.
pub(crate) fn sized_entry(counter: u64, version: u64, length: usize) -> Record {
    let text = format!("{counter}/{version} ").into_bytes();
    let payload: Vec<u8> = text.iter().copied().cycle().take(length).collect();
    Record::Entry { mark: mark(counter, version), payload: payload.into() }
}

pub(crate) fn as_entry(record: &Record) -> Entry {
    match record {
        Record::Entry { mark, payload } => Entry { mark: *mark, payload: payload.clone() },
        other => panic!("{other:?} is no entry"),
    }
}

/// A log that runs, with its callbacks turned into channels. A ticket is the number of its batch.
pub(crate) struct Running {
    pub(crate) writer: Writer<u64>,
    pub(crate) reader: Reader,
    pub(crate) groups: Receiver<DurableGroup<u64>>,
    pub(crate) failures: Receiver<IoError>,
    pub(crate) submitted: u64,
    pub(crate) durable: u64,
}

pub(crate) fn start(log: Log) -> Running {
    let reader = log.reader();
    let (on_group, groups) = mpsc::sync_channel(1024);
    let (on_failure, failures) = mpsc::sync_channel(1024);
    let on_durable = move |group| {
        // A test that has seen enough may be gone.
        let _ = on_group.send(group);
    };
    let writer = log
        .spawn(on_durable, move |error| on_failure.send(error).expect("the test waits"))
        .expect("threads start");
    Running { writer, reader, groups, failures, submitted: 0, durable: 0 }
}

pub(crate) fn open(directory: &Path, options: Options) -> (Running, Recovered) {
    let (log, recovered) = Log::open(directory, options, 0).expect("the log opens");
    (start(log), recovered)
}

impl Running {
    /// Submits a batch without waiting for it.
    pub(crate) fn submit(&mut self, records: Vec<Record>) {
        self.submitted += 1;
        self.writer.submit(Batch { records, ticket: self.submitted }).expect("the batch is taken");
    }

    /// Waits until everything submitted is durable; tickets must come in order.
    pub(crate) fn wait(&mut self) {
        while self.durable < self.submitted {
            for ticket in self.groups.recv().expect("the writer runs").tickets {
                self.durable += 1;
                assert_eq!(ticket, self.durable, "tickets come back in order");
            }
        }
    }

    /// Submits records as one batch and waits until they are durable.
    pub(crate) fn append(&mut self, records: Vec<Record>) {
        self.submit(records);
        self.wait();
    }

    pub(crate) fn read_all(&self) -> Vec<Entry> {
        read_all(&self.reader, u64::MAX)
    }
}

/// All entries, in reads of at most `max_bytes`.
pub(crate) fn read_all(reader: &Reader, max_bytes: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let from = reader.first_version() + entries.len() as u64;
        let more = reader.read(from, max_bytes).expect("entries are readable");
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}

pub(crate) fn entries_in(directory: &Path) -> Vec<Entry> {
    let (log, _) = Log::open(directory, small(), 0).expect("the log opens");
    read_all(&log.reader(), u64::MAX)
}

/// The content of every segment in a directory, by path.
pub(crate) fn segments(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(directory)
        .expect("a directory")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .map(|path| (path.clone(), fs::read(path).expect("readable")))
        .collect()
}

/// A log of one segment on disk, to be tampered with.
pub(crate) struct Image {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    /// Where in the segment each append ends; the first is the end of the header.
    pub(crate) ends: Vec<usize>,
}

impl Image {
    /// Appends each group of records, synced one after the other, and closes the log.
    pub(crate) fn of(groups: Vec<Vec<Record>>) -> Image {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut running, _) = open(directory.path(), small());
        let mut ends = vec![HEADER];
        for group in groups {
            running.append(group);
            ends.push(usize::try_from(running.reader.bytes()).unwrap());
        }
        drop(running);
        let (path, bytes) = segments(directory.path()).pop_last().expect("a segment");
        Image { directory, path, bytes, ends }
    }

    /// Puts other bytes in the place of the segment.
    pub(crate) fn write(&self, bytes: &[u8]) {
        fs::write(&self.path, bytes).expect("writable");
    }

    pub(crate) fn open(&self, known_durable: u64) -> Result<(Log, Recovered), quorumkv_wal::OpenError> {
        Log::open(self.directory.path(), small(), known_durable)
    }
}
