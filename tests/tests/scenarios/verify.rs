//! `kvctl verify` as a user runs it: on a cluster that is well, and on one whose nodes are not started by `kvd dev`.

use anyhow::{Result, ensure};
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_cluster_holds_and_is_left_without_a_trace() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let client = cluster.client();
    client.put("kvctl-verify/mine", "stays").await?;
    for consistency in ["quorum", "local"] {
        let ran =
            cluster.kvctl(&["verify", "--seconds", "3", "--consistency", consistency, "-o", "json"]).await?;
        let (told, stdout) = (String::from_utf8_lossy(&ran.stderr), String::from_utf8_lossy(&ran.stdout));
        ensure!(ran.status.code() == Some(0), "{consistency}: {told}\n{stdout}");
        let json: Value = serde_json::from_str(&stdout)?;
        ensure!(json["verdict"] == "holds" && json["cleaned_up"] == true, "{json}");
        ensure!(json["stale"].is_object() == (consistency == "local"), "{json}");
    }
    let left = client.scan("", Default::default()).await?;
    let keys: Vec<_> = left.items.iter().map(|item| item.key.clone()).collect();
    ensure!(keys == ["kvctl-verify/mine"], "{keys:?}");
    let ran = cluster.kvctl(&["verify", "--chaos"]).await?;
    let told = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.code() == Some(8) && told.contains("kvd dev"), "{told}");
    cluster.end().await?;
    Ok(())
}
