//! A replica that stands still holds nobody up, and nobody remembers for it more than a little: it is restored later.

use std::fs;

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::wait_identical;
use crate::load::Load;

/// What is written while the replica stands still: far more than a leader may keep in memory for it.
const VALUE_BYTES: usize = 16 << 10;
const WRITES: u64 = 10_000;

/// Bytes that a leader's memory may grow by meanwhile. It also holds what is on its way to its own disk.
const GROWTH: u64 = 80 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_replica_costs_the_leader_little_memory_and_is_restored() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let builder = Cluster::builder().nodes(3).arg("--log-segment-kib=16384").arg("--log-retain-kib=1");
    let cluster = builder.start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 8, VALUE_BYTES);
    load.progress(2_000).await?;
    let leader = cluster.leader().await?;
    let stalled = (leader + 1) % 3;
    let before = resident(cluster.pid(leader)?)?;
    cluster.pause(stalled)?;
    load.progress(WRITES).await?;
    let after = resident(cluster.pid(leader)?)?;
    ensure!(cluster.leader_among(&[leader, (leader + 2) % 3]).await? == leader, "another leads");
    let written = WRITES * VALUE_BYTES as u64;
    ensure!(
        after.saturating_sub(before) < GROWTH,
        "the leader's memory grew from {before} to {after} bytes while {written} were written"
    );
    cluster.resume(stalled)?;
    cluster.wait_ready().await?;
    let record = load.stop().await?;
    record.verify(&wait_identical(&cluster).await?)?;
    let snapshots = cluster.metric(stalled, "kvd_snapshots_received_total").await?;
    ensure!(snapshots > 0.0, "the log held everything: the test is too small");
    Ok(cluster.end().await?)
}

/// Bytes of memory that a process occupies.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has memory")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
