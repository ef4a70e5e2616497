//! What it costs to append a group of entries: `cargo bench -p quorumkv-wal`. The example `bench` measures the log with its threads.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorumkv_wal::{Epoch, Log, Mark, Options, Record};

/// Entries in a group, and the bytes of each.
const ENTRIES: u64 = 128;
const PAYLOAD: usize = 270;

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(ENTRIES));
    for sync in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let (log, _) =
            Log::open(directory.path(), Options { sync, ..Options::default() }, 0).expect("a new log");
        let (mut log, mut version) = (log.in_steps(), 0);
        let mut records = || -> Vec<Record> {
            let epoch = Epoch { counter: 1, node: 1 };
            let record = |_| {
                version += 1;
                Record::Entry { mark: Mark { epoch, version }, payload: vec![0x5a; PAYLOAD].into() }
            };
            (0..ENTRIES).map(record).collect()
        };
        let name = if sync { "append and sync" } else { "append" };
        group.bench_function(name, |b| {
            let append = |records: Vec<Record>| {
                log.write(records).expect("the disk works");
                log.sync().expect("the disk works");
                // Only what was not written lately is kept.
                log.trim(log.reader().last().version.saturating_sub(100_000));
            };
            b.iter_batched(&mut records, append, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
