//! With a minority stopped writes go on; with a majority stopped nothing is promised, and nothing is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorumkv_client::ReadError;
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{check_serving, wait_identical};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_may_stop_and_two_may_not() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).arg("--read-timeout=2s").start(&zookeeper).await?;
    let load = Load::start(&cluster, "before", 2, 20);
    load.progress(50).await?;

    let leader = cluster.leader().await?;
    let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(first)?;
    load.progress(50).await?;
    check_serving(&cluster, &[leader, second]).await?;
    let record = load.stop().await?;

    cluster.kill(second)?;
    nothing_is_promised_by(&cluster, leader, "left with the leader").await?;
    cluster.start_node(first)?;
    cluster.start_node(second)?;
    cluster.wait_ready().await?;
    record.verify(&wait_identical(&cluster).await?)?;

    // Once more with a follower left over, who has nobody to forward to.
    let leader = cluster.leader().await?;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(leader)?;
    cluster.kill(other)?;
    nothing_is_promised_by(&cluster, follower, "left with a follower").await?;
    cluster.start_node(leader)?;
    cluster.start_node(other)?;
    cluster.wait_ready().await?;
    record.verify(&wait_identical(&cluster).await?)?;
    check_serving(&cluster, &[0, 1, 2]).await?;
    cluster.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_five_may_stop_the_leader_among_them() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(5).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 2, 20);
    load.progress(50).await?;
    let leader = cluster.leader().await?;
    cluster.kill((leader + 1) % 5)?;
    load.progress(50).await?;
    cluster.kill(leader)?;
    load.progress(50).await?;
    check_serving(&cluster, &cluster.running()).await?;
    cluster.start_node(leader)?;
    cluster.start_node((leader + 1) % 5)?;
    cluster.wait_ready().await?;
    let record = load.stop().await?;
    record.verify(&wait_identical(&cluster).await?)?;
    cluster.end().await?;
    Ok(())
}

/// A write through node `i` ends as unknown or as not applied, and a quorum read ends with an error.
async fn nothing_is_promised_by(cluster: &Cluster, i: usize, key: &'static str) -> Result<()> {
    let client = cluster.client_of(&[i]).with_timeout(Duration::from_secs(6));
    // Every error of a write says which of the two it is; only success would be a lie.
    let error = client.put(key, "lost?").await.err().context("a write without a quorum was acknowledged")?;
    let read = client.get(key).await.err().context("a read without a quorum was answered")?;
    let says_why =
        matches!(read, ReadError::TimedOut { .. } | ReadError::Refused(_) | ReadError::Conflict(_));
    ensure!(says_why, "after {error}: {read}");
    Ok(())
}
