//! Requests that are too large, too many, or never collected.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use quorumkv_client::Client;
use quorumkv_protocol::client::{Consistency, Request, RequestEnvelope, Response, ResponseEnvelope, Write};
use quorumkv_protocol::entry::MAX_KEY_LENGTH;
use quorumkv_protocol::frame::{CLIENT_FRAME_LIMIT, PEER_FRAME_LIMIT};
use quorumkv_protocol::hello::{Limits, Role};
use quorumkv_protocol::{ErrorCode, Version};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::bystander::Bystander;
use crate::process::resident_mib;
use crate::raw::{Raw, put, write};

const MAX_VALUE: usize = Limits::DEFAULT.value as usize;

/// Keys with the longest value, so that answers do not share memory.
const BIG_KEYS: u64 = 16;

/// Memory that a node may take beyond what it took before, whatever strangers do, in MiB.
const UNREASONABLE_MIB: u64 = 600;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_just_too_large_is_refused_and_what_is_just_not_is_kept() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().start(&zookeeper).await?;
    let mut bystander = Bystander::start(&cluster.endpoints())?;
    for node in 0..cluster.size() {
        let mut raw = Raw::client(cluster.endpoint(node))?;
        for (correlation, request) in (1..).zip(too_large()) {
            match raw.ask(correlation, request)? {
                Response::Failed(failure) if failure.code == ErrorCode::TooLarge => {
                    ensure!(failure.message.contains("bytes"), "no clear message: {}", failure.message);
                }
                other => bail!("node {node} answered {correlation} with {other:?}"),
            }
        }
        keys_that_cannot_be(&mut raw).with_context(|| format!("node {node}"))?;
        bystander.is_served()?;
    }
    let key = Bytes::from(vec![b'k'; MAX_KEY_LENGTH]);
    let value: Bytes = (0..MAX_VALUE).map(|i| i.to_le_bytes()[i % 3]).collect();
    for node in 0..cluster.size() {
        let mut raw = Raw::client(cluster.endpoint(node))?;
        let written = raw.ask(1, put(key.clone(), value.clone()))?;
        ensure!(matches!(written, Response::Written(_)), "node {node} answered {written:?}");
        let next = (node + 1) % cluster.size();
        let got = cluster.client_of(&[next]).get(key.clone()).await?.value.context("it is not there")?;
        ensure!(got.value == value, "the longest value came back changed");
    }
    bystander.finish()?;
    Ok(cluster.end().await?)
}

/// Writes that are over a limit by one byte, or without a key.
fn too_large() -> Vec<Request> {
    let long = Bytes::from(vec![b'k'; MAX_KEY_LENGTH + 1]);
    let big = Bytes::from(vec![b'v'; MAX_VALUE + 1]);
    let expected = Version::ZERO;
    vec![
        put(long.clone(), "v"),
        put("", "v"),
        put("too-large", big.clone()),
        write(Write::Delete { key: long.clone() }),
        write(Write::Delete { key: Bytes::new() }),
        write(Write::CompareAndSet { key: long, expected, value: Bytes::new() }),
        write(Write::CompareAndSet { key: Bytes::from_static(b"too-large"), expected, value: big }),
    ]
}

/// Questions about keys that nothing can be stored under are answered: nothing is there.
fn keys_that_cannot_be(raw: &mut Raw) -> Result<()> {
    let long = Bytes::from(vec![b'k'; MAX_KEY_LENGTH + 1]);
    for consistency in [Consistency::Local, Consistency::Quorum] {
        for key in [Bytes::new(), long.clone(), Bytes::from_static(b"too-large")] {
            let answer = raw.ask(1, Request::Get { key, consistency, evidence: false })?;
            ensure!(matches!(&answer, Response::Got(got) if got.value.is_none()), "answered {answer:?}");
        }
        for (prefix, after) in
            [(long.clone(), None), (Bytes::new(), Some(long.clone())), (long.clone(), Some(long.clone()))]
        {
            let answer = raw.ask(1, Request::Scan { prefix, after, limit: u32::MAX, consistency })?;
            ensure!(matches!(&answer, Response::Scanned(page) if !page.more), "answered {answer:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_ask_too_much_take_no_memory_from_others() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().start(&zookeeper).await?;
    let mut bystander = Bystander::start(&cluster.endpoints())?;
    for i in 0..BIG_KEYS {
        let first = u8::try_from(i)?;
        cluster.client().put(format!("big-{i}"), vec![first; MAX_VALUE]).await?;
    }
    let before = memory(&cluster)?;

    let announced = announced_only(&cluster, &mut bystander).await.context("announced and never sent")?;
    let crowd = crowd(&cluster).context("five hundred connections")?;
    bystander.is_served()?;
    drop(crowd);
    for node in 0..cluster.size() {
        two_thousand_in_flight(cluster.endpoint(node))
            .with_context(|| format!("2,000 in flight at node {node}"))?;
    }
    bystander.is_served()?;
    let mut uncollected = Vec::new();
    for consistency in [Consistency::Local, Consistency::Quorum] {
        for node in 0..cluster.size() {
            let raw = ask_and_never_collect(cluster.endpoint(node), consistency)?;
            if consistency == Consistency::Local {
                something_large_is_read(&cluster, node).await?;
            }
            uncollected.push(raw);
            bystander.is_served()?;
            is_reasonable(&cluster, &before)
                .with_context(|| format!("{consistency:?} reads never collected at {node}"))?;
        }
    }
    for mut raw in announced {
        raw.expect_closed().context("a frame that was announced, begun, and never finished")?;
    }
    drop(uncollected);
    bystander.finish()?;
    Ok(cluster.end().await?)
}

/// One full disk stops what makes the data larger, wherever it is asked and whoever leads; nothing else stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_anywhere_refuses_puts_and_nothing_else() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().arg_of(2, "--min-free-mib=1000000000").start(&zookeeper).await?;
    let is_refused = async |client: &Client, key: &'static str| match client.put(key, "data").await {
        Err(error) if error.code() == Some(ErrorCode::DiskFull) => Ok(()),
        other => bail!("answered {other:?}"),
    };
    // The disk is looked at every second: until then, puts are taken.
    let client = cluster.client();
    wait_until(PATIENCE, "the full disk is noticed", async || is_refused(&client, "first").await).await?;
    for node in 0..cluster.size() {
        let client = cluster.client_of(&[node]);
        is_refused(&client, "more").await.with_context(|| format!("node {node}"))?;
        client.delete("whatever").await?;
        ensure!(client.get("more").await?.value.is_none(), "a write that was refused is there");
    }
    let remarks = cluster.status(2).await?.remarks;
    ensure!(remarks.contains("disk"), "the node itself says {remarks:?}");
    cluster.kill(2)?;
    // A node that is gone needs no room.
    wait_until(PATIENCE, "puts go on without it", async || client.put("more", "data").await).await?;
    Ok(cluster.end().await?)
}

fn memory(cluster: &Cluster) -> Result<Vec<u64>> {
    (0..cluster.size()).map(|node| resident_mib(cluster, node)).collect()
}

fn is_reasonable(cluster: &Cluster, before: &[u64]) -> Result<()> {
    for (node, (before, now)) in before.iter().zip(memory(cluster)?).enumerate() {
        ensure!(now < before + UNREASONABLE_MIB, "node {node} took {before} MiB, and takes {now} MiB now");
    }
    Ok(())
}

/// The largest frames are announced on many connections, and hardly begun. Returns the connections.
async fn announced_only(cluster: &Cluster, bystander: &mut Bystander) -> Result<Vec<Raw>> {
    const CONNECTIONS: usize = 200;
    let before = memory(cluster)?;
    let other = cluster.status(1).await?.node;
    let mut waiting = Vec::new();
    for i in 0..CONNECTIONS {
        let (role, limit) = match i % 2 {
            0 => (Role::Client { name: "x".to_owned() }, CLIENT_FRAME_LIMIT),
            _ => (Role::Peer { node: other }, PEER_FRAME_LIMIT),
        };
        let (mut raw, _) = Raw::introduced(cluster.endpoint(0), role)?;
        raw.send_bytes(&limit.to_be_bytes())?;
        raw.send_bytes(&[0; 1024])?;
        waiting.push(raw);
    }
    bystander.is_served()?;
    // Nor do they keep out those who have something large to send.
    cluster.client_of(&[0]).put("large", vec![b'v'; 1 << 20]).await?;
    let (before, now) = (before[0], resident_mib(cluster, 0)?);
    // All that was announced would be over 2 GiB.
    ensure!(
        now < before + 128,
        "took {before} MiB before, and {now} MiB with frames that were only announced"
    );
    Ok(waiting)
}

/// Many connections at once, each of which is served.
fn crowd(cluster: &Cluster) -> Result<Vec<Raw>> {
    let connect = |i: usize| Raw::client(cluster.endpoint(i % cluster.size()));
    let mut crowd = (0..500).map(connect).collect::<Result<Vec<_>>>()?;
    for (i, raw) in crowd.iter_mut().enumerate() {
        let key = format!("crowd-{i}");
        let answer = raw.ask(1, put(key, "here"))?;
        ensure!(matches!(answer, Response::Written(_)), "connection {i} was answered {answer:?}");
    }
    Ok(crowd)
}

/// More requests than a node takes from one connection: it takes the rest as it answers the first.
fn two_thousand_in_flight(address: &str) -> Result<()> {
    const REQUESTS: u64 = 2_000;
    let mut raw = Raw::client(address)?;
    for correlation in 1..=REQUESTS {
        let body = put(format!("flight-{correlation}"), "v");
        raw.send(&RequestEnvelope { correlation, timeout_ms: 30_000, body })?;
    }
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..REQUESTS {
        let answer: ResponseEnvelope = raw.receive()?.context("the connection was closed")?;
        ensure!(matches!(answer.body, Response::Written(_)), "{answer:?}");
        ensure!(answered.insert(answer.correlation), "{} was answered twice", answer.correlation);
    }
    ensure!(answered.into_iter().eq(1..=REQUESTS), "some were not answered");
    Ok(())
}

/// One who does not collect answers leaves memory for those of others. All at once: nobody is told to try again.
async fn something_large_is_read(cluster: &Cluster, node: usize) -> Result<()> {
    let mut raw = Raw::client(cluster.endpoint(node))?;
    for i in 0..BIG_KEYS {
        let key = format!("big-{i}").into();
        let answer = raw.ask(i, Request::Get { key, consistency: Consistency::Local, evidence: false })?;
        ensure!(matches!(answer, Response::Got(_)), "node {node} answered another's question so: {answer:?}");
    }
    Ok(())
}

/// As many questions as a connection may have in flight, whose answers come to 8 GiB; none is read.
fn ask_and_never_collect(address: &str, consistency: Consistency) -> Result<Raw> {
    let mut raw = Raw::client(address)?;
    for correlation in 1..=u64::from(Limits::DEFAULT.in_flight) {
        let key = format!("big-{}", correlation % BIG_KEYS).into();
        let body = Request::Get { key, consistency, evidence: false };
        raw.send(&RequestEnvelope { correlation, timeout_ms: u32::MAX, body })?;
    }
    Ok(raw)
}
