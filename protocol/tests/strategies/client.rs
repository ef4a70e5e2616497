//! Strategies for what clients ask and nodes answer.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use quorumkv_protocol::client::{
    Consistency, DamageFound, DamagedPart, Evidence, Failure, GaveUp, Got, Item, MemberStatus, Members,
    NodeRole, NodeStatus, Request, RequestEnvelope, Response, ResponseEnvelope, Rule, Scanned,
    SnapshotProgress, Takeover, Versioned, Witness, Write, WriteRequest, Written,
};

use super::{
    bytes, change_request, cluster, entry_id, epoch, error_code, member, node, number, outcome, refusal,
    request_id, text, version,
};

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        (bytes(), bytes()).prop_map(|(key, value)| Write::Put { key, value }),
        bytes().prop_map(|key| Write::Delete { key }),
        (bytes(), version(), bytes()).prop_map(|(key, expected, value)| Write::CompareAndSet {
            key,
            expected,
            value
        }),
    ]
}

fn consistency() -> impl Strategy<Value = Consistency> {
    select(vec![Consistency::Quorum, Consistency::Local])
}

fn request() -> impl Strategy<Value = Request> {
    let write = (request_id(), number(), version(), write());
    prop_oneof![
        write.prop_map(|(request, floor, since, write)| {
            Request::Write(WriteRequest { request, floor, since, write })
        }),
        (bytes(), consistency(), any::<bool>()).prop_map(|(key, consistency, evidence)| Request::Get {
            key,
            consistency,
            evidence
        }),
        (bytes(), option::of(bytes()), any::<u32>(), consistency()).prop_map(
            |(prefix, after, limit, consistency)| Request::Scan { prefix, after, limit, consistency }
        ),
        Just(Request::Status),
        any::<bool>().prop_map(|at_once| Request::Stop { at_once }),
        Just(Request::Members),
        (change_request(), any::<bool>()).prop_map(|(request, dry_run)| Request::Change { request, dry_run }),
        any::<bool>().prop_map(|undo| Request::Drain { undo }),
    ]
}

/// Any request.
pub(crate) fn request_envelope() -> impl Strategy<Value = RequestEnvelope> {
    (number(), any::<u32>(), request()).prop_map(|(correlation, timeout_ms, body)| RequestEnvelope {
        correlation,
        timeout_ms,
        body,
    })
}

fn witness() -> impl Strategy<Value = Witness> {
    (node(), any::<u32>(), entry_id(), epoch(), version(), option::of(entry_id()), any::<bool>()).prop_map(
        |(node, round, last, promise, committed, touched, decided)| Witness {
            node,
            round,
            last,
            promise,
            committed,
            touched,
            decided,
        },
    )
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let rule = option::of(select(vec![Rule::KnownCommitted, Rule::Chosen]));
    (vec(witness(), 0..5), any::<[u32; 3]>(), number(), rule).prop_map(
        |(witnesses, [quorum, rounds, conflicts], elapsed_us, rule)| Evidence {
            witnesses,
            quorum,
            rounds,
            conflicts,
            elapsed_us,
            rule,
        },
    )
}

fn versioned() -> impl Strategy<Value = Versioned> {
    (version(), bytes()).prop_map(|(version, value)| Versioned { version, value })
}

fn item() -> impl Strategy<Value = Item> {
    (bytes(), versioned()).prop_map(|(key, value)| Item { key, value })
}

fn status() -> impl Strategy<Value = NodeStatus> {
    let roles = vec![
        NodeRole::Forming,
        NodeRole::Follower,
        NodeRole::Contender,
        NodeRole::Leader,
        NodeRole::Learner,
        NodeRole::Outsider,
    ];
    let place = (node(), option::of(cluster()), select(roles), epoch());
    let leader = (option::of(node()), option::of(text()), vec(member(), 0..9));
    let texts = (text(), text(), text(), text());
    let versions = (version(), version(), version());
    let numbers = (
        number(),
        number(),
        any::<bool>(),
        number(),
        option::of(takeover()),
        option::of(gave_up()),
        option::of(damage()),
    );
    (place, leader, texts, versions, numbers).prop_map(|(place, leader, texts, versions, numbers)| {
        let (node, cluster, role, epoch) = place;
        let (leader, leader_address, members) = leader;
        let (address, zookeeper, remarks, software) = texts;
        let (last, committed, applied) = versions;
        let (lag, sync_p99_us, ready, uptime_s, takeover, gave_up, damage) = numbers;
        NodeStatus {
            node,
            address,
            cluster,
            role,
            epoch,
            leader,
            leader_address,
            last,
            committed,
            applied,
            lag,
            sync_p99_us,
            zookeeper,
            ready,
            remarks,
            software,
            uptime_s,
            members,
            takeover,
            gave_up,
            damage,
        }
    })
}

fn damage() -> impl Strategy<Value = DamageFound> {
    let part = prop_oneof![Just(DamagedPart::State), Just(DamagedPart::Log)];
    (part, text(), number(), option::of(number())).prop_map(|(part, what, ago_s, repaired_s)| DamageFound {
        part,
        what,
        ago_s,
        repaired_s,
    })
}

fn gave_up() -> impl Strategy<Value = GaveUp> {
    (epoch(), text(), number()).prop_map(|(epoch, why, ago_s)| GaveUp { epoch, why, ago_s })
}

fn takeover() -> impl Strategy<Value = Takeover> {
    (epoch(), number(), number(), number(), number()).prop_map(
        |(epoch, elected_us, promised_us, caught_up_us, established_us)| Takeover {
            epoch,
            elected_us,
            promised_us,
            caught_up_us,
            established_us,
        },
    )
}

fn response() -> impl Strategy<Value = Response> {
    let written = (outcome(), version(), option::of(text()));
    let got = (option::of(versioned()), option::of(number()), option::of(evidence()));
    let scanned = (vec(item(), 0..5), any::<bool>(), version());
    let failed = (error_code(), text(), option::of(text()), option::of(evidence()));
    prop_oneof![
        written.prop_map(|(outcome, version, leader)| {
            Response::Written(Written { outcome, version, leader })
        }),
        got.prop_map(|(value, age_ms, evidence)| Response::Got(Got { value, age_ms, evidence })),
        scanned.prop_map(|(items, more, at)| Response::Scanned(Scanned { items, more, at })),
        status().prop_map(|status| Response::Status(Box::new(status))),
        Just(Response::Stopping),
        failed.prop_map(|(code, message, leader, evidence)| {
            Response::Failed(Failure { code, message, leader, evidence })
        }),
        members().prop_map(|members| Response::Members(Box::new(members))),
        refusal().prop_map(Response::Refused),
        Just(Response::Permitted),
        Just(Response::Draining),
    ]
}

fn members() -> impl Strategy<Value = Members> {
    let place = (cluster(), node(), epoch(), entry_id(), any::<bool>(), version());
    (place, vec(member_status(), 0..9)).prop_map(|(place, members)| {
        let (cluster, leader, epoch, configuration, committed, last) = place;
        Members { cluster, leader, epoch, configuration, committed, last, members }
    })
}

fn member_status() -> impl Strategy<Value = MemberStatus> {
    let snapshot = option::of((number(), number()));
    (member(), option::of(node()), any::<[bool; 3]>(), number(), snapshot).prop_map(
        |(member, replaces, [votes, live, caught_up], behind, snapshot)| {
            let snapshot = snapshot.map(|(sent, total)| SnapshotProgress { sent, total });
            MemberStatus { member, votes, replaces, live, caught_up, behind, snapshot }
        },
    )
}

/// Any answer.
pub(crate) fn response_envelope() -> impl Strategy<Value = ResponseEnvelope> {
    (number(), response()).prop_map(|(correlation, body)| ResponseEnvelope { correlation, body })
}
