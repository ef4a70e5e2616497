//! Golden bytes: the format on the wire and on disk cannot change by accident.
//!
//! `golden/*.txt` hold one line per variant of every enum that crosses the wire, and one per message around them. A
//! new variant does not compile until it is named here, and then fails until it has a sample. An old line must never
//! change within a protocol version; new lines are written by running this test with `UPDATE_EXPECT=1`.

mod samples;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};

use bytes::BytesMut;
use expect_test::expect_file;
use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::{
    Consistency, DamagedPart, NodeRole, Request, RequestEnvelope, Response, ResponseEnvelope, Rule, Write,
};
use quorumkv_protocol::entry::{Body, Effect, Entry, Outcome};
use quorumkv_protocol::frame::{self, FrameDecoder, PEER_FRAME_LIMIT};
use quorumkv_protocol::hello::{Hello, HelloReply, Role};
use quorumkv_protocol::membership::{Change, ChangeRequest, Configuration, Refusal};
use quorumkv_protocol::peer::{
    AppendReply, KeyAnswer, PeerEnvelope, PeerMessage, Propagate, PropagateReply, ReadSample,
    ReadSampleReply, Vote, VoteReply,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type whose every variant must have a golden line.
trait Variants: Sized + 'static {
    /// The names of all variants.
    const NAMES: &'static [&'static str];
    /// The name of this one.
    fn name(&self) -> &'static str;
}

/// Names all variants of enums. The match has no wildcard, so a variant that is missing here does not compile.
macro_rules! variants {
    ($($type:ident { $($variant:ident),+ $(,)? })+) => {$(
        impl Variants for $type {
            const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant)),+
                }
            }
        }
    )+};
}

variants! {
    Role { Client, Forwarder, Peer }
    HelloReply { Welcome, Refused }
    ErrorCode {
        Malformed, UnsupportedVersion, WrongCluster, NotPermitted, TooLarge, Overloaded, NotReady, NotLeader,
        NoQuorum, OutcomeUnknown, Superseded, RequestExpired, Conflict, ReadTimedOut, Corruption, DiskFull,
        ShuttingDown, NotMember,
    }
    Request { Write, Get, Scan, Status, Stop, Members, Change, Drain }
    Write { Put, Delete, CompareAndSet }
    Consistency { Quorum, Local }
    Response { Written, Got, Scanned, Status, Stopping, Failed, Members, Refused, Permitted, Draining }
    Rule { KnownCommitted, Chosen }
    NodeRole { Forming, Follower, Contender, Leader, Learner, Outsider }
    Body { Open, Write, Configure }
    Effect { Put, Delete }
    Outcome { Applied, NotFound, Mismatch }
    Change { AddLearner, Promote, Remove, Replace }
    Refusal {
        ChangeInFlight, EpochNotCommitted, UnknownNode, AlreadyMember, LastVoter, TooFewLive, NotCaughtUp,
        AddressTaken, Unsound,
    }
    PeerMessage {
        Vote, VoteReply, Propagate, PropagateReply, ReadSample, ReadSampleReply, Heartbeat, HeartbeatReply,
        NotMember, Doubt,
    }
    Vote { Lead, Write }
    VoteReply { Granted, Write, Refused }
    AppendReply { Accepted, Diverged }
    Propagate { Committed, Entries, Restore, Fetch, Differs }
    DamagedPart { State, Log }
    PropagateReply { Entries, Fetched, Chunk, Unavailable, Refused }
    KeyAnswer { Absent, Present }
}

/// The text of one golden file.
#[derive(Default)]
struct Golden(String);

impl Golden {
    /// A line for one message; what is decoded from its bytes must be the message again.
    fn line<T>(&mut self, name: &str, message: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        let mut body = BytesMut::new();
        frame::encode_body(message, &mut body);
        assert_eq!(frame::decode::<T>(&body).as_ref(), Ok(message), "{name} does not come back");
        writeln!(self.0, "{name}: {}", hex(&body)).unwrap();
    }

    /// A line for each sample of an enum; every variant must have one.
    fn all<T>(&mut self, type_name: &str, samples: Vec<T>)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug + Variants,
    {
        let covered: BTreeSet<_> = samples.iter().map(Variants::name).collect();
        let expected: BTreeSet<_> = T::NAMES.iter().copied().collect();
        assert_eq!(covered, expected, "each variant of {type_name} needs a sample");
        for sample in samples {
            self.line(&format!("{type_name}.{}", sample.name()), &sample);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn the_handshake_keeps_its_bytes() {
    let mut golden = Golden::default();
    for role in samples::roles() {
        golden.line(&format!("Hello, {}", role.name()), &samples::hello(role));
    }
    golden.line("Hello, no cluster", &Hello::new(None, samples::roles().remove(0)));
    golden.all("Role", samples::roles());
    golden.all("HelloReply", samples::hello_replies());
    golden.all("ErrorCode", samples::error_codes());
    expect_file!["golden/hello.txt"].assert_eq(&golden.0);
}

#[test]
fn client_messages_keep_their_bytes() {
    let mut golden = Golden::default();
    for body in samples::requests() {
        let name = format!("RequestEnvelope, {}", body.name());
        golden.line(&name, &RequestEnvelope { correlation: 300, timeout_ms: 10_000, body });
    }
    for body in samples::responses() {
        let name = format!("ResponseEnvelope, {}", body.name());
        golden.line(&name, &ResponseEnvelope { correlation: 300, body });
    }
    golden.all("Request", samples::requests());
    golden.all("Write", samples::writes());
    golden.all("Consistency", samples::consistencies());
    golden.all("Response", samples::responses());
    golden.all("Rule", samples::rules());
    golden.all("NodeRole", samples::node_roles());
    golden.all("DamagedPart", samples::damaged_parts());
    expect_file!["golden/client.txt"].assert_eq(&golden.0);
}

#[test]
fn entries_keep_their_bytes() {
    let mut golden = Golden::default();
    for body in samples::bodies() {
        golden.line(&format!("Entry, {}", body.name()), &Entry { id: samples::entry_id(7, 42), body });
    }
    golden.all("Body", samples::bodies());
    golden.all("Effect", samples::effects());
    golden.all("Outcome", samples::outcomes());
    golden.line::<Configuration>("Configuration", &samples::configuration());
    expect_file!["golden/entry.txt"].assert_eq(&golden.0);
}

#[test]
fn changes_of_the_members_keep_their_bytes() {
    let mut golden = Golden::default();
    for change in samples::changes() {
        let name = format!("ChangeRequest, {}", change.name());
        golden.line::<ChangeRequest>(&name, &samples::change_request(change));
    }
    golden.all("Change", samples::changes());
    golden.all("Refusal", samples::refusals());
    expect_file!["golden/membership.txt"].assert_eq(&golden.0);
}

#[test]
fn peer_messages_keep_their_bytes() {
    let mut golden = Golden::default();
    for body in samples::peer_messages() {
        golden.line(&format!("PeerEnvelope, {}", body.name()), &PeerEnvelope { correlation: u64::MAX, body });
    }
    golden.all("PeerMessage", samples::peer_messages());
    golden.all("Vote", samples::votes());
    golden.all("VoteReply", samples::vote_replies());
    golden.all("AppendReply", samples::append_replies());
    golden.all("Propagate", samples::propagates());
    golden.all("PropagateReply", samples::propagate_replies());
    golden.all("KeyAnswer", samples::key_answers());
    golden.line::<ReadSample>("ReadSample, whole log", &samples::whole_log_sample());
    golden.line::<ReadSampleReply>("ReadSampleReply", &samples::read_sample_reply());
    expect_file!["golden/peer.txt"].assert_eq(&golden.0);
}

#[test]
fn a_frame_is_a_big_endian_length_and_a_body() {
    let envelope = RequestEnvelope { correlation: 1, timeout_ms: 5, body: Request::Status };
    let mut stream = BytesMut::new();
    frame::encode(&envelope, &mut stream);
    assert_eq!(hex(&stream), "00000003010503");
    let body = FrameDecoder::new(PEER_FRAME_LIMIT).decode(&mut stream).unwrap().unwrap();
    assert_eq!(frame::decode::<RequestEnvelope>(&body), Ok(envelope));
}
