//! Connections that were welcome, and then send what is no message of their role.

use anyhow::{Context, Result, bail, ensure};
use quorumkv_protocol::client::{Request, RequestEnvelope, Response, ResponseEnvelope};
use quorumkv_protocol::frame::{CLIENT_FRAME_LIMIT, PEER_FRAME_LIMIT};
use quorumkv_protocol::hello::Role;
use quorumkv_protocol::peer::{Heartbeat, HeartbeatReply, PeerEnvelope, PeerMessage, ReadSample, Vote};
use quorumkv_protocol::{EntryId, Epoch, ErrorCode, NodeId, Version};
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::bystander::Bystander;
use crate::raw::{Raw, frame_of, framed, put};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_ends_its_connection_and_loses_nothing() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().start(&zookeeper).await?;
    let mut bystander = Bystander::start(&cluster.endpoints())?;
    for node in 0..cluster.size() {
        let address = cluster.endpoint(node);
        for (name, bytes) in malformed_requests() {
            let refused = (|| {
                let mut raw = Raw::client(address)?;
                raw.send_bytes(&bytes)?;
                raw.expect_malformed()
            })();
            refused.with_context(|| format!("node {node}: {name}"))?;
        }
        answered_before(address, &format!("answered-{node}"))?;
        bystander.is_served()?;
    }
    for node in 0..cluster.size() {
        let got = cluster.client_of(&[node]).get(format!("answered-{node}")).await?;
        ensure!(got.value.is_some_and(|value| value.value == "kept"), "what was acknowledged is gone");
    }
    as_a_peer(&cluster).await?;
    bystander.finish()?;
    Ok(cluster.end().await?)
}

/// Frames that no client may send, by name.
fn malformed_requests() -> Vec<(&'static str, Vec<u8>)> {
    let status = framed(&RequestEnvelope { correlation: 1, timeout_ms: 1, body: Request::Status });
    vec![
        ("4 GiB", u32::MAX.to_be_bytes().to_vec()),
        ("just over the limit", (CLIENT_FRAME_LIMIT + 1).to_be_bytes().to_vec()),
        ("a browser", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("an empty frame", frame_of(&[])),
        ("a request that ends too soon", frame_of(&status[4..status.len() - 1])),
        ("trailing bytes", frame_of(&[&status[4..], &[0]].concat())),
        ("an overlong number", frame_of(&[0x81, 0, 1, 3])),
        ("a number over 64 bits", frame_of(&[&[0xff; 10][..], &[1, 3]].concat())),
        ("an unknown request", frame_of(&[1, 1, 8])),
        ("an unknown write", frame_of(&[1, 1, 0, 1, 1, 0, 0, 3, 1, b'k'])),
        ("an unknown consistency", frame_of(&[1, 1, 1, 1, b'k', 2, 0])),
        ("neither true nor false", frame_of(&[1, 1, 1, 1, b'k', 0, 2])),
        ("a key that is not there", frame_of(&[1, 1, 1, 127, b'k', 0, 0])),
        ("a key of 4 GiB", frame_of(&[1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, b'k', 0, 0])),
        ("a heartbeat", framed(&heartbeat())),
        ("a vote", framed(&PeerEnvelope { correlation: 1, body: PeerMessage::Vote(lead()) })),
        ("a sample", framed(&sample())),
    ]
}

fn heartbeat() -> PeerEnvelope {
    let heartbeat =
        Heartbeat { epoch: epoch(), committed: Version::new(3), last: Version::new(3), compare: None };
    PeerEnvelope { correlation: 1, body: PeerMessage::Heartbeat(heartbeat) }
}

fn lead() -> Vote {
    Vote::Lead { epoch: epoch(), configuration: EntryId::ZERO }
}

fn sample() -> PeerEnvelope {
    let sample = ReadSample { configuration: EntryId::ZERO, pass: None, keys: Vec::new() };
    PeerEnvelope { correlation: 1, body: PeerMessage::ReadSample(sample) }
}

fn epoch() -> Epoch {
    Epoch::new(7, NodeId::new(0x0123_4567_89ab_cdef))
}

/// What came before the malformed frame is answered, although both came at once.
fn answered_before(address: &str, key: &str) -> Result<()> {
    let request = RequestEnvelope { correlation: 9, timeout_ms: 30_000, body: put(key.to_owned(), "kept") };
    let mut raw = Raw::client(address)?;
    raw.send_bytes(&[framed(&request), frame_of(&[0xff; 64])].concat())?;
    let mut answers = Vec::new();
    while let Some(answer) = raw.receive::<ResponseEnvelope>()? {
        answers.push(answer);
    }
    let written =
        answers.iter().any(|answer| answer.correlation == 9 && matches!(answer.body, Response::Written(_)));
    let complaint = answers.iter().any(|answer| {
        answer.correlation == 0
            && matches!(&answer.body, Response::Failed(failure) if failure.code == ErrorCode::Malformed)
    });
    ensure!(answers.len() == 2 && written && complaint, "{address} answered {answers:?}");
    Ok(())
}

/// Who came as a member may send the requests of a member, and nothing else.
async fn as_a_peer(cluster: &Cluster) -> Result<()> {
    let (here, there) = (cluster.status(0).await?, cluster.status(1).await?);
    let mut raw = Raw::connect(cluster.endpoint(0))?;
    raw.send(&quorumkv_protocol::hello::Hello::new(here.cluster, Role::Peer { node: here.node }))?;
    raw.expect_refusal(ErrorCode::NotPermitted)?;
    // Who is no member may ask whether it is, and is told that it is not.
    let stranger = Role::Peer { node: NodeId::new(!here.node.get()) };
    let (mut raw, _) = Raw::introduced(cluster.endpoint(0), stranger)?;
    raw.send(&sample())?;
    let answer: PeerEnvelope = raw.receive()?.context("the connection was closed")?;
    ensure!(matches!(answer.body, PeerMessage::NotMember { .. }), "it was answered {answer:?}");
    let reply = HeartbeatReply {
        epoch: here.epoch,
        promise: here.epoch,
        durable: EntryId::ZERO,
        applied: Version::ZERO,
        restoring: false,
        disk_full: false,
        damaged: false,
        compared: None,
    };
    let request = RequestEnvelope { correlation: 1, timeout_ms: 1, body: put("as-a-peer", "never") };
    let forbidden = [
        ("a client's request", framed(&request)),
        ("a reply", framed(&PeerEnvelope { correlation: 1, body: PeerMessage::HeartbeatReply(reply) })),
        ("just over the limit", (PEER_FRAME_LIMIT + 1).to_be_bytes().to_vec()),
        ("an unknown message", frame_of(&[1, 8, 0])),
    ];
    for (name, bytes) in forbidden {
        let (mut raw, _) = Raw::introduced(cluster.endpoint(0), Role::Peer { node: there.node })?;
        raw.send_bytes(&bytes)?;
        if let Some(answer) = raw.receive::<PeerEnvelope>()? {
            bail!("{name} was answered: {answer:?}");
        }
    }
    let got = cluster.client().get("as-a-peer").await?;
    ensure!(got.value.is_none(), "a request of a client was taken from a peer");
    Ok(())
}
