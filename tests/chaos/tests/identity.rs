//! What a node is not to give up who it is for: if all did at once, nothing would be left of the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use quorumkv_chaos::cluster::Cluster;
use quorumkv_chaos::disk::FailedSync;
use quorumkv_chaos::run::serves;
use quorumkv_chaos::testbed::{Node, Testbed};
use quorumkv_tests::cluster::{PATIENCE, wait_until};
use quorumkv_tests::zookeeper::Slot;

/// So many syncs are to fail at each node: of the running process, and of several starts.
const FAILED: u64 = 8;

async fn ids(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let members = cluster.ask_members().await?;
    Ok(members.members.iter().map(|known| known.member.node.to_string()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_syncs_all_fail_stay_who_they_are() -> Result<()> {
    let _slot = tokio::task::spawn_blocking(Slot::acquire).await??;
    let testbed = tokio::task::spawn_blocking(|| Testbed::new(3, 3)).await??;
    let cluster = Cluster::new(testbed, 3)?;
    let keeper = tokio::spawn(Arc::clone(&cluster).keep_running());
    serves(&cluster, 2 * PATIENCE).await?;
    let before = ids(&cluster).await?;
    let client = cluster.client("writer", PATIENCE)?;
    for how in [FailedSync::Keeps, FailedSync::Drops] {
        let value = format!("{how:?}");
        client.put("key", value.clone()).await?;
        let disks = || cluster.testbed().nodes().iter().map(Node::disk);
        let failed: Vec<u64> = disks().map(|disk| disk.syncs().0).collect();
        disks().for_each(|disk| disk.fail_syncs(how));
        wait_until(PATIENCE, "syncs fail at every node", async || {
            // Who has nothing to sync does not notice.
            let _ = client.with_timeout(Duration::from_millis(50)).put("other", "value").await;
            let least = disks().zip(&failed).map(|(disk, before)| disk.syncs().0 - before).min();
            if least >= Some(FAILED) { Ok(()) } else { Err(format!("{least:?}")) }
        })
        .await?;
        disks().for_each(quorumkv_chaos::disk::Disk::heal);
        serves(&cluster, 2 * PATIENCE).await?;
        ensure!(ids(&cluster).await? == before, "{how:?}: a node is another now");
        let found = client.get("key").await?.value.map(|found| found.value);
        ensure!(found.as_deref() == Some(value.as_bytes()), "{how:?}: {found:?}");
    }
    keeper.abort();
    client.close().await;
    Ok(tokio::task::spawn_blocking(move || drop(cluster)).await?)
}
