//! What it costs to encode and decode what is sent most: `cargo bench -p quorumkv-protocol`.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorumkv_protocol::client::{Request, RequestEnvelope, Write, WriteRequest};
use quorumkv_protocol::entry::{Body, Effect, Entry, EvaluatedWrite, Outcome};
use quorumkv_protocol::frame::{self, HEADER_LENGTH};
use quorumkv_protocol::peer::{
    Append, KeyAnswer, PeerEnvelope, PeerMessage, ReadSampleReply, Standing, Vote,
};
use quorumkv_protocol::{ClientId, EntryId, Epoch, NodeId, RequestId, Version};

/// Entries in an append, and keys in a sample.
const MANY: u64 = 100;

fn key(number: u64) -> Bytes {
    format!("bench/{number:08}").into()
}

fn value() -> Bytes {
    vec![b'v'; 256].into()
}

fn id(version: u64) -> EntryId {
    EntryId::new(Epoch::new(7, NodeId::new(1 << 60)), Version::new(version))
}

fn put(sequence: u64) -> RequestEnvelope {
    let request = RequestId { client: ClientId::new(1 << 60), sequence };
    let write = Write::Put { key: key(sequence), value: value() };
    let body = Request::Write(WriteRequest { request, floor: 1, since: Version::new(sequence), write });
    RequestEnvelope { correlation: sequence, timeout_ms: 10_000, body }
}

fn entry(version: u64) -> Arc<Entry> {
    let write = EvaluatedWrite {
        request: RequestId { client: ClientId::new(1 << 60), sequence: version },
        floor: version.saturating_sub(256),
        effects: vec![Effect::Put { key: key(version), value: value() }],
        outcome: Outcome::Applied,
    };
    Arc::new(Entry { id: id(version), body: Body::Write(write) })
}

fn append() -> PeerEnvelope {
    let entries = (1_000_001..=1_000_000 + MANY).map(entry).collect();
    let (previous, committed) = (id(1_000_000), Version::new(999_900));
    let append = Append { epoch: previous.epoch, previous, entries, committed };
    PeerEnvelope { correlation: 12, body: PeerMessage::Vote(Vote::Write(append)) }
}

/// An answer to an asker that has all values.
fn sampled() -> PeerEnvelope {
    let answer = |version| KeyAnswer::Present { id: id(version), checksum: 0xdead_beef, value: None };
    let standing = Standing { last: id(1_000_100), promise: id(1).epoch, committed: Version::new(1_000_000) };
    let reply = ReadSampleReply { configuration: id(1), standing, keys: (1..=MANY).map(answer).collect() };
    PeerEnvelope { correlation: 12, body: PeerMessage::ReadSampleReply(reply) }
}

fn body<T: serde::Serialize>(message: &T) -> Bytes {
    let mut out = BytesMut::new();
    frame::encode(message, &mut out);
    out.freeze().slice(HEADER_LENGTH..)
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    let mut out = BytesMut::with_capacity(1 << 20);
    let mut encode = |message: &dyn Fn(&mut BytesMut)| {
        out.clear();
        message(&mut out);
        black_box(out.len())
    };
    let (request, request_body) = (put(1_000_000), body(&put(1_000_000)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode a put", |b| b.iter(|| encode(&|out| frame::encode(&request, out))));
    group.bench_function("decode a put", |b| {
        b.iter(|| frame::decode::<RequestEnvelope>(black_box(&request_body)).expect("it is well formed"));
    });
    let (append, append_body) = (append(), body(&append()));
    group.throughput(Throughput::Elements(MANY));
    group.bench_function("encode an append", |b| b.iter(|| encode(&|out| frame::encode(&append, out))));
    group.bench_function("decode an append", |b| {
        let decode = |body| frame::decode_shared::<PeerEnvelope>(&body).expect("it is well formed");
        b.iter_batched(|| append_body.clone(), decode, BatchSize::SmallInput);
    });
    let (sampled, sampled_body) = (sampled(), body(&sampled()));
    group.bench_function("encode an answer to a sample", |b| {
        b.iter(|| encode(&|out| frame::encode(&sampled, out)));
    });
    group.bench_function("decode an answer to a sample", |b| {
        b.iter(|| frame::decode::<PeerEnvelope>(black_box(&sampled_body)).expect("it is well formed"));
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
