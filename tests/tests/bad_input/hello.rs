//! Connections whose first frame is no Hello, or one for somebody else.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorumkv_protocol::frame::HELLO_FRAME_LIMIT;
use quorumkv_protocol::hello::{Hello, MAGIC, Role, VersionRange};
use quorumkv_protocol::{ClusterId, ErrorCode};
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::bystander::Bystander;
use crate::raw::{Raw, frame_of, framed, put};

/// Pause between two bytes of somebody who takes his time.
const DRIP: Duration = Duration::from_millis(100);

/// Who has not said Hello within this time is not waited for.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_hello_is_refused_and_disturbs_nobody() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().start(&zookeeper).await?;
    let mut bystander = Bystander::start(&cluster.endpoints())?;
    for node in 0..cluster.size() {
        let address = cluster.endpoint(node);
        for (name, bytes, code) in refused(&cluster, node).await? {
            let refusal = refuse(address, &bytes, code).with_context(|| format!("node {node}: {name}"))?;
            ensure!(!refusal.is_empty());
        }
        half_said(address).with_context(|| format!("node {node}: a Hello that ends too soon"))?;
        bystander.is_served()?;
    }
    too_slow(&cluster)?;
    bystander.finish()?;
    Ok(cluster.end().await?)
}

/// More connections than may be saying Hello at once come while the node is paused, and say nothing: none of them is turned away, whoever
/// speaks is served, and only they are closed.
#[tokio::test(flavor = "multi_thread")]
async fn silence_keeps_nobody_out() -> Result<()> {
    const SILENT: usize = 1100;
    allow_open_files(2 * SILENT as u64)?;
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().start(&zookeeper).await?;
    let address = cluster.endpoint(0);
    cluster.pause(0)?;
    let mut silent = (0..SILENT).map(|_| Raw::connect(address)).collect::<Result<Vec<_>>>()?;
    cluster.resume(0)?;
    // Before the first of them has to go for its silence alone, or this shows nothing.
    let begun = Instant::now();
    Raw::client(address)?.ask(1, put("speaks", "is served"))?;
    ensure!(begun.elapsed() < HELLO_TIMEOUT, "served only after the first were closed for their silence");
    silent[0].expect_closed().context("the oldest")?;
    cluster.client().get("speaks").await?.value.context("the write is there")?;
    Ok(cluster.end().await?)
}

/// Lets this process, and those that it starts, open so many files.
fn allow_open_files(count: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let current = getrlimit(Resource::Nofile).current;
    ensure!(
        current.is_none_or(|files| files >= count),
        "the system permits {current:?} open files: {count} are needed"
    );
    Ok(())
}

/// First frames that this node refuses with a word, by name.
async fn refused(cluster: &Cluster, node: usize) -> Result<Vec<(&'static str, Vec<u8>, ErrorCode)>> {
    let client = || Role::Client { name: "x".to_owned() };
    let good = Hello::new(None, client());
    let versions =
        |lowest, highest| framed(&Hello { versions: VersionRange { lowest, highest }, ..good.clone() });
    let ours = cluster.status(0).await?.cluster.context("the cluster is formed")?;
    let other = ClusterId::new(!ours.get());
    let me = cluster.status(node).await?.node;
    let body = |after_magic: &[u8]| frame_of(&[&MAGIC, after_magic].concat());
    let mut trailing = framed(&good)[4..].to_vec();
    trailing.push(0);
    Ok(vec![
        ("4 GiB", u32::MAX.to_be_bytes().to_vec(), ErrorCode::Malformed),
        ("just over the limit", (HELLO_FRAME_LIMIT + 1).to_be_bytes().to_vec(), ErrorCode::Malformed),
        ("a browser", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(), ErrorCode::Malformed),
        ("an empty frame", frame_of(&[]), ErrorCode::Malformed),
        ("other magic", framed(&Hello { magic: *b"QKV\x02", ..good.clone() }), ErrorCode::Malformed),
        ("versions to come", versions(2, 9), ErrorCode::UnsupportedVersion),
        ("no version at all", versions(0, 0), ErrorCode::UnsupportedVersion),
        ("versions the wrong way round", versions(9, 1), ErrorCode::UnsupportedVersion),
        ("another cluster", framed(&Hello::new(Some(other), client())), ErrorCode::WrongCluster),
        (
            "a member of another cluster",
            framed(&Hello::new(Some(other), Role::Peer { node: me })),
            ErrorCode::WrongCluster,
        ),
        (
            "a node with this one's identity",
            framed(&Hello::new(Some(ours), Role::Peer { node: me })),
            ErrorCode::NotPermitted,
        ),
        ("trailing bytes", frame_of(&trailing), ErrorCode::Malformed),
        ("an overlong number", body(&[0x81, 0, 1, 0, 0, 1, b'x', 0]), ErrorCode::Malformed),
        ("a number without an end", body(&[0xff; 11]), ErrorCode::Malformed),
        ("an unknown role", body(&[1, 1, 0, 3, 1, b'x', 0]), ErrorCode::Malformed),
        ("neither some nor none", body(&[1, 1, 2, 0, 1, b'x', 0]), ErrorCode::Malformed),
        ("a name that is no text", body(&[1, 1, 0, 0, 2, 0xff, 0xfe, 0]), ErrorCode::Malformed),
        ("a name that is not there", body(&[1, 1, 0, 0, 127, b'x', 0]), ErrorCode::Malformed),
        ("a name of 4 GiB", body(&[1, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, b'x', 0]), ErrorCode::Malformed),
    ])
}

fn refuse(address: &str, bytes: &[u8], code: ErrorCode) -> Result<String> {
    let mut raw = Raw::connect(address)?;
    raw.send_bytes(bytes)?;
    raw.expect_refusal(code)
}

/// Connections that end in the middle of the Hello: nothing is left to say to them.
fn half_said(address: &str) -> Result<()> {
    let hello = framed(&Hello::new(None, Role::Client { name: "x".to_owned() }));
    for length in [0, 2, 4, hello.len() - 1] {
        let mut raw = Raw::connect(address)?;
        raw.send_bytes(&hello[..length])?;
        raw.finish()?;
        raw.expect_closed()?;
    }
    Ok(())
}

/// Who says nothing, half a Hello, or one byte at a time is shut out all the same.
fn too_slow(cluster: &Cluster) -> Result<()> {
    let address = cluster.endpoint(0);
    // It would take minutes to say.
    let hello = framed(&Hello::new(None, Role::Client { name: "x".repeat(2_000) }));
    let mut silent = Raw::connect(address)?;
    let mut half = Raw::connect(address)?;
    half.send_bytes(&hello[..20])?;
    let mut slow = Raw::connect(address)?;
    for byte in &hello[..hello.len() - 1] {
        if slow.is_closed()? || slow.send_bytes(&[*byte]).is_err() {
            break;
        }
        thread::sleep(DRIP);
    }
    ensure!(slow.is_closed()?, "a Hello of {} bytes was heard to its end", hello.len());
    half.expect_closed().context("half a Hello")?;
    silent.expect_closed().context("silence")
}
