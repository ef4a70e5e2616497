//! The killed leader comes back while keys have changed: what it reads alone may be old, what a quorum reads never is.

use anyhow::{Result, ensure};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{LOCAL, check, wait_identical};

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_leader_reads_old_values_alone_and_never_with_a_quorum() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).proxied().start(&zookeeper).await?;
    let client = cluster.client();
    let old = client.put("changed", "old").await?.version;
    client.put("deleted", "old").await?;
    wait_identical(&cluster).await?;

    let returned = cluster.leader().await?;
    // Nobody will reach it when it is back, so that it cannot learn what has happened except by asking.
    for i in (0..3).filter(|&i| i != returned) {
        cluster.cut(i, returned).await?;
    }
    cluster.kill(returned)?;
    cluster.leader().await?;
    let new = client.put("changed", "new").await?.version;
    client.delete("deleted").await?;
    let created = client.put("created", "new").await?.version;

    cluster.start_node(returned)?;
    let alone = cluster.client_of(&[returned]);
    for _ in 0..20 {
        let local = alone.get_with("changed", LOCAL).await?.value;
        ensure!(local.as_ref().is_none_or(|value| value.version <= old), "it cannot know this: {local:?}");
        check(&alone, "changed", "new", new).await?;
        ensure!(alone.get("deleted").await?.value.is_none(), "a deleted key came back");
        check(&alone, "created", "new", created).await?;
    }

    cluster.heal_all();
    let caught_up = async || -> Result<()> {
        let local = alone.get_with("changed", LOCAL).await?.value;
        ensure!(local.as_ref().is_some_and(|value| value.version == new), "its own value is {local:?}");
        Ok(())
    };
    wait_until(PATIENCE, "the returned node reads the new value alone", caught_up).await?;
    cluster.wait_ready().await?;
    wait_identical(&cluster).await?;
    cluster.end().await?;
    Ok(())
}
