//! All ZooKeepers are gone for longer than every session: that costs nothing but the next election.

use std::time::Duration;

use anyhow::{Result, ensure};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{check_serving, wait_identical};
use crate::load::Load;

/// Several times the sessions' timeout, which the harness sets to two seconds. This is a fault's length and no
/// patience: a slow machine makes nothing of it untrue.
const OUTAGE: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_zookeeper_stops_nothing_and_costs_the_incumbent_nothing() -> Result<()> {
    let zookeeper = ZooKeeper::start(3)?;
    // Who is merely slow, on a machine with much else to do, is not to be replaced here.
    let cluster = Cluster::builder().nodes(3).arg("--failover-timeout=10s").start(&zookeeper).await?;
    let leader = cluster.leader().await?;
    let epoch = cluster.status(leader).await?.epoch;
    let load = Load::start(&cluster, "load", 2, 20);
    load.progress(50).await?;

    zookeeper.stop_all()?;
    let during = load.acknowledged();
    tokio::time::sleep(OUTAGE).await;
    ensure!(load.acknowledged() > during, "nothing was acknowledged during the outage");
    load.progress(50).await?;
    check_serving(&cluster, &[0, 1, 2]).await?;
    ensure!(cluster.leader().await? == leader);

    zookeeper.start_all()?;
    for i in 0..3 {
        let back = async || -> Result<()> {
            let status = cluster.status(i).await?;
            ensure!(
                status.zookeeper == "connected" && status.ready,
                "{} {}",
                status.zookeeper,
                status.remarks
            );
            Ok(())
        };
        wait_until(PATIENCE, &format!("node {i} has a session again"), back).await?;
    }
    load.progress(100).await?;
    ensure!(cluster.leader().await? == leader, "the incumbent lost its place");
    ensure!(cluster.status(leader).await?.epoch == epoch, "the incumbent was elected anew");

    cluster.kill(leader)?;
    ensure!(cluster.leader().await? != leader);
    load.progress(100).await?;
    check_serving(&cluster, &cluster.running()).await?;
    cluster.start_node(leader)?;
    cluster.wait_ready().await?;
    let record = load.stop().await?;
    record.verify(&wait_identical(&cluster).await?)?;
    cluster.end().await?;
    Ok(())
}
