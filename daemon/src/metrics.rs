//! What a node counts and measures, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram as Recorder;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::{Consistency, DamagedPart, NodeRole, Request};
use quorumkv_replica::{Notice, Status};

/// The percentile of log syncs in the status looks back over one to two of these.
const SYNC_WINDOW: Duration = Duration::from_secs(60);

/// Longest sync that the percentile tells apart, in microseconds.
const LONGEST_SYNC_US: u64 = 60_000_000;

/// All of a node's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Operation, Counter>,
    usual: Usual,
    failures: Family<Code, Counter>,
    read_conflicts: Counter,
    elections: Counter,
    impeachments: Counter,
    gave_up: Counter,
    epochs_opened: Counter,
    stood_down: Counter,
    snapshots_received: Counter,
    corruption: Counter,
    damage_found: Family<Part, Counter>,
    damage_repaired: Family<Part, Counter>,
    replicas_differ: Counter,
    quarantined: Gauge,
    absurd: Counter,
    log_records: Counter,
    log_bytes: Counter,
    log_sync: Histogram,
    leader: Gauge,
    committed: Gauge<u64, AtomicU64>,
    applied: Gauge<u64, AtomicU64>,
    lag: Gauge<u64, AtomicU64>,
    epoch: Gauge<u64, AtomicU64>,
    members_reachable: Gauge,
    zookeeper: Gauge,
    syncs: Mutex<RecentSyncs>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

/// Counters of the requests that there are most of, without a search for each.
#[derive(Debug)]
struct Usual {
    write: Counter,
    get: Counter,
    get_local: Counter,
}

impl Usual {
    fn of(requests: &Family<Operation, Counter>) -> Self {
        let counter = |operation| requests.get_or_create(&Operation { operation }).clone();
        Self { write: counter("write"), get: counter("get"), get_local: counter("get_local") }
    }
}

/// Times of recent log syncs, in microseconds: of the present window and of the one before.
#[derive(Debug)]
struct RecentSyncs {
    present: Recorder<u64>,
    past: Recorder<u64>,
    since: Instant,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // Buckets from 32 µs to about 2 s.
        let log_sync = Histogram::new(exponential_buckets(32e-6, 2.0, 17));
        let recorder = || Recorder::new_with_max(LONGEST_SYNC_US, 2).expect("the bounds are valid");
        let requests = Family::default();
        let mut metrics = Self {
            registry: Registry::with_prefix("kvd"),
            usual: Usual::of(&requests),
            requests,
            failures: Family::default(),
            read_conflicts: Counter::default(),
            elections: Counter::default(),
            impeachments: Counter::default(),
            gave_up: Counter::default(),
            epochs_opened: Counter::default(),
            stood_down: Counter::default(),
            snapshots_received: Counter::default(),
            corruption: Counter::default(),
            damage_found: Family::default(),
            damage_repaired: Family::default(),
            replicas_differ: Counter::default(),
            quarantined: Gauge::default(),
            absurd: Counter::default(),
            log_records: Counter::default(),
            log_bytes: Counter::default(),
            log_sync,
            leader: Gauge::default(),
            committed: Gauge::default(),
            applied: Gauge::default(),
            lag: Gauge::default(),
            epoch: Gauge::default(),
            members_reachable: Gauge::default(),
            zookeeper: Gauge::default(),
            syncs: Mutex::new(RecentSyncs { present: recorder(), past: recorder(), since: Instant::now() }),
        };
        metrics.register();
        // A counter that comes into being with its first event shows no increase.
        for part in [DamagedPart::State, DamagedPart::Log] {
            let part = Part { part: part.name() };
            drop(metrics.damage_found.get_or_create(&part));
            drop(metrics.damage_repaired.get_or_create(&part));
        }
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests taken in from clients", self.requests.clone());
        r.register("failures", "Requests that the replica failed, by error code", self.failures.clone());
        r.register(
            "read_conflicts",
            "Rounds of quorum reads that met a conflict",
            self.read_conflicts.clone(),
        );
        r.register(
            "impeachments",
            "Times that this node took a leader out of the election that a majority did not hear",
            self.impeachments.clone(),
        );
        r.register(
            "gave_up_the_lead",
            "Times that this node gave up the lead because of its disk, its log, or members that did not answer",
            self.gave_up.clone(),
        );
        r.register("elections_won", "Times that ZooKeeper elected this node", self.elections.clone());
        r.register(
            "epochs_opened",
            "Epochs that this node established as leader",
            self.epochs_opened.clone(),
        );
        r.register(
            "stood_down",
            "Times that this node stopped leading or contending",
            self.stood_down.clone(),
        );
        r.register("snapshots_received", "Snapshots installed on this node", self.snapshots_received.clone());
        r.register(
            "corruption",
            "Reads that found different data under one version",
            self.corruption.clone(),
        );
        r.register(
            "damage_found",
            "Times that this node found its log or state to be damaged",
            self.damage_found.clone(),
        );
        r.register(
            "damage_repaired",
            "Times that this node repaired its log or state",
            self.damage_repaired.clone(),
        );
        r.register(
            "replicas_differ",
            "Times that this node, leading, found the state of a replica to differ from that of a majority",
            self.replicas_differ.clone(),
        );
        r.register(
            "quarantined",
            "1 while the state of this node is damaged and not used",
            self.quarantined.clone(),
        );
        r.register("absurd_messages", "Peer messages that no correct peer sends", self.absurd.clone());
        r.register("log_records", "Records made durable in the log", self.log_records.clone());
        r.register_with_unit("log", "Bytes made durable in the log", Unit::Bytes, self.log_bytes.clone());
        let help = "Time to write and sync a group of records";
        r.register_with_unit("log_sync", help, Unit::Seconds, self.log_sync.clone());
        r.register("leader", "1 if this node leads", self.leader.clone());
        r.register("committed_version", "Last version known to be committed", self.committed.clone());
        r.register("applied_version", "Last version applied to the state", self.applied.clone());
        r.register("lag_versions", "Versions behind the leader", self.lag.clone());
        r.register("epoch", "Counter of the epoch promised", self.epoch.clone());
        r.register(
            "members_reachable",
            "Members that requests reach, this one included",
            self.members_reachable.clone(),
        );
        r.register("zookeeper_connected", "1 if the ZooKeeper session is connected", self.zookeeper.clone());
    }

    /// Writes that have come.
    pub(crate) fn writes(&self) -> u64 {
        self.usual.write.get()
    }

    /// Whether this node leads.
    pub(crate) fn leads(&self) -> bool {
        self.leader.get() == 1
    }

    /// A request came in.
    pub(crate) fn request(&self, request: &Request) {
        let operation = match request {
            Request::Write(_) => {
                self.usual.write.inc();
                return;
            }
            Request::Get { consistency: Consistency::Quorum, .. } => {
                self.usual.get.inc();
                return;
            }
            Request::Get { consistency: Consistency::Local, .. } => {
                self.usual.get_local.inc();
                return;
            }
            Request::Scan { .. } => "scan",
            Request::Status => "status",
            Request::Stop { .. } => "stop",
            Request::Members => "members",
            Request::Change { .. } => "change",
            Request::Drain { .. } => "drain",
        };
        self.requests.get_or_create(&Operation { operation }).inc();
    }

    /// The replica failed a request.
    pub(crate) fn failed(&self, code: ErrorCode) {
        self.failures.get_or_create(&Code { code: code.name() }).inc();
    }

    /// ZooKeeper elected this node.
    pub(crate) fn elected(&self) {
        self.elections.inc();
    }

    /// This node took a leader out of the election that a majority did not hear.
    pub(crate) fn impeached(&self) {
        self.impeachments.inc();
    }

    /// This node gave up the lead because something was wrong with it.
    pub(crate) fn gave_up(&self) {
        self.gave_up.inc();
    }

    /// This node found that something on its disk is damaged.
    pub(crate) fn damage_found(&self, part: DamagedPart) {
        self.damage_found.get_or_create(&Part { part: part.name() }).inc();
    }

    /// This node repaired what was damaged.
    pub(crate) fn damage_repaired(&self, part: DamagedPart) {
        self.damage_repaired.get_or_create(&Part { part: part.name() }).inc();
    }

    /// The ZooKeeper session came or went.
    pub(crate) fn zookeeper(&self, connected: bool) {
        self.zookeeper.set(connected.into());
    }

    /// A group of records became durable.
    pub(crate) fn log_synced(&self, records: usize, bytes: usize, time: Duration) {
        self.log_records.inc_by(records as u64);
        self.log_bytes.inc_by(bytes as u64);
        self.log_sync.observe(time.as_secs_f64());
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        if syncs.since.elapsed() >= SYNC_WINDOW {
            syncs.since = Instant::now();
            let RecentSyncs { present, past, .. } = &mut *syncs;
            std::mem::swap(present, past);
            present.reset();
        }
        syncs.present.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The 99th percentile of recent log syncs, in microseconds; 0 if there were none.
    pub(crate) fn sync_p99_us(&self) -> u64 {
        let syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.present.value_at_quantile(0.99).max(syncs.past.value_at_quantile(0.99))
    }

    /// The replica says how it is.
    pub(crate) fn replica(&self, status: &Status) {
        self.quarantined.set(status.damaged.into());
        self.leader.set((status.role == NodeRole::Leader).into());
        self.committed.set(status.committed.get());
        self.applied.set(status.applied.get());
        self.lag.set(status.lag);
        self.epoch.set(status.promise.counter());
        self.members_reachable.set(i64::try_from(status.reachable).unwrap_or(i64::MAX));
    }

    /// The replica says that something happened.
    pub(crate) fn notice(&self, notice: &Notice) {
        match notice {
            Notice::ReadConflict { .. } => self.read_conflicts.inc(),
            Notice::Established { .. } => self.epochs_opened.inc(),
            Notice::StoodDown { .. } => self.stood_down.inc(),
            Notice::Restored { .. } => self.snapshots_received.inc(),
            Notice::Corruption { .. } => self.corruption.inc(),
            Notice::Absurd { .. } => self.absurd.inc(),
            Notice::Differs { .. } => self.replicas_differ.inc(),
            Notice::Promised { .. }
            | Notice::Following { .. }
            | Notice::EpochTooLow { .. }
            | Notice::Contending { .. }
            | Notice::Promises { .. }
            | Notice::Unwell(_)
            | Notice::Impeach { .. }
            | Notice::Diverged { .. }
            | Notice::TooFarBehind { .. }
            | Notice::NotAVoter
            | Notice::SampleVoid { .. }
            | Notice::Reconfigured { .. }
            | Notice::ConfigurationCommitted { .. }
            | Notice::Removed { .. }
            | Notice::Damaged(_)
            | Notice::Repaired { .. }
            | Notice::Undecided { .. }
            | Notice::Restoring { .. } => return,
        };
    }

    /// Everything in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}
