//! Writes sent to any node end at the leader; every key is readable at every node, with its version.

use anyhow::{Context, Result, ensure};
use quorumkv_client::{Outcome, Version};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{LOCAL, check, wait_identical};

#[tokio::test(flavor = "multi_thread")]
async fn what_any_node_is_given_every_node_returns_with_its_version() -> Result<()> {
    let zookeeper = ZooKeeper::start(3)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let leader = cluster.leader().await?;

    // A fresh client for each write: it knows no leader yet, so the node that it was given has to forward.
    let mut versions = Vec::new();
    for i in 0..cluster.size() {
        let written = cluster.client_of(&[i]).put(format!("key-{i}"), format!("value {i}")).await?;
        ensure!(written.outcome == Outcome::Applied, "node {i} answered {:?}", written.outcome);
        // `None` says that the node which was asked leads itself.
        let ended_at = written.leader.as_deref().unwrap_or(cluster.endpoint(i));
        ensure!(ended_at == cluster.endpoint(leader), "a write sent to node {i} ended at {ended_at}");
        ensure!(versions.last() < Some(&written.version), "versions rise: {versions:?}, {}", written.version);
        versions.push(written.version);
    }

    for i in 0..cluster.size() {
        let client = cluster.client_of(&[i]);
        for (j, &version) in versions.iter().enumerate() {
            check(&client, &format!("key-{j}"), &format!("value {j}"), version).await?;
        }
        ensure!(client.get("no such key").await?.value.is_none());
    }

    let all = wait_identical(&cluster).await?;
    ensure!(all.values().map(|value| value.version).collect::<Vec<_>>() == versions);
    local_reads_say_how_old_they_are(&cluster, versions[0]).await?;
    cluster.end().await?;
    Ok(())
}

async fn local_reads_say_how_old_they_are(cluster: &Cluster, version: Version) -> Result<()> {
    for i in 0..cluster.size() {
        let client = cluster.client_of(&[i]);
        let aged = async || -> Result<()> {
            let got = client.get_with("key-0", LOCAL).await?;
            ensure!(got.value.map(|value| value.version) == Some(version));
            got.age_ms.context("no age")?;
            Ok(())
        };
        wait_until(PATIENCE, &format!("node {i} knows how old its state is"), aged).await?;
    }
    Ok(())
}
