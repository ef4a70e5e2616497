//! What the replication state machine itself costs, of one leader and two followers: `cargo bench -p quorumkv-replica`.

#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark is no part of the state machine"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorumkv_protocol::client::{Write, WriteRequest};
use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::{ClientId, EntryId, NodeId, RequestId, Version};
use quorumkv_replica::requests::Known;
use quorumkv_replica::{
    Input, Record, Recovered, Replica, Settings, StateView, Timestamp, Token, Unreadable,
};

/// Requests that are handled together.
const MANY: u64 = 64;
const NODES: u64 = 3;

/// A state that never changes: what the replica asks of it costs as good as nothing.
struct Still(Configuration);

impl StateView for Still {
    fn get(&self, _: &[u8]) -> Result<Option<Record>, Unreadable> {
        Ok(Some(Record::new(EntryId::ZERO, Bytes::from_static(&[b'v'; 256]))))
    }

    fn configuration(&self) -> Configuration {
        self.0.clone()
    }

    fn lookup(&self, _: RequestId, _: Version) -> Known {
        Known::Fresh
    }
}

/// Replicas whose disks and links are instantaneous.
struct Cluster {
    nodes: BTreeMap<NodeId, Replica<Still>>,
    now: Timestamp,
    tokens: u64,
    answers: usize,
}

impl Cluster {
    fn new() -> Self {
        let ids: Vec<NodeId> = (1..=NODES).map(NodeId::new).collect();
        let member = |&node: &NodeId| Member { node, address: format!("n{node}:1") };
        let members = Configuration::first(ids.iter().map(member).collect());
        let node = |&id: &NodeId| {
            let state = Still(members.clone());
            (id, Replica::new(id, &Recovered::fresh(), state, Settings::default()))
        };
        let nodes = ids.iter().map(node).collect();
        let mut cluster = Self { nodes, now: Timestamp::ZERO, tokens: 0, answers: 0 };
        for &one in &ids {
            for &other in ids.iter().filter(|&&other| other != one) {
                cluster.tell(one, Input::PeerUp(other));
            }
        }
        cluster.tell(ids[0], Input::Lead { counter: 1 });
        cluster.settle();
        cluster
    }

    fn tell(&mut self, node: NodeId, input: Input) {
        self.nodes.get_mut(&node).expect("a node").handle(self.now, input);
    }

    /// Carries out what the replicas say until they say no more.
    fn settle(&mut self) {
        self.now = self.now + Duration::from_micros(100);
        loop {
            let mut told = Vec::new();
            for (&from, replica) in &mut self.nodes {
                let effects = replica.flush(self.tokens);
                self.answers += effects.replies.len();
                if let Some(persist) = effects.persist {
                    told.push((from, Input::Persisted(persist)));
                }
                if let Some(last) = effects.apply.last() {
                    told.push((from, Input::Applied(last.id.version)));
                }
                for message in effects.sends.into_iter().chain(effects.when_durable) {
                    told.push((message.to, Input::Message { from, envelope: message.envelope }));
                }
            }
            if told.is_empty() {
                return;
            }
            for (node, input) in told {
                self.tell(node, input);
            }
        }
    }

    fn deadline(&self) -> Timestamp {
        self.now + Duration::from_secs(10)
    }

    fn write(&mut self) {
        for _ in 0..MANY {
            self.tokens += 1;
            let request = RequestId { client: ClientId::new(1), sequence: self.tokens };
            let key = format!("bench/{:08}", self.tokens * 7919 % 10_000).into();
            let write = Write::Put { key, value: Bytes::from_static(&[b'v'; 256]) };
            let request = WriteRequest { request, floor: self.tokens, since: Version::ZERO, write };
            let (token, deadline) = (Token(self.tokens), self.deadline());
            self.tell(NodeId::new(1), Input::Write { token, request, deadline });
        }
        self.settle();
    }

    fn read(&mut self) {
        for _ in 0..MANY {
            self.tokens += 1;
            let key = format!("bench/{:08}", self.tokens * 7919 % 10_000).into();
            let (token, deadline) = (Token(self.tokens), self.deadline());
            self.tell(NodeId::new(2), Input::Read { token, key, evidence: false, deadline });
        }
        self.settle();
    }
}

fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(MANY));
    let mut cluster = Cluster::new();
    let before = cluster.answers;
    cluster.write();
    cluster.read();
    assert_eq!(
        cluster.answers - before,
        2 * usize::try_from(MANY).expect("a small number"),
        "all are answered"
    );
    group.bench_function("writes, on three nodes", |b| {
        b.iter_batched(|| (), |()| cluster.write(), BatchSize::PerIteration);
    });
    group.bench_function("quorum reads, on three nodes", |b| {
        b.iter_batched(|| (), |()| cluster.read(), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
