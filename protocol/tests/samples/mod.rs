//! One message of every variant, with telling numbers: the golden bytes and the hostile-input tests start from these.

#![allow(dead_code, reason = "each test binary uses its own part of the samples")]

use std::sync::Arc;

use bytes::Bytes;
use quorumkv_protocol::client::{
    Consistency, DamageFound, DamagedPart, Evidence, Failure, GaveUp, Got, Item, MemberStatus, Members,
    NodeRole, NodeStatus, Request, Response, Rule, Scanned, SnapshotProgress, Takeover, Versioned, Witness,
    Write, WriteRequest, Written,
};
use quorumkv_protocol::entry::{Asked, Body, Effect, Entry, EvaluatedWrite, Outcome, Reconfiguration};
use quorumkv_protocol::hello::{Hello, HelloReply, Limits, Role, Welcome};
use quorumkv_protocol::membership::{Change, ChangeRequest, Configuration, Member, Refusal, Replacement};
use quorumkv_protocol::peer::{
    Append, AppendReply, Compare, Compared, Digest, Heartbeat, HeartbeatReply, KeyAnswer, KeyProbe,
    PeerMessage, Propagate, PropagateReply, ReadSample, ReadSampleReply, SnapshotChunk, SnapshotPosition,
    Standing, Vote, VoteReply,
};
use quorumkv_protocol::{ClientId, ClusterId, EntryId, Epoch, ErrorCode, NodeId, RequestId, Version};

const NODE: NodeId = NodeId::new(0x1122_3344_5566_7788);
const CLUSTER: ClusterId = ClusterId::new(0x99aa_bbcc_ddee_ff00);
const CHECKSUM: u32 = 0xdead_beef;
const DIGEST: Digest = Digest(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

pub(crate) fn epoch(counter: u64) -> Epoch {
    Epoch::new(counter, NODE)
}

pub(crate) fn entry_id(counter: u64, version: u64) -> EntryId {
    EntryId::new(epoch(counter), Version::new(version))
}

fn key() -> Bytes {
    Bytes::from_static(b"key")
}

fn value() -> Bytes {
    Bytes::from_static(b"\x00value\xff")
}

fn request_id() -> RequestId {
    RequestId { client: ClientId::new(u64::MAX), sequence: 129 }
}

fn leader() -> Option<String> {
    Some("127.0.0.1:5000".to_owned())
}

pub(crate) fn roles() -> Vec<Role> {
    vec![
        Role::Client { name: "kvctl@höst".to_owned() },
        Role::Forwarder { node: NODE },
        Role::Peer { node: NODE },
    ]
}

pub(crate) fn hello(role: Role) -> Hello {
    Hello { credentials: Bytes::from_static(b"secret"), ..Hello::new(Some(CLUSTER), role) }
}

pub(crate) fn hello_replies() -> Vec<HelloReply> {
    let welcome = Welcome {
        version: 1,
        cluster: Some(CLUSTER),
        node: NODE,
        committed: Version::new(1_000_000),
        // Not the defaults: those may change without a change of the format.
        limits: Limits { key: 64 << 10, value: 8 << 20, frame: 10 << 20, in_flight: 1024 },
    };
    let refused = HelloReply::Refused { code: ErrorCode::WrongCluster, message: "not ours".to_owned() };
    vec![
        HelloReply::Welcome(Welcome { cluster: None, ..welcome.clone() }),
        HelloReply::Welcome(welcome),
        refused,
    ]
}

pub(crate) fn error_codes() -> Vec<ErrorCode> {
    use ErrorCode::*;
    vec![
        Malformed,
        UnsupportedVersion,
        WrongCluster,
        NotPermitted,
        TooLarge,
        Overloaded,
        NotReady,
        NotLeader,
        NoQuorum,
        OutcomeUnknown,
        Superseded,
        RequestExpired,
        Conflict,
        ReadTimedOut,
        Corruption,
        DiskFull,
        ShuttingDown,
        NotMember,
    ]
}

pub(crate) fn writes() -> Vec<Write> {
    vec![
        Write::Put { key: key(), value: value() },
        Write::Delete { key: key() },
        Write::CompareAndSet { key: key(), expected: Version::new(41), value: value() },
    ]
}

pub(crate) fn consistencies() -> Vec<Consistency> {
    vec![Consistency::Quorum, Consistency::Local]
}

pub(crate) fn requests() -> Vec<Request> {
    let mut requests: Vec<Request> = writes()
        .into_iter()
        .map(|write| {
            let since = Version::new(40);
            Request::Write(WriteRequest { request: request_id(), floor: 127, since, write })
        })
        .collect();
    let (prefix, after) = (Bytes::from_static(b"k"), Some(key()));
    requests.extend([
        Request::Get { key: key(), consistency: Consistency::Quorum, evidence: true },
        Request::Get { key: key(), consistency: Consistency::Local, evidence: false },
        Request::Scan { prefix: prefix.clone(), after, limit: 500, consistency: Consistency::Local },
        Request::Scan { prefix, after: None, limit: 0, consistency: Consistency::Quorum },
        Request::Status,
        Request::Stop { at_once: true },
        Request::Members,
        Request::Change { request: change_request(Change::Promote(NODE)), dry_run: true },
        Request::Drain { undo: true },
    ]);
    requests
}

fn evidence(rule: Option<Rule>) -> Evidence {
    let witness = Witness {
        node: NODE,
        round: 2,
        last: entry_id(7, 42),
        promise: epoch(7),
        committed: Version::new(41),
        touched: Some(entry_id(6, 40)),
        decided: true,
    };
    let witnesses = vec![witness.clone(), Witness { touched: None, decided: false, ..witness }];
    Evidence { witnesses, quorum: 2, rounds: 2, conflicts: 1, elapsed_us: 1_500, rule }
}

fn versioned() -> Versioned {
    Versioned { version: Version::new(42), value: value() }
}

pub(crate) fn responses() -> Vec<Response> {
    let failure = Failure {
        code: ErrorCode::Conflict,
        message: "no agreement".to_owned(),
        leader: leader(),
        evidence: Some(evidence(None)),
    };
    let nothing =
        Failure { code: ErrorCode::Overloaded, message: String::new(), leader: None, evidence: None };
    let mut responses: Vec<Response> = outcomes()
        .into_iter()
        .map(|outcome| Response::Written(Written { outcome, version: Version::new(42), leader: leader() }))
        .collect();
    let items = vec![Item { key: key(), value: versioned() }];
    responses.extend([
        Response::Written(Written { outcome: Outcome::Applied, version: Version::new(1), leader: None }),
        Response::Got(Got {
            value: Some(versioned()),
            age_ms: None,
            evidence: Some(evidence(Some(Rule::Chosen))),
        }),
        Response::Got(Got { value: None, age_ms: Some(250), evidence: None }),
        Response::Scanned(Scanned { items, more: true, at: Version::new(43) }),
        Response::Scanned(Scanned { items: Vec::new(), more: false, at: Version::ZERO }),
        Response::Status(Box::new(status())),
        Response::Stopping,
        Response::Failed(failure),
        Response::Failed(nothing),
        Response::Members(Box::new(members())),
        Response::Refused(Refusal::UnknownNode(NODE)),
        Response::Permitted,
        Response::Draining,
    ]);
    responses
}

fn members() -> Members {
    let voter = MemberStatus {
        member: Member { node: NODE, address: "127.0.0.1:5001".to_owned() },
        votes: true,
        replaces: None,
        live: true,
        caught_up: true,
        behind: 0,
        snapshot: None,
    };
    let learner = MemberStatus {
        votes: false,
        replaces: Some(NODE),
        caught_up: false,
        behind: 300,
        snapshot: Some(SnapshotProgress { sent: 1 << 20, total: 1 << 30 }),
        ..voter.clone()
    };
    Members {
        cluster: CLUSTER,
        leader: NODE,
        epoch: epoch(7),
        configuration: entry_id(6, 40),
        committed: true,
        last: Version::new(44),
        members: vec![voter, learner],
    }
}

fn status() -> NodeStatus {
    NodeStatus {
        node: NODE,
        address: "127.0.0.1:5001".to_owned(),
        cluster: Some(CLUSTER),
        role: NodeRole::Follower,
        epoch: epoch(7),
        leader: Some(NODE),
        leader_address: leader(),
        last: Version::new(44),
        committed: Version::new(43),
        applied: Version::new(42),
        lag: 3,
        sync_p99_us: 165,
        zookeeper: "connected".to_owned(),
        ready: true,
        remarks: String::new(),
        software: "0.1.0".to_owned(),
        uptime_s: 60,
        members: configuration().voters,
        takeover: Some(Takeover {
            epoch: Epoch::new(7, NodeId::new(1)),
            elected_us: 1_000,
            promised_us: 2_000,
            caught_up_us: 3_000,
            established_us: 4_000,
        }),
        gave_up: Some(GaveUp { epoch: epoch(6), why: "the log has not synced".to_owned(), ago_s: 61 }),
        damage: Some(DamageFound {
            part: DamagedPart::State,
            what: "a table is not as it was written".to_owned(),
            ago_s: 62,
            repaired_s: Some(60),
        }),
    }
}

pub(crate) fn rules() -> Vec<Rule> {
    vec![Rule::KnownCommitted, Rule::Chosen]
}

pub(crate) fn damaged_parts() -> Vec<DamagedPart> {
    vec![DamagedPart::State, DamagedPart::Log]
}

pub(crate) fn node_roles() -> Vec<NodeRole> {
    use NodeRole::*;
    vec![Forming, Follower, Contender, Leader, Learner, Outsider]
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    vec![Outcome::Applied, Outcome::NotFound, Outcome::Mismatch { actual: Version::new(300) }]
}

pub(crate) fn effects() -> Vec<Effect> {
    vec![Effect::Put { key: key(), value: value() }, Effect::Delete { key: key() }]
}

pub(crate) fn bodies() -> Vec<Body> {
    let write =
        EvaluatedWrite { request: request_id(), floor: 127, effects: effects(), outcome: Outcome::Applied };
    let nothing = EvaluatedWrite { effects: Vec::new(), outcome: Outcome::NotFound, ..write };
    let configuration = Configuration { id: entry_id(7, 45), ..configuration() };
    let asked = Some(Asked { request: request_id(), floor: 127 });
    let change = Reconfiguration { asked, configuration: configuration.clone() };
    let step = Reconfiguration { asked: None, configuration };
    vec![
        Body::Open,
        Body::Write(write),
        Body::Write(nothing),
        Body::Configure(Box::new(change)),
        Body::Configure(Box::new(step)),
    ]
}

fn member(node: u64, address: &str) -> Member {
    Member { node: NodeId::new(node), address: address.to_owned() }
}

pub(crate) fn configuration() -> Configuration {
    Configuration {
        id: EntryId::ZERO,
        voters: vec![member(1, "127.0.0.1:5000"), member(2, "[::1]:5001"), member(3, "kv3:5002")],
        learners: vec![member(300, "kv3:5002")],
        replacements: vec![Replacement { old: NodeId::new(3), new: NodeId::new(300) }],
    }
}

pub(crate) fn changes() -> Vec<Change> {
    vec![
        Change::AddLearner(member(4, "kv4:5003")),
        Change::Promote(NodeId::new(4)),
        Change::Remove(NODE),
        Change::Replace { old: NODE, new: member(5, "kv5:5004") },
    ]
}

pub(crate) fn change_request(change: Change) -> ChangeRequest {
    ChangeRequest { request: request_id(), floor: 127, since: Version::new(40), change, force: true }
}

pub(crate) fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::ChangeInFlight { entry: entry_id(7, 44) },
        Refusal::EpochNotCommitted,
        Refusal::UnknownNode(NODE),
        Refusal::AlreadyMember(NODE),
        Refusal::LastVoter(NODE),
        Refusal::TooFewLive { live: 1, needed: 2 },
        Refusal::NotCaughtUp { node: NODE, behind: 300 },
        Refusal::AddressTaken { by: NODE },
        Refusal::Unsound,
    ]
}

fn entries() -> Vec<Arc<Entry>> {
    let entry = |(version, body)| Arc::new(Entry { id: entry_id(7, version), body });
    (42..).zip(bodies().into_iter().take(3)).map(entry).collect()
}

fn append() -> Append {
    Append { epoch: epoch(7), previous: entry_id(6, 41), entries: entries(), committed: Version::new(40) }
}

pub(crate) fn votes() -> Vec<Vote> {
    vec![
        Vote::Lead { epoch: epoch(8), configuration: EntryId::ZERO },
        Vote::Write(append()),
        Vote::Write(Append { entries: Vec::new(), ..append() }),
    ]
}

pub(crate) fn vote_replies() -> Vec<VoteReply> {
    let mut replies = vec![
        VoteReply::Granted { epoch: epoch(8), last: entry_id(7, 44), committed: Version::new(43) },
        VoteReply::Refused { epoch: epoch(8), promise: epoch(9) },
    ];
    replies.extend(append_replies().into_iter().map(VoteReply::Write));
    replies
}

pub(crate) fn append_replies() -> Vec<AppendReply> {
    vec![
        AppendReply::Accepted { epoch: epoch(7), durable: Version::new(44) },
        AppendReply::Diverged { epoch: epoch(7), at: Version::new(41), hint: entry_id(5, 40) },
    ]
}

fn position() -> SnapshotPosition {
    SnapshotPosition { snapshot: entry_id(6, 30), cursor: Bytes::from_static(b"cursor") }
}

pub(crate) fn propagates() -> Vec<Propagate> {
    vec![
        Propagate::Committed { epoch: epoch(7), committed: Version::new(44) },
        Propagate::Entries(append()),
        Propagate::Restore { epoch: epoch(7) },
        Propagate::Fetch { epoch: epoch(7), after: entry_id(6, 41), resume: None, whole: true },
        Propagate::Fetch { epoch: epoch(7), after: entry_id(6, 41), resume: Some(position()), whole: false },
        Propagate::Differs { epoch: epoch(7), round: 9, right: DIGEST },
    ]
}

pub(crate) fn propagate_replies() -> Vec<PropagateReply> {
    let chunk = SnapshotChunk { position: position(), next: Some(key()), data: value(), checksum: CHECKSUM };
    let last = SnapshotChunk { next: None, ..chunk.clone() };
    let mut replies: Vec<PropagateReply> =
        append_replies().into_iter().map(PropagateReply::Entries).collect();
    replies.extend([
        PropagateReply::Fetched { epoch: epoch(7), previous: entry_id(6, 41), entries: entries() },
        PropagateReply::Chunk { epoch: epoch(7), chunk },
        PropagateReply::Chunk { epoch: epoch(7), chunk: last },
        PropagateReply::Unavailable { epoch: epoch(7) },
        PropagateReply::Refused { epoch: epoch(7), promise: epoch(9) },
    ]);
    replies
}

pub(crate) fn key_answers() -> Vec<KeyAnswer> {
    let id = entry_id(7, 42);
    vec![
        KeyAnswer::Absent { deleted: None },
        KeyAnswer::Absent { deleted: Some(id) },
        KeyAnswer::Present { id, checksum: CHECKSUM, value: None },
        KeyAnswer::Present { id, checksum: CHECKSUM, value: Some(value()) },
    ]
}

pub(crate) fn whole_log_sample() -> ReadSample {
    ReadSample { configuration: EntryId::ZERO, pass: None, keys: Vec::new() }
}

fn read_sample() -> ReadSample {
    let keys = vec![
        KeyProbe { key: key(), held: None },
        KeyProbe { key: Bytes::new(), held: Some(entry_id(6, 40)) },
    ];
    ReadSample { configuration: entry_id(6, 20), pass: Some(entry_id(7, 42)), keys }
}

pub(crate) fn read_sample_reply() -> ReadSampleReply {
    let standing = Standing { last: entry_id(7, 44), promise: epoch(7), committed: Version::new(43) };
    ReadSampleReply { configuration: entry_id(6, 20), standing, keys: key_answers() }
}

pub(crate) fn peer_messages() -> Vec<PeerMessage> {
    let heartbeat =
        Heartbeat { epoch: epoch(7), committed: Version::new(43), last: Version::new(44), compare: None };
    let compare = Compare { round: 9, version: Version::new(44), begin: key(), bytes: 4 << 20 };
    let compared = Compared { round: 9, digest: DIGEST };
    let reply = HeartbeatReply {
        epoch: epoch(7),
        promise: epoch(7),
        durable: entry_id(7, 44),
        applied: Version::new(43),
        restoring: false,
        disk_full: false,
        damaged: false,
        compared: None,
    };
    let mut messages = vec![
        PeerMessage::ReadSample(read_sample()),
        PeerMessage::ReadSampleReply(read_sample_reply()),
        PeerMessage::Heartbeat(heartbeat.clone()),
        PeerMessage::Heartbeat(Heartbeat { compare: Some(compare), ..heartbeat }),
        PeerMessage::HeartbeatReply(HeartbeatReply { compared: Some(compared), ..reply }),
        PeerMessage::HeartbeatReply(reply),
        PeerMessage::HeartbeatReply(HeartbeatReply { restoring: true, ..reply }),
        PeerMessage::HeartbeatReply(HeartbeatReply { disk_full: true, ..reply }),
        PeerMessage::HeartbeatReply(HeartbeatReply { damaged: true, ..reply }),
        PeerMessage::NotMember { since: entry_id(7, 43), named: entry_id(6, 40) },
        PeerMessage::Doubt { epoch: entry_id(7, 43).epoch },
    ];
    messages.extend(votes().into_iter().map(PeerMessage::Vote));
    messages.extend(vote_replies().into_iter().map(PeerMessage::VoteReply));
    messages.extend(propagates().into_iter().map(PeerMessage::Propagate));
    messages.extend(propagate_replies().into_iter().map(PeerMessage::PropagateReply));
    messages
}
