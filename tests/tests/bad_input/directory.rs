//! Data directories that are not this node's, or nobody's.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorumkv_client::NodeRole;
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::{ReservedPort, ZooKeeper};

use crate::process::{expect_failure, run_kvd};

/// Nothing listens there: a node that gets as far as looking for ZooKeeper would never end.
const NO_ZOOKEEPER: &str = "--zookeeper=127.0.0.1:1/none";

/// Starts `kvd` with this data directory, on ports that are free; it has to fail and say why in these words.
fn refused(data_dir: &Path, words: &[&str]) -> Result<()> {
    let (port, admin_port) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
    let output = run_kvd(&[
        format!("--data-dir={}", data_dir.display()),
        format!("--port={}", port.port()),
        format!("--admin-port={}", admin_port.port()),
        NO_ZOOKEEPER.to_owned(),
    ])?;
    expect_failure(&output, 1, words)
}

#[test]
fn a_directory_that_is_no_data_directory_is_left_alone() -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name);

    fs::create_dir(path("foreign"))?;
    fs::write(path("foreign").join("thesis.tex"), "years of work")?;
    refused(&path("foreign"), &["foreign", "not empty", "--data-dir"])?;
    ensure!(names(&path("foreign"))? == ["thesis.tex"], "something was added");

    fs::write(path("file"), "not a directory")?;
    refused(&path("file"), &["cannot create", "file"])?;
    ensure!(fs::read(path("file"))? == b"not a directory", "the file was changed");
    refused(&path("file").join("below"), &["cannot create"])?;

    fs::create_dir_all(path("nameless").join("log"))?;
    refused(&path("nameless"), &["node.json", "missing"])?;

    let broken = [
        "",
        "{",
        "[]",
        "{\"format\":1}",
        "{\"format\":2,\"node\":\"1\",\"cluster\":null}",
        "\u{0}\u{0}\u{0}",
    ];
    for (i, content) in broken.iter().enumerate() {
        let directory = path(&format!("broken-{i}"));
        fs::create_dir(&directory)?;
        fs::write(directory.join("node.json"), content)?;
        refused(&directory, &["node.json", "who this node is"]).with_context(|| format!("{content:?}"))?;
        ensure!(fs::read_to_string(directory.join("node.json"))? == *content, "node.json was changed");
    }

    fs::create_dir(path("directory"))?;
    fs::create_dir(path("directory").join("node.json"))?;
    refused(&path("directory"), &["cannot read", "node.json"])
}

fn names(directory: &Path) -> Result<Vec<String>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused_and_its_user_goes_on() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(1).start(&zookeeper).await?;
    cluster.client().put("key", "before").await?;
    refused(cluster.data_dir(0), &["in use by another kvd"])?;
    cluster.client().put("key", "after").await?;
    let got = cluster.client().get("key").await?.value.context("the key is gone")?;
    ensure!(got.value == "after");
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_is_refused_and_disturbs_neither() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let theirs = Cluster::builder().root("/theirs").start(&zookeeper).await?;
    let ours = Cluster::builder().nodes(1).root("/ours").start(&zookeeper).await?;
    theirs.client().put("whose", "theirs").await?;
    ours.client().put("whose", "ours").await?;
    ours.terminate(0).await?;

    let leader = theirs.leader().await?;
    let before = theirs.status(leader).await?;
    let output = run_kvd(&[
        format!("--data-dir={}", ours.data_dir(0).display()),
        format!("--port={}", ours.endpoint(0).rsplit(':').next().context("a port")?),
        "--admin-port=0".to_owned(),
        format!("--zookeeper={}/theirs", zookeeper.connect_string()),
    ])?;
    expect_failure(&output, 1, &["belongs to cluster", "--data-dir", "--zookeeper"])?;

    let after = theirs.status(leader).await?;
    ensure!(after.epoch == before.epoch, "their leader was deposed: {} became {}", before.epoch, after.epoch);
    theirs.client().put("whose", "theirs still").await?;
    ours.start_node(0)?;
    ours.wait_ready().await?;
    let got = ours.client().get("whose").await?.value.context("our key is gone")?;
    ensure!(got.value == "ours");
    ours.end().await?;
    Ok(theirs.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_waits_outside_and_a_member_that_moved_is_refused() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(1).spares(1).start(&zookeeper).await?;
    cluster.start_node(1)?;
    let waits = async || {
        let status = cluster.status(1).await?;
        ensure!(status.role == NodeRole::Outsider && !status.ready, "it is {:?}", status.role);
        ensure!(status.remarks.contains("kvctl member add"), "{}", status.remarks);
        Ok(())
    };
    wait_until(PATIENCE, "the stranger waits to be added", waits).await?;
    let outside = cluster.client_of(&[1]).with_timeout(Duration::from_secs(1));
    ensure!(outside.put("key", "value").await.is_err() && outside.get("key").await.is_err());
    ensure!(cluster.client_of(&[0]).members().await?.members.len() == 1);
    // A node that says that it is elsewhere now cannot be found by the others.
    cluster.terminate(0).await?;
    let port = ReservedPort::reserve()?;
    let moved = [
        format!("--data-dir={}", cluster.data_dir(0).display()),
        format!("--port={}", port.port()),
        "--admin-port=0".to_owned(),
        format!("--zookeeper={}/cluster", zookeeper.connect_string()),
    ];
    expect_failure(&run_kvd(&moved)?, 1, &["--advertise", cluster.endpoint(0)])?;
    cluster.start_node(0)?;
    cluster.wait_node_ready(0).await?;
    Ok(cluster.end().await?)
}
