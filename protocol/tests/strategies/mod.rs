//! Proptest strategies for every message: any value of the types, numbers small and huge.
//!
//! Another crate's tests can share them: `#[path = "../../protocol/tests/strategies/mod.rs"] mod strategies;`.

#![allow(dead_code, reason = "each test binary uses its own part of the strategies")]

mod client;
mod peer;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorumkv_protocol::entry::{Asked, Body, Effect, Entry, EvaluatedWrite, Outcome, Reconfiguration};
use quorumkv_protocol::hello::{Hello, HelloReply, Limits, Role, VersionRange, Welcome};
use quorumkv_protocol::membership::{Change, ChangeRequest, Configuration, Member, Refusal, Replacement};
use quorumkv_protocol::{ClientId, ClusterId, EntryId, Epoch, ErrorCode, NodeId, RequestId, Version};

pub(crate) use client::{request_envelope, response_envelope};
pub(crate) use peer::peer_envelope;

/// Numbers of every encoded length: uniform ones would nearly all take ten bytes.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(number, shift)| number >> shift)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn node() -> impl Strategy<Value = NodeId> {
    number().prop_map(NodeId::new)
}

fn cluster() -> impl Strategy<Value = ClusterId> {
    number().prop_map(ClusterId::new)
}

fn version() -> impl Strategy<Value = Version> {
    number().prop_map(Version::new)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (number(), node()).prop_map(|(counter, node)| Epoch::new(counter, node))
}

fn entry_id() -> impl Strategy<Value = EntryId> {
    (epoch(), version()).prop_map(|(epoch, version)| EntryId::new(epoch, version))
}

fn request_id() -> impl Strategy<Value = RequestId> {
    (number(), number()).prop_map(|(client, sequence)| RequestId { client: ClientId::new(client), sequence })
}

fn error_code() -> impl Strategy<Value = ErrorCode> {
    use ErrorCode::*;
    proptest::sample::select(vec![
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
    ])
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Applied),
        Just(Outcome::NotFound),
        version().prop_map(|actual| Outcome::Mismatch { actual }),
    ]
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        (bytes(), bytes()).prop_map(|(key, value)| Effect::Put { key, value }),
        bytes().prop_map(|key| Effect::Delete { key }),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let write = (request_id(), number(), vec(effect(), 0..4), outcome());
    let asked = (request_id(), number()).prop_map(|(request, floor)| Asked { request, floor });
    prop_oneof![
        Just(Body::Open),
        write.prop_map(|(request, floor, effects, outcome)| {
            Body::Write(EvaluatedWrite { request, floor, effects, outcome })
        }),
        (option::of(asked), configuration()).prop_map(|(asked, configuration)| {
            Body::Configure(Box::new(Reconfiguration { asked, configuration }))
        }),
    ]
}

/// An entry of the log.
pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (entry_id(), body()).prop_map(|(id, body)| Entry { id, body })
}

fn member() -> impl Strategy<Value = Member> {
    (node(), text()).prop_map(|(node, address)| Member { node, address })
}

/// A configuration of a few members.
pub(crate) fn configuration() -> impl Strategy<Value = Configuration> {
    let replacement = (node(), node()).prop_map(|(old, new)| Replacement { old, new });
    (entry_id(), vec(member(), 0..9), vec(member(), 0..3), vec(replacement, 0..3))
        .prop_map(|(id, voters, learners, replacements)| Configuration { id, voters, learners, replacements })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        member().prop_map(Change::AddLearner),
        node().prop_map(Change::Promote),
        node().prop_map(Change::Remove),
        (node(), member()).prop_map(|(old, new)| Change::Replace { old, new }),
    ]
}

/// A request to change the members.
pub(crate) fn change_request() -> impl Strategy<Value = ChangeRequest> {
    (request_id(), number(), version(), change(), any::<bool>()).prop_map(
        |(request, floor, since, change, force)| ChangeRequest { request, floor, since, change, force },
    )
}

/// Why members are not changed.
pub(crate) fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        entry_id().prop_map(|entry| Refusal::ChangeInFlight { entry }),
        Just(Refusal::EpochNotCommitted),
        node().prop_map(Refusal::UnknownNode),
        node().prop_map(Refusal::AlreadyMember),
        node().prop_map(Refusal::LastVoter),
        any::<(u32, u32)>().prop_map(|(live, needed)| Refusal::TooFewLive { live, needed }),
        (node(), number()).prop_map(|(node, behind)| Refusal::NotCaughtUp { node, behind }),
        node().prop_map(|by| Refusal::AddressTaken { by }),
        Just(Refusal::Unsound),
    ]
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        text().prop_map(|name| Role::Client { name }),
        node().prop_map(|node| Role::Forwarder { node }),
        node().prop_map(|node| Role::Peer { node }),
    ]
}

/// What a side says first.
pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    (any::<[u8; 4]>(), any::<(u16, u16)>(), option::of(cluster()), role(), bytes()).prop_map(
        |(magic, (lowest, highest), cluster, role, credentials)| Hello {
            magic,
            versions: VersionRange { lowest, highest },
            cluster,
            role,
            credentials,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    any::<[u32; 4]>().prop_map(|[key, value, frame, in_flight]| Limits { key, value, frame, in_flight })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    (any::<u16>(), option::of(cluster()), node(), version(), limits()).prop_map(
        |(version, cluster, node, committed, limits)| Welcome { version, cluster, node, committed, limits },
    )
}

/// What is answered to a Hello.
pub(crate) fn hello_reply() -> impl Strategy<Value = HelloReply> {
    prop_oneof![
        welcome().prop_map(HelloReply::Welcome),
        (error_code(), text()).prop_map(|(code, message)| HelloReply::Refused { code, message }),
    ]
}
