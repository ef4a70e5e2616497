//! Strategies for what nodes say to each other.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorumkv_protocol::peer::{
    Append, AppendReply, Compare, Compared, Digest, Heartbeat, HeartbeatReply, KeyAnswer, KeyProbe,
    PeerEnvelope, PeerMessage, Propagate, PropagateReply, ReadSample, ReadSampleReply, SnapshotChunk,
    SnapshotPosition, Standing, Vote, VoteReply,
};

use super::{bytes, entry, entry_id, epoch, number, version};

fn append() -> impl Strategy<Value = Append> {
    let entries = vec(entry().prop_map(Arc::new), 0..4);
    (epoch(), entry_id(), entries, version()).prop_map(|(epoch, previous, entries, committed)| Append {
        epoch,
        previous,
        entries,
        committed,
    })
}

fn vote() -> impl Strategy<Value = Vote> {
    prop_oneof![
        (epoch(), entry_id()).prop_map(|(epoch, configuration)| Vote::Lead { epoch, configuration }),
        append().prop_map(Vote::Write),
    ]
}

fn append_reply() -> impl Strategy<Value = AppendReply> {
    prop_oneof![
        (epoch(), version()).prop_map(|(epoch, durable)| AppendReply::Accepted { epoch, durable }),
        (epoch(), version(), entry_id()).prop_map(|(epoch, at, hint)| AppendReply::Diverged {
            epoch,
            at,
            hint
        }),
    ]
}

fn vote_reply() -> impl Strategy<Value = VoteReply> {
    prop_oneof![
        (epoch(), entry_id(), version()).prop_map(|(epoch, last, committed)| VoteReply::Granted {
            epoch,
            last,
            committed
        }),
        append_reply().prop_map(VoteReply::Write),
        (epoch(), epoch()).prop_map(|(epoch, promise)| VoteReply::Refused { epoch, promise }),
    ]
}

fn position() -> impl Strategy<Value = SnapshotPosition> {
    (entry_id(), bytes()).prop_map(|(snapshot, cursor)| SnapshotPosition { snapshot, cursor })
}

fn propagate() -> impl Strategy<Value = Propagate> {
    prop_oneof![
        (epoch(), version()).prop_map(|(epoch, committed)| Propagate::Committed { epoch, committed }),
        append().prop_map(Propagate::Entries),
        epoch().prop_map(|epoch| Propagate::Restore { epoch }),
        (epoch(), entry_id(), option::of(position()), any::<bool>())
            .prop_map(|(epoch, after, resume, whole)| Propagate::Fetch { epoch, after, resume, whole }),
        (epoch(), number(), any::<u128>()).prop_map(|(epoch, round, right)| Propagate::Differs {
            epoch,
            round,
            right: Digest(right)
        }),
    ]
}

fn chunk() -> impl Strategy<Value = SnapshotChunk> {
    (position(), option::of(bytes()), bytes(), any::<u32>())
        .prop_map(|(position, next, data, checksum)| SnapshotChunk { position, next, data, checksum })
}

fn propagate_reply() -> impl Strategy<Value = PropagateReply> {
    let entries = vec(entry().prop_map(Arc::new), 0..4);
    prop_oneof![
        append_reply().prop_map(PropagateReply::Entries),
        (epoch(), entry_id(), entries).prop_map(|(epoch, previous, entries)| PropagateReply::Fetched {
            epoch,
            previous,
            entries
        }),
        (epoch(), chunk()).prop_map(|(epoch, chunk)| PropagateReply::Chunk { epoch, chunk }),
        epoch().prop_map(|epoch| PropagateReply::Unavailable { epoch }),
        (epoch(), epoch()).prop_map(|(epoch, promise)| PropagateReply::Refused { epoch, promise }),
    ]
}

fn read_sample() -> impl Strategy<Value = ReadSample> {
    let probe = (bytes(), option::of(entry_id())).prop_map(|(key, held)| KeyProbe { key, held });
    (entry_id(), option::of(entry_id()), vec(probe, 0..5))
        .prop_map(|(configuration, pass, keys)| ReadSample { configuration, pass, keys })
}

fn standing() -> impl Strategy<Value = Standing> {
    (entry_id(), epoch(), version()).prop_map(|(last, promise, committed)| Standing {
        last,
        promise,
        committed,
    })
}

fn key_answer() -> impl Strategy<Value = KeyAnswer> {
    prop_oneof![
        option::of(entry_id()).prop_map(|deleted| KeyAnswer::Absent { deleted }),
        (entry_id(), any::<u32>(), option::of(bytes()))
            .prop_map(|(id, checksum, value)| KeyAnswer::Present { id, checksum, value }),
    ]
}

fn read_sample_reply() -> impl Strategy<Value = ReadSampleReply> {
    (entry_id(), standing(), vec(key_answer(), 0..5))
        .prop_map(|(configuration, standing, keys)| ReadSampleReply { configuration, standing, keys })
}

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    let compare = (number(), version(), bytes(), any::<u32>())
        .prop_map(|(round, version, begin, bytes)| Compare { round, version, begin, bytes });
    (epoch(), version(), version(), option::of(compare))
        .prop_map(|(epoch, committed, last, compare)| Heartbeat { epoch, committed, last, compare })
}

fn heartbeat_reply() -> impl Strategy<Value = HeartbeatReply> {
    let compared =
        (number(), any::<u128>()).prop_map(|(round, digest)| Compared { round, digest: Digest(digest) });
    let compared = option::of(compared);
    (epoch(), epoch(), entry_id(), version(), any::<bool>(), any::<[bool; 2]>(), compared).prop_map(
        |(epoch, promise, durable, applied, restoring, [disk_full, damaged], compared)| HeartbeatReply {
            epoch,
            promise,
            durable,
            applied,
            restoring,
            disk_full,
            damaged,
            compared,
        },
    )
}

/// Any peer message.
pub(crate) fn peer_envelope() -> impl Strategy<Value = PeerEnvelope> {
    let body = prop_oneof![
        vote().prop_map(PeerMessage::Vote),
        vote_reply().prop_map(PeerMessage::VoteReply),
        propagate().prop_map(PeerMessage::Propagate),
        propagate_reply().prop_map(PeerMessage::PropagateReply),
        read_sample().prop_map(PeerMessage::ReadSample),
        read_sample_reply().prop_map(PeerMessage::ReadSampleReply),
        heartbeat().prop_map(PeerMessage::Heartbeat),
        heartbeat_reply().prop_map(PeerMessage::HeartbeatReply),
        epoch().prop_map(|epoch| PeerMessage::Doubt { epoch }),
        (entry_id(), entry_id()).prop_map(|(since, named)| PeerMessage::NotMember { since, named }),
    ];
    (number(), body).prop_map(|(correlation, body)| PeerEnvelope { correlation, body })
}
