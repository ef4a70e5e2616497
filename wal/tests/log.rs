//! The log as its users see it when nothing goes wrong.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use common::{as_entry, entries_in, entry, epoch, mark, open, read_all, segments, sized_entry, small, start};
use quorumkv_wal::{Batch, InvalidRecord, Log, Mark, Operation, Options, ReadError, Record, SubmitError};

#[test]
fn what_is_appended_is_read_back_and_survives_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    let records: Vec<Record> = (1..=20).map(|version| entry(1 + version / 8, version)).collect();
    let entries: Vec<_> = records.iter().map(as_entry).collect();
    let (mut running, recovered) = open(directory.path(), small());
    assert_eq!((recovered.base, recovered.last, recovered.promise), (Mark::ZERO, Mark::ZERO, None));
    running.append(vec![Record::Promise { epoch: epoch(9) }]);
    running.append(records);
    assert_eq!(running.read_all(), entries);
    running.writer.close();

    let (running, recovered) = open(directory.path(), small());
    assert_eq!((recovered.base, recovered.last), (Mark::ZERO, mark(3, 20)));
    assert_eq!(recovered.promise, Some(epoch(9)));
    assert_eq!(recovered.epochs, [(epoch(1), 1), (epoch(2), 8), (epoch(3), 16)]);
    assert_eq!(recovered.torn, None);
    assert_eq!(running.read_all(), entries);
}

#[test]
fn a_read_is_bounded_by_bytes_but_returns_one_entry_at_least() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    running.append((1..=10).map(|version| sized_entry(1, version, 200)).collect());
    let versions = |from, max_bytes| {
        let entries = running.reader.read(from, max_bytes).unwrap();
        entries.iter().map(|entry| entry.mark.version).collect::<Vec<_>>()
    };
    assert_eq!(versions(3, 0), [3]);
    assert_eq!(versions(3, 3 * 248), [3, 4, 5]);
    assert_eq!(versions(3, 4 * 248 - 1), [3, 4, 5]);
    assert_eq!(versions(10, u64::MAX), [10]);
    assert_eq!(versions(11, u64::MAX), []);
    assert_eq!(versions(u64::MAX, u64::MAX), []);
    assert!(matches!(running.reader.read(0, 1), Err(ReadError::Trimmed { first: 1 })));
}

#[test]
fn an_entry_overwrites_those_at_its_version_and_above() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    running.append((1..=6).map(|version| entry(1, version)).collect());
    running.append(vec![entry(2, 4), entry(2, 5), entry(3, 5)]);
    let expected: Vec<_> =
        [entry(1, 1), entry(1, 2), entry(1, 3), entry(2, 4), entry(3, 5)].iter().map(as_entry).collect();
    assert_eq!(running.read_all(), expected);
    assert_eq!(running.reader.last(), mark(3, 5));
    assert_eq!(running.reader.mark(3), Some(mark(1, 3)));
    drop(running);

    let (mut running, recovered) = open(directory.path(), small());
    assert_eq!(recovered.epochs, [(epoch(1), 1), (epoch(2), 4), (epoch(3), 5)]);
    assert_eq!(running.read_all(), expected);
    running.append(vec![entry(4, 1)]);
    drop(running);
    assert_eq!(entries_in(directory.path()), [as_entry(&entry(4, 1))]);
}

#[test]
fn a_truncation_takes_entries_back_without_another_in_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    running.append((1..=6).map(|version| entry(1, version)).collect());
    running.append(vec![Record::Truncate { to: mark(1, 2) }]);
    assert_eq!(running.reader.last(), mark(1, 2));
    drop(running);
    let (_, recovered) = open(directory.path(), small());
    assert_eq!(recovered.last, mark(1, 2));
}

#[test]
fn a_base_voids_all_entries_and_keeps_the_promise() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    running.append(vec![entry(1, 1), entry(1, 2), Record::Promise { epoch: epoch(5) }]);
    running.append(vec![Record::Base { mark: mark(4, 100) }, entry(5, 101)]);
    assert_eq!(running.read_all(), [as_entry(&entry(5, 101))]);
    assert!(matches!(running.reader.read(2, 1), Err(ReadError::Trimmed { first: 101 })));
    drop(running);

    let (mut running, recovered) = open(directory.path(), small());
    assert_eq!((recovered.base, recovered.last), (mark(4, 100), mark(5, 101)));
    assert_eq!((recovered.promise, recovered.epochs), (Some(epoch(5)), vec![(epoch(5), 101)]));
    // A snapshot may also reach less far than entries that turned out to have diverged.
    running.append(vec![Record::Base { mark: mark(6, 50) }]);
    drop(running);
    let (_, recovered) = open(directory.path(), small());
    assert_eq!((recovered.base, recovered.last), (mark(6, 50), mark(6, 50)));
}

#[test]
fn the_log_rolls_over_many_segments_even_within_one_batch() {
    let directory = tempfile::tempdir().unwrap();
    let records: Vec<Record> = (1..=300).map(|version| sized_entry(1, version, 270)).collect();
    let entries: Vec<_> = records.iter().map(as_entry).collect();
    let (mut running, _) = open(directory.path(), small());
    running.append(records[..200].to_vec());
    for record in &records[200..] {
        running.submit(vec![record.clone()]);
    }
    running.wait();
    assert_eq!(running.read_all(), entries);
    assert_eq!(read_all(&running.reader, 5000), entries);
    drop(running);
    assert!(segments(directory.path()).len() >= 8);
    let (running, recovered) = open(directory.path(), small());
    assert_eq!((recovered.last, recovered.torn), (mark(1, 300), None));
    assert_eq!(running.read_all(), entries);
}

#[test]
fn trimming_removes_whole_segments_and_keeps_promise_and_base() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    running.append(vec![Record::Promise { epoch: epoch(3) }]);
    running.append((1..=300).map(|version| sized_entry(1, version, 270)).collect());
    let (bytes, segments_before) = (running.reader.bytes(), segments(directory.path()).len());

    assert_eq!(running.writer.trim(1), 1);
    let first = running.writer.trim(200);
    assert!((150..=200).contains(&first), "{first}");
    assert_eq!(running.reader.first_version(), first);
    assert!(running.reader.bytes() < bytes);
    assert!(matches!(running.reader.read(first - 1, 1), Err(ReadError::Trimmed { .. })));
    assert_eq!(running.read_all().len() as u64, 301 - first);
    let below_base = running.writer.try_submit(Batch { records: vec![entry(2, first - 1)], ticket: 0 });
    assert!(matches!(below_base, Err(SubmitError::Invalid(InvalidRecord::BelowBase { .. }))));
    drop(running);

    assert!(segments(directory.path()).len() < segments_before);
    let (mut running, recovered) = open(directory.path(), small());
    assert_eq!((recovered.promise, recovered.base), (Some(epoch(3)), mark(1, first - 1)));
    assert_eq!(recovered.epochs, [(epoch(1), first)]);
    // The active segment stays, whatever is asked for.
    let first = running.writer.trim(u64::MAX);
    assert!(first <= 301);
    running.append(vec![sized_entry(1, 301, 270)]);
    assert_eq!(running.read_all().len() as u64, 302 - first);
}

#[test]
fn the_base_after_a_trim_is_exact_even_when_trimmed_entries_had_been_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    running.append((1..=60).map(|version| sized_entry(1, version, 270)).collect());
    assert_eq!(segments(directory.path()).len(), 2);
    running.append(vec![entry(2, 5), entry(2, 6)]);
    assert_eq!(running.writer.trim(7), 1, "overwritten entries of higher versions hold their segment");
    running.append((7..=100).map(|version| sized_entry(2, version, 270)).collect());
    assert_eq!(running.writer.trim(39), 5);
    drop(running);
    let (running, recovered) = open(directory.path(), small());
    assert_eq!(recovered.base, mark(1, 4));
    assert_eq!(running.read_all().len(), 96);
}

/// A hook that stops the writer in its first sync of records until told to go on, and says when it is there.
fn gate() -> (Options, mpsc::Receiver<()>, mpsc::SyncSender<()>) {
    let (at_gate, arrived) = mpsc::sync_channel(1024);
    let (open_gate, gate) = mpsc::sync_channel::<()>(1);
    let gate = Mutex::new(Some(gate));
    let hook = move |operation, path: &std::path::Path| {
        let is_segment = path.extension().is_some_and(|extension| extension == "wal");
        if operation == Operation::Sync
            && is_segment
            && let Some(gate) = gate.lock().unwrap().take()
        {
            at_gate.send(()).unwrap();
            gate.recv().unwrap();
        }
        Ok(())
    };
    (Options { faults: Some(Arc::new(hook)), ..small() }, arrived, open_gate)
}

#[test]
fn what_arrives_during_a_sync_shares_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let (options, arrived, open_gate) = gate();
    let (mut running, _) = open(directory.path(), options);
    running.submit(vec![entry(1, 1)]);
    arrived.recv().unwrap();
    // Written, if not durable: readable.
    assert_eq!(running.read_all().len(), 1);
    for version in 2..=50 {
        running.submit(vec![entry(1, version)]);
    }
    running.submit(vec![]);
    open_gate.send(()).unwrap();
    let first = running.groups.recv().unwrap();
    assert_eq!((first.tickets, first.records), (vec![1], 1));
    let second = running.groups.recv().unwrap();
    assert_eq!(second.tickets, (2..=51).collect::<Vec<_>>());
    assert_eq!(second.records, 49);
    assert!(second.bytes >= 49 * 64);
}

#[test]
fn a_full_queue_gives_the_batch_back_and_has_room_after_the_next_group() {
    let directory = tempfile::tempdir().unwrap();
    let (options, arrived, open_gate) = gate();
    let (log, _) = Log::open(directory.path(), Options { queue_batches: 2, ..options }, 0).unwrap();
    let mut running = start(log);
    running.submit(vec![entry(1, 1)]);
    arrived.recv().unwrap();
    assert!(running.writer.has_room(1, 100));
    running.submit(vec![entry(1, 2)]);
    running.submit(vec![entry(1, 3)]);
    assert!(!running.writer.has_room(1, 100));
    let batch = Batch { records: vec![entry(1, 4)], ticket: 4 };
    let Err(SubmitError::Full(returned)) = running.writer.try_submit(batch.clone()) else {
        panic!("the queue is full");
    };
    assert_eq!(returned, batch);
    open_gate.send(()).unwrap();
    running.wait();
    running.append(returned.records);
    assert_eq!(running.read_all().len(), 4);
}

#[test]
fn a_barrier_comes_back_in_order_and_alone_costs_no_sync() {
    let directory = tempfile::tempdir().unwrap();
    let syncs = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&syncs);
    let hook = move |operation, path: &std::path::Path| {
        let is_segment = path.extension().is_some_and(|extension| extension == "wal");
        *counter.lock().unwrap() += u32::from(operation == Operation::Sync && is_segment);
        Ok(())
    };
    let (mut running, _) = open(directory.path(), Options { faults: Some(Arc::new(hook)), ..small() });
    running.append(vec![]);
    assert_eq!(*syncs.lock().unwrap(), 0);
    running.append(vec![entry(1, 1)]);
    assert_eq!(*syncs.lock().unwrap(), 1);
    running.append(vec![]);
    assert_eq!(*syncs.lock().unwrap(), 1);
}

#[test]
fn an_invalid_batch_is_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    running.append(vec![entry(2, 1), Record::Promise { epoch: epoch(5) }]);
    let invalid = [
        vec![entry(2, 2), entry(2, 4)],
        vec![entry(2, 2), entry(1, 3)],
        vec![entry(2, 2), entry(2, 0)],
        vec![entry(2, 2), Record::Promise { epoch: epoch(4) }],
        vec![entry(2, 2), Record::Truncate { to: mark(1, 1) }],
        vec![entry(2, 2), sized_entry(2, 3, (16 << 10) - 4096 - 47)],
    ];
    for records in invalid {
        let result = running.writer.try_submit(Batch { records, ticket: 0 });
        assert!(matches!(result, Err(SubmitError::Invalid(_))), "{result:?}");
        let result = running.writer.try_submit(Batch { records: vec![entry(2, 3)], ticket: 0 });
        assert!(
            matches!(result, Err(SubmitError::Invalid(InvalidRecord::Gap { last: 1, .. }))),
            "{result:?}"
        );
    }
    // The largest record there can be fills a segment to its last byte.
    running.append(vec![entry(2, 2), sized_entry(2, 3, (16 << 10) - 4096 - 48), entry(2, 4)]);
    assert_eq!(running.read_all().len(), 4);
    drop(running);
    assert_eq!(entries_in(directory.path()).len(), 4);
}

#[test]
fn a_log_can_run_without_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), Options { sync: false, ..small() });
    for version in 1..=200 {
        running.append(vec![sized_entry(1, version, 270)]);
    }
    drop(running);
    assert_eq!(entries_in(directory.path()).len(), 200);
}

#[test]
fn readers_see_one_moment_while_the_log_is_overwritten_and_trimmed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, _) = open(directory.path(), small());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (reader, done) = (running.reader.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut reads = 0;
                while !done.load(Ordering::SeqCst) || reads == 0 {
                    let first = reader.first_version();
                    let entries = match reader.read(first, 20_000) {
                        Err(ReadError::Trimmed { first: now }) => {
                            assert!(now > first);
                            continue;
                        }
                        entries => entries.unwrap(),
                    };
                    for (version, found) in (first..).zip(&entries) {
                        let counter = found.mark.epoch.counter;
                        assert_eq!(found, &as_entry(&sized_entry(counter, version, 270)));
                    }
                    assert!(entries.is_sorted_by_key(|entry| entry.mark));
                    reads += 1;
                }
            })
        })
        .collect();
    let mut last = 0;
    for counter in 1..=100 {
        running.append((last + 1..=last + 30).map(|version| sized_entry(counter, version, 270)).collect());
        // The next round overwrites the last ten.
        last += 20;
        running.writer.trim(last.saturating_sub(60));
    }
    done.store(true, Ordering::SeqCst);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}
