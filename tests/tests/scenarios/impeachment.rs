//! A leader that is gone or silent is replaced before ZooKeeper's session with it ends; one that only one node does not hear
//! keeps its place.

use std::time::Duration;

use anyhow::{Result, ensure};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{check_serving, wait_identical};
use crate::load::{Counter, Load};

const IMPEACHMENTS: &str = "kvd_impeachments_total";

/// The longest that the harness's ZooKeepers grant, so that only an impeachment can be sooner.
const SESSION: &str = "--session-timeout=4s";

/// How long a node stays cut off from the leader: several failover timeouts. A fault's length, and no patience.
const CUT: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_gone_or_silent_is_impeached_by_its_successor() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).arg(SESSION).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 2, 20);
    let counter = Counter::start(&cluster, 2);
    load.progress(50).await?;
    for silent in [false, true] {
        let first = cluster.leader().await?;
        let others = [(first + 1) % 3, (first + 2) % 3];
        let before = impeachments(&cluster, &others).await?;
        if silent {
            cluster.pause(first)?;
        } else {
            cluster.kill(first)?;
        }
        cluster.leader_among(&others).await?;
        ensure!(
            impeachments(&cluster, &others).await? > before,
            "nobody impeached node {first} (silent: {silent}): its session ended"
        );
        load.progress(50).await?;
        if silent {
            cluster.resume(first)?;
        } else {
            cluster.start_node(first)?;
        }
        cluster.wait_ready().await?;
    }
    let record = load.stop().await?;
    counter.stop_and_check(&cluster.client()).await?;
    record.verify(&wait_identical(&cluster).await?)?;
    cluster.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_alone_does_not_hear_the_leader_costs_it_nothing() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster =
        Cluster::builder().nodes(3).proxied().arg("--failover-timeout=1500ms").start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 2, 20);
    load.progress(50).await?;
    let leader = cluster.leader().await?;
    let epoch = cluster.status(leader).await?.epoch;
    // Each of them once: one of the two is the next in line.
    for alone in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.cut(leader, alone).await?;
        cluster.cut(alone, leader).await?;
        tokio::time::sleep(CUT).await;
        ensure!(impeachments(&cluster, &[0, 1, 2]).await? == 0.0, "node {alone} impeached the leader alone");
        cluster.heal_all();
        let follows = async || -> Result<()> {
            let status = cluster.status(alone).await?;
            ensure!(status.epoch == epoch && status.ready, "{status:?}");
            Ok(())
        };
        wait_until(PATIENCE, "the node follows the leader again", follows).await?;
    }
    load.progress(50).await?;
    ensure!(cluster.leader().await? == leader && cluster.status(leader).await?.epoch == epoch);
    check_serving(&cluster, &[0, 1, 2]).await?;
    let record = load.stop().await?;
    record.verify(&wait_identical(&cluster).await?)?;
    cluster.end().await?;
    Ok(())
}

async fn impeachments(cluster: &Cluster, nodes: &[usize]) -> Result<f64> {
    let mut sum = 0.0;
    for &node in nodes {
        sum += cluster.metric(node, IMPEACHMENTS).await?;
    }
    Ok(sum)
}
