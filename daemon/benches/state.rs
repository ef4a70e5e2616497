//! What it costs to apply entries and to read keys: `cargo bench -p kvd --bench state`.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kvd::state::{Options, State};
use quorumkv_protocol::entry::{Body, Effect, Entry, EvaluatedWrite, Outcome};
use quorumkv_protocol::{ClientId, EntryId, Epoch, NodeId, RequestId, Version};

/// Entries that are applied together, and different keys.
const ENTRIES: u64 = 128;
const KEYS: u64 = 10_000;

fn key(number: u64) -> Bytes {
    format!("bench/{:08}", number % KEYS).into()
}

fn entry(version: u64) -> Entry {
    let write = EvaluatedWrite {
        request: RequestId { client: ClientId::new(1), sequence: version },
        floor: version.saturating_sub(256),
        // A step that has no divisor in common with the number of keys: all of them, in no order.
        effects: vec![Effect::Put { key: key(version * 7919), value: vec![b'v'; 256].into() }],
        outcome: Outcome::Applied,
    };
    let id = EntryId::new(Epoch::new(1, NodeId::new(1)), Version::new(version));
    Entry { id, body: Body::Write(write) }
}

fn state(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let state = State::open(directory.path(), Options::default()).expect("a new state");
    let mut version = 0;
    let mut entries = || -> Vec<Entry> {
        let first = version + 1;
        version += ENTRIES;
        (first..=version).map(entry).collect()
    };
    while state.applied().version < Version::new(2 * KEYS) {
        state.apply(&entries()).expect("the disk works");
    }
    let mut group = criterion.benchmark_group("state");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("apply", |b| {
        let apply = |entries: Vec<Entry>| state.apply(&entries).expect("the disk works");
        b.iter_batched(&mut entries, apply, BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(1));
    let mut number = 0;
    let mut read = || {
        number += 7919;
        state.get(&key(number)).expect("the state is whole").expect("every key was written")
    };
    group.bench_function("get what was applied just now", |b| b.iter(&mut read));
    state.settle().expect("the disk works");
    group.bench_function("get what was read before", |b| b.iter(&mut read));
    group.finish();
}

criterion_group!(benches, state);
criterion_main!(benches);
