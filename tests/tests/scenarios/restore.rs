//! A replica that was away during thousands of writes comes back and becomes identical, while writes go on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::wait_identical;
use crate::load::Load;

/// Writes altogether, and those of them before the replica is killed.
const WRITES: u64 = 10_000;
const BEFORE: u64 = 2_000;

/// Writers at once.
const WRITERS: usize = 32;

/// What a node counts when it has installed a snapshot.
const SNAPSHOTS: &str = "kvd_snapshots_received_total";

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_is_restored_by_entries() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", WRITERS, 32);
    load.reach(BEFORE).await?;
    let replica = (cluster.leader().await? + 1) % 3;
    cluster.kill(replica)?;
    load.reach(WRITES).await?;
    becomes_identical(&cluster, replica, load).await?;
    ensure!(cluster.metric(replica, SNAPSHOTS).await? == 0.0, "the log held everything: why a snapshot?");
    cluster.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_for_longer_than_the_log_reaches_is_restored_by_a_snapshot() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let builder = Cluster::builder().nodes(3).arg("--log-segment-kib=16384").arg("--log-retain-kib=1");
    let cluster = builder.start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", WRITERS, 8 << 10);
    load.reach(BEFORE).await?;
    let leader = cluster.leader().await?;
    let replica = (leader + 1) % 3;
    cluster.kill(replica)?;
    let (_, newest) = segments(cluster.data_dir(leader))?;
    load.reach(WRITES).await?;
    // The replica's place in the log is in a file that is not newer than this one.
    let trimmed = async || -> Result<()> {
        let (oldest, _) = segments(cluster.data_dir(leader))?;
        ensure!(oldest > newest, "the oldest file is {oldest}");
        Ok(())
    };
    wait_until(PATIENCE * 2, &format!("the leader has deleted its log up to file {newest}"), trimmed).await?;
    becomes_identical(&cluster, replica, load).await?;
    ensure!(cluster.metric(replica, SNAPSHOTS).await? > 0.0, "no snapshot was received");
    cluster.end().await?;
    Ok(())
}

/// Starts the replica again and waits until it has caught up with writes that go on, and then holds the same.
async fn becomes_identical(cluster: &Cluster, replica: usize, load: Load) -> Result<()> {
    let leader = cluster.leader().await?;
    let target = cluster.status(leader).await?.committed;
    let before = load.acknowledged();
    cluster.start_node(replica)?;
    let caught_up = async || -> Result<()> {
        let status = cluster.status(replica).await?;
        ensure!(status.applied >= target, "it has applied {} of {target}", status.applied);
        Ok(())
    };
    wait_until(PATIENCE * 2, "the replica has caught up", caught_up).await?;
    ensure!(load.acknowledged() > before, "nothing was acknowledged while the replica was restored");
    cluster.wait_ready().await?;
    let record = load.stop().await?;
    record.verify(&wait_identical(cluster).await?)
}

/// The sequence numbers of the oldest and the newest file of a node's log.
fn segments(data_dir: &Path) -> Result<(u64, u64)> {
    let mut sequences = Vec::new();
    for entry in fs::read_dir(data_dir.join("log"))? {
        let name = entry?.file_name();
        if let Some(sequence) = name.to_str().and_then(|name| name.strip_suffix(".wal")) {
            sequences.push(u64::from_str_radix(sequence, 16)?);
        }
    }
    sequences.sort_unstable();
    sequences.first().copied().zip(sequences.last().copied()).context("a log has a file")
}
