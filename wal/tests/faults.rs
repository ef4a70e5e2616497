//! A disk that fails, and a process that dies at any operation.

mod common;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use common::{entry, epoch, mark, open, sized_entry, small};
use quorumkv_wal::{Batch, FaultHook, Log, Operation, Options, Record, SubmitError};

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

fn with(faults: FaultHook) -> Options {
    Options { faults: Some(faults), ..small() }
}

/// A run over several segments with a promise and trims, until it is through or the disk fails.
/// Returns the last version that was acknowledged.
fn run(directory: &Path, options: Options) -> u64 {
    let Ok((log, _)) = Log::open(directory, options, 0) else {
        return 0;
    };
    let (on_group, groups) = mpsc::sync_channel(1024);
    let on_durable = move |group: quorumkv_wal::DurableGroup<u64>| {
        // After a failure nobody listens.
        let _ = on_group.send(group.tickets);
    };
    let mut writer = log.spawn(on_durable, |_| ()).expect("threads start");
    let mut acknowledged = 0;
    for first in (1..=100).step_by(5) {
        let mut records: Vec<Record> =
            (first..first + 5).map(|version| sized_entry(1, version, 270)).collect();
        records.insert(0, Record::Promise { epoch: epoch(3) });
        if writer.submit(Batch { records, ticket: first + 4 }).is_err() {
            break;
        }
        let Ok(tickets) = groups.recv() else {
            break;
        };
        acknowledged = tickets[0];
        if acknowledged % 40 == 0 {
            writer.trim(acknowledged / 2);
        }
    }
    acknowledged
}

#[test]
fn a_process_that_dies_at_any_operation_finds_all_it_had_acknowledged() {
    for fatal in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let operations = AtomicU64::new(0);
        let died = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&died);
        // From the fatal operation on nothing reaches the disk any more.
        let hook = move |_: Operation, _: &Path| {
            if operations.fetch_add(1, Ordering::SeqCst) < fatal {
                return Ok(());
            }
            flag.store(true, Ordering::SeqCst);
            Err(io::Error::other("the process is dead"))
        };
        let acknowledged = run(&path, with(Arc::new(hook)));

        let (mut running, recovered) = open(&path, small());
        assert!(
            recovered.last.version >= acknowledged,
            "operation {fatal}: {recovered:?}, {acknowledged} acknowledged"
        );
        assert_eq!(recovered.torn, None, "operation {fatal}: writes were whole");
        if acknowledged >= 1 {
            assert_eq!(recovered.promise, Some(epoch(3)), "operation {fatal}");
        }
        assert!(recovered.base.version < 40, "operation {fatal}: {recovered:?}");
        let entries = running.read_all().len() as u64;
        assert_eq!(entries, recovered.last.version - recovered.base.version, "operation {fatal}");
        running.append(vec![sized_entry(4, recovered.last.version + 1, 270)]);
        if !died.load(Ordering::SeqCst) {
            assert_eq!(acknowledged, 100);
            assert!(fatal > 60, "there is more to fail than {fatal} operations");
            return;
        }
    }
}

#[test]
fn opening_removes_the_file_that_a_crash_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let spare = directory.path().join("spare.tmp");
    let (log, _) = Log::open(directory.path(), small(), 0).unwrap();
    drop(log);
    std::fs::write(&spare, "half a segment").unwrap();
    let _log = Log::open(directory.path(), small(), 0).unwrap();
    assert!(!spare.exists());
}

/// Fails the sync (or write) number `nth` of a segment, and counts what is tried on segments after that.
fn failing(operation: Operation, nth: u64) -> (FaultHook, Arc<AtomicU64>) {
    let seen = AtomicU64::new(0);
    let after = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&after);
    let hook = move |found, path: &Path| {
        if !is_segment(path) {
            return Ok(());
        }
        if seen.load(Ordering::SeqCst) >= nth {
            count.fetch_add(1, Ordering::SeqCst);
        } else if found == operation && seen.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    };
    (Arc::new(hook), after)
}

#[test]
fn a_failed_sync_or_write_ends_the_writer_and_nothing_is_tried_again() {
    for operation in [Operation::Sync, Operation::Write] {
        let directory = tempfile::tempdir().unwrap();
        let (hook, tried_after) = failing(operation, 3);
        let (mut running, _) = open(directory.path(), with(hook));
        running.append(vec![entry(1, 1)]);
        running.append(vec![entry(1, 2)]);
        running.submit(vec![entry(1, 3)]);
        let error = running.failures.recv().expect("told of the failure");
        assert_eq!(error.source.raw_os_error(), Some(5));
        let result = running.writer.try_submit(Batch { records: vec![entry(1, 4)], ticket: 4 });
        assert!(matches!(result, Err(SubmitError::Closed)), "{result:?}");
        let result = running.writer.submit(Batch { records: vec![], ticket: 5 });
        assert!(matches!(result, Err(SubmitError::Closed)), "{result:?}");
        assert!(running.groups.recv().is_err(), "no ticket comes back after a failure");
        assert!(running.failures.recv().is_err(), "told once");
        drop(running);
        assert_eq!(tried_after.load(Ordering::SeqCst), 0);

        let (_, recovered) = open(directory.path(), small());
        assert!(recovered.last >= mark(1, 2));
    }
}

#[test]
fn batches_that_wait_behind_a_failure_are_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (at_gate, arrived) = mpsc::sync_channel(1024);
    let (open_gate, gate) = mpsc::sync_channel::<()>(1);
    let gate = Mutex::new(gate);
    let hook = move |operation, path: &Path| {
        if operation == Operation::Sync && is_segment(path) {
            at_gate.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
            return Err(io::Error::other("no"));
        }
        Ok(())
    };
    let (mut running, _) = open(directory.path(), with(Arc::new(hook)));
    running.submit(vec![entry(1, 1)]);
    arrived.recv().unwrap();
    running.submit(vec![entry(1, 2)]);
    open_gate.send(()).unwrap();
    running.failures.recv().expect("told of the failure");
    assert!(running.groups.recv().is_err());
}

#[test]
fn a_spare_that_could_not_be_made_is_tried_again_when_it_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let failures = AtomicU64::new(0);
    // The first segment is made when the log opens; then the helper fails once.
    let hook = move |operation, path: &Path| {
        let is_create = operation == Operation::Create && !is_segment(path);
        if is_create && failures.fetch_add(1, Ordering::SeqCst) == 1 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    };
    let (mut running, _) = open(directory.path(), with(Arc::new(hook)));
    running.append((1..=100).map(|version| sized_entry(1, version, 270)).collect());
    assert_eq!(running.read_all().len(), 100);
}

#[test]
fn a_disk_that_stays_full_ends_the_writer_when_a_segment_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let made = AtomicU64::new(0);
    let hook = move |operation, _: &Path| match operation {
        Operation::Create if made.fetch_add(1, Ordering::SeqCst) > 0 => {
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    };
    let (mut running, _) = open(directory.path(), with(Arc::new(hook)));
    running.submit((1..=100).map(|version| sized_entry(1, version, 270)).collect());
    let error = running.failures.recv().expect("told of the failure");
    assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
    drop(running);
    // What was written before the segment was full is there.
    let (_, recovered) = open(directory.path(), small());
    assert!((30..100).contains(&recovered.last.version));
}

#[test]
fn a_removal_that_failed_leaves_no_gap_and_is_made_up_for() {
    let directory = tempfile::tempdir().unwrap();
    let removals = AtomicU64::new(0);
    let hook = move |operation, path: &Path| {
        if operation == Operation::Remove && is_segment(path) && removals.fetch_add(1, Ordering::SeqCst) == 1
        {
            return Err(io::Error::other("no"));
        }
        Ok(())
    };
    let (mut running, _) = open(directory.path(), with(Arc::new(hook)));
    running.append((1..=200).map(|version| sized_entry(1, version, 270)).collect());
    running.writer.trim(150);
    drop(running);
    let (mut running, recovered) = open(directory.path(), small());
    assert!(recovered.base.version < 100, "{recovered:?}");
    let first = running.writer.trim(150);
    drop(running);
    let (_, recovered) = open(directory.path(), small());
    assert_eq!(recovered.base.version + 1, first);
}

#[test]
fn a_callback_that_panics_closes_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(directory.path(), small(), 0).unwrap();
    let mut writer = log.spawn(|_| panic!("expected by the test"), |_| ()).unwrap();
    writer.submit(Batch { records: vec![entry(1, 1)], ticket: () }).unwrap();
    while writer.submit(Batch { records: vec![], ticket: () }).is_ok() {
        std::thread::yield_now();
    }
}

/// What the order of operations must guarantee, checked as they happen.
#[derive(Default)]
struct Order {
    /// Files with bytes that are not synced.
    dirty: BTreeSet<PathBuf>,
    /// A rename whose directory is not synced.
    renamed: bool,
    segments_made: u64,
}

impl Order {
    fn check(&mut self, operation: Operation, path: &Path) {
        match operation {
            Operation::Write => {
                assert!(
                    !(self.renamed && is_segment(path)),
                    "a record is written to a segment that a crash can unname"
                );
                self.dirty.insert(path.to_owned());
            }
            Operation::Sync => {
                self.dirty.remove(path);
            }
            Operation::Rename => {
                assert!(
                    self.dirty.is_empty(),
                    "a segment gets its name before all is durable: {:?}",
                    self.dirty
                );
                self.renamed = true;
                self.segments_made += 1;
            }
            Operation::SyncDirectory => self.renamed = false,
            Operation::Create | Operation::Remove => {}
        }
    }
}

#[test]
fn a_segment_gets_its_name_after_all_before_is_durable_and_its_records_after_that() {
    for sync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let order = Arc::new(Mutex::new(Order::default()));
        let checker = Arc::clone(&order);
        let hook = move |operation, path: &Path| {
            checker.lock().unwrap().check(operation, path);
            Ok(())
        };
        let (mut running, _) = open(directory.path(), Options { sync, ..with(Arc::new(hook)) });
        for first in (1..=300).step_by(20) {
            running.append((first..first + 20).map(|version| sized_entry(1, version, 270)).collect());
            if sync {
                let order = order.lock().unwrap();
                assert!(!order.dirty.iter().any(|path| is_segment(path)), "acknowledged but not synced");
            }
        }
        assert!(order.lock().unwrap().segments_made >= 7);
    }
}
