//! Somebody who claims to be a member, and says what no member would.
//!
//! Nothing proves yet who a member is, so whoever reaches the port can speak for one. What contradicts itself is
//! ignored, and the members that are meant go on hearing each other.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use quorumkv_client::NodeStatus;
use quorumkv_protocol::entry::{Body, Effect, Entry, EvaluatedWrite, Outcome};
use quorumkv_protocol::hello::Role;
use quorumkv_protocol::peer::{
    Append, Heartbeat, KeyProbe, PeerEnvelope, PeerMessage, Propagate, PropagateReply, ReadSample,
    SnapshotPosition, Vote,
};
use quorumkv_protocol::{ClientId, EntryId, Epoch, NodeId, RequestId, Version};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::bystander::Bystander;
use crate::raw::Raw;

/// Under this number goes the question that comes after every absurdity; its answer proves that the node lives.
const ALIVE: u64 = 1 << 40;

/// The highest number that a request may bear.
const HIGHEST: u64 = (1 << 48) - 1;

const LAST: Version = Version::new(u64::MAX);

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_member_that_contradicts_itself_is_ignored() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().start(&zookeeper).await?;
    let mut bystander = Bystander::start(&cluster.endpoints())?;
    let leader = cluster.leader().await?;
    let before = cluster.status(leader).await?;
    let followers: Vec<usize> = (0..cluster.size()).filter(|&i| i != leader).collect();
    let mut kept = Vec::new();

    for &follower in &followers {
        let (mut raw, _) = Raw::introduced(cluster.endpoint(follower), Role::Peer { node: before.node })?;
        for (name, message) in absurd_from_leader(&before, cluster.status(follower).await?.node) {
            raw.send(&PeerEnvelope { correlation: 1, body: message })?;
            lives(&mut raw, &before)
                .with_context(|| format!("from the leader to node {follower}: {name}"))?;
        }
        bystander.is_served()?;
        kept.push(raw);
    }
    let claimed = cluster.status(followers[0]).await?.node;
    let (mut raw, _) = Raw::introduced(cluster.endpoint(leader), Role::Peer { node: claimed })?;
    for (name, message) in absurd_from_follower(&before, claimed) {
        raw.send(&PeerEnvelope { correlation: 1, body: message })?;
        lives(&mut raw, &before).with_context(|| format!("from a follower to the leader: {name}"))?;
    }
    kept.push(raw);
    bystander.is_served()?;

    // Each member is needed now in turn, while those who speak for the others still hold their connections.
    for &follower in &followers {
        cluster.pause(follower)?;
        bystander.is_served().context("with one follower paused")?;
        cluster.resume(follower)?;
        in_step(&cluster, leader, follower).await?;
    }
    drop(kept);
    for &follower in &followers {
        cluster.pause(follower)?;
        bystander.is_served().context("after the claimed members have gone")?;
        cluster.resume(follower)?;
        in_step(&cluster, leader, follower).await?;
    }
    let after = cluster.status(leader).await?;
    ensure!(after.epoch == before.epoch, "the leader was deposed: {} became {}", before.epoch, after.epoch);
    bystander.finish()?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_of_a_claimed_member_are_answered_each_by_itself() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().start(&zookeeper).await?;
    let bystander = Bystander::start(&cluster.endpoints())?;
    let leader = cluster.leader().await?;
    let before = cluster.status(leader).await?;
    let follower = (leader + 1) % cluster.size();
    let (mut raw, _) = Raw::introduced(cluster.endpoint(follower), Role::Peer { node: before.node })?;
    // The same number again and again, keys that cannot be, and an entry that will never come.
    for _ in 0..3 {
        raw.send(&PeerEnvelope {
            correlation: 5,
            body: sample(None, vec![Bytes::new(), vec![b'k'; 70_000].into()]),
        })?;
    }
    raw.send(&PeerEnvelope {
        correlation: HIGHEST,
        body: sample(Some(EntryId::new(before.epoch, LAST)), vec![]),
    })?;
    let mut answered = Vec::new();
    while answered.len() < 4 {
        let answer: PeerEnvelope = raw.receive()?.context("the connection was closed")?;
        ensure!(matches!(answer.body, PeerMessage::ReadSampleReply(_)), "answered {answer:?}");
        answered.push(answer.correlation);
    }
    ensure!(answered == [5, 5, 5, HIGHEST], "answered {answered:?}");
    raw.send(&PeerEnvelope { correlation: HIGHEST + 1, body: sample(None, vec![]) })?;
    raw.expect_closed()?;
    bystander.finish()?;
    Ok(cluster.end().await?)
}

/// Waits until the follower has caught up with the leader.
async fn in_step(cluster: &Cluster, leader: usize, follower: usize) -> Result<()> {
    let reached = cluster.status(leader).await?.committed;
    let caught_up = async || {
        let status = cluster.status(follower).await?;
        ensure!(
            status.ready && status.applied >= reached,
            "at {} of {reached}: {}",
            status.applied,
            status.remarks
        );
        Ok(())
    };
    Ok(wait_until(PATIENCE, &format!("node {follower} has caught up"), caught_up).await?)
}

/// The node still answers on this connection, and what it answered before is no reply to the absurdity, unless that
/// was a question.
fn lives(raw: &mut Raw, leader: &NodeStatus) -> Result<()> {
    raw.send(&PeerEnvelope {
        correlation: ALIVE,
        body: sample(None, vec![Bytes::from_static(b"bystander")]),
    })?;
    loop {
        let answer: PeerEnvelope = raw.receive()?.context("the connection was closed")?;
        match answer.body {
            PeerMessage::ReadSampleReply(reply) => {
                ensure!(answer.correlation == ALIVE, "answered under {}", answer.correlation);
                ensure!(reply.standing.promise == leader.epoch, "it follows {} now", reply.standing.promise);
                return Ok(());
            }
            PeerMessage::PropagateReply(
                PropagateReply::Unavailable { .. } | PropagateReply::Fetched { .. },
            )
            | PeerMessage::PropagateReply(PropagateReply::Chunk { .. } | PropagateReply::Refused { .. })
            | PeerMessage::VoteReply(quorumkv_protocol::peer::VoteReply::Write(
                quorumkv_protocol::peer::AppendReply::Diverged { .. },
            ))
            | PeerMessage::HeartbeatReply(_) => {}
            other => anyhow::bail!("the absurdity was answered with {other:?}"),
        }
    }
}

/// What nobody who leads would tell a follower.
fn absurd_from_leader(leader: &NodeStatus, follower: NodeId) -> Vec<(&'static str, PeerMessage)> {
    let (epoch, me) = (leader.epoch, leader.node);
    let huge = Epoch::new(u64::MAX, me);
    let later = Epoch::new(epoch.counter() + 1, follower);
    let next = leader.last.get() + 1_000_000;
    let at = |version: u64| EntryId::new(epoch, Version::new(version));
    let committed = EntryId::new(epoch, leader.committed);
    let heartbeat =
        |epoch| PeerMessage::Heartbeat(Heartbeat { epoch, committed: LAST, last: LAST, compare: None });
    vec![
        ("a heartbeat of an epoch without end", heartbeat(huge)),
        ("a heartbeat of somebody else's epoch", heartbeat(later)),
        ("a vote for an epoch without end", lead(huge)),
        ("a vote for somebody else's epoch", lead(later)),
        (
            "a commit of an epoch without end",
            PeerMessage::Propagate(Propagate::Committed { epoch: huge, committed: LAST }),
        ),
        ("entries of an epoch without end", append(huge, committed, vec![])),
        ("entries with a gap", append(epoch, at(next), vec![entry(at(next + 2), b"k")])),
        (
            "entries in the wrong order",
            append(epoch, at(next), vec![entry(at(next + 2), b"k"), entry(at(next + 1), b"k")]),
        ),
        (
            "an entry twice",
            append(epoch, at(next), vec![entry(at(next + 1), b"k"), entry(at(next + 1), b"k")]),
        ),
        (
            "an entry of a later epoch",
            append(epoch, at(next), vec![entry(EntryId::new(huge, Version::new(next + 1)), b"k")]),
        ),
        (
            "an entry of an earlier epoch",
            append(epoch, at(next), vec![entry(EntryId::new(Epoch::ZERO, Version::new(next + 1)), b"k")]),
        ),
        (
            "an entry without a key",
            append(epoch, committed, vec![entry(at(leader.committed.get() + 1), b"")]),
        ),
        (
            "a key that is too long",
            append(epoch, committed, vec![entry(at(leader.committed.get() + 1), &[b'k'; 65_536])]),
        ),
        ("the last version", append(epoch, at(u64::MAX - 1), vec![entry(at(u64::MAX), b"k")])),
        ("after the last version", append(epoch, at(u64::MAX), vec![entry(at(0), b"k")])),
        ("nothing after the last version", append(epoch, at(u64::MAX), vec![])),
        ("a fetch from the last version", fetch(epoch, at(u64::MAX), None)),
        ("a fetch of an epoch without end", fetch(huge, committed, None)),
        ("a snapshot from nowhere", fetch(epoch, EntryId::ZERO, Some(nowhere()))),
    ]
}

/// What nobody who follows would tell its leader.
fn absurd_from_follower(leader: &NodeStatus, me: NodeId) -> Vec<(&'static str, PeerMessage)> {
    let huge = Epoch::new(u64::MAX, me);
    let heartbeat =
        |epoch| PeerMessage::Heartbeat(Heartbeat { epoch, committed: LAST, last: LAST, compare: None });
    vec![
        ("a heartbeat of the leader's own epoch", heartbeat(leader.epoch)),
        ("a heartbeat of an epoch without end", heartbeat(huge)),
        ("a vote for an epoch without end", lead(huge)),
        ("a vote for the leader's own epoch", lead(leader.epoch)),
        ("entries in the leader's own epoch", append(leader.epoch, EntryId::ZERO, vec![])),
        ("an order to restore", PeerMessage::Propagate(Propagate::Restore { epoch: leader.epoch })),
        ("a fetch from the last version", fetch(leader.epoch, EntryId::new(leader.epoch, LAST), None)),
        ("a snapshot from nowhere", fetch(leader.epoch, EntryId::ZERO, Some(nowhere()))),
    ]
}

fn lead(epoch: Epoch) -> PeerMessage {
    PeerMessage::Vote(Vote::Lead { epoch, configuration: EntryId::ZERO })
}

fn append(epoch: Epoch, previous: EntryId, entries: Vec<Entry>) -> PeerMessage {
    let entries = entries.into_iter().map(Arc::new).collect();
    PeerMessage::Vote(Vote::Write(Append { epoch, previous, entries, committed: Version::ZERO }))
}

fn entry(id: EntryId, key: &[u8]) -> Entry {
    let effect = Effect::Put { key: Bytes::copy_from_slice(key), value: Bytes::from_static(b"absurd") };
    let request = RequestId { client: ClientId::new(1), sequence: 1 };
    let write = EvaluatedWrite { request, floor: 0, effects: vec![effect], outcome: Outcome::Applied };
    Entry { id, body: Body::Write(write) }
}

fn fetch(epoch: Epoch, after: EntryId, resume: Option<SnapshotPosition>) -> PeerMessage {
    PeerMessage::Propagate(Propagate::Fetch { epoch, after, resume, whole: false })
}

fn nowhere() -> SnapshotPosition {
    SnapshotPosition { snapshot: EntryId::ZERO, cursor: Bytes::from_static(b"no place") }
}

fn sample(pass: Option<EntryId>, keys: Vec<Bytes>) -> PeerMessage {
    let keys = keys.into_iter().map(|key| KeyProbe { key, held: None }).collect();
    PeerMessage::ReadSample(ReadSample { configuration: EntryId::ZERO, pass, keys })
}
