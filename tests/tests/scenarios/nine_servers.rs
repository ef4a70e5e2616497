//! Nine servers: an election, writes, reads, and the leader killed twice.

use anyhow::{Result, ensure};
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{check_serving, wait_identical};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn nine_servers_elect_serve_and_survive_two_leaders() -> Result<()> {
    let zookeeper = ZooKeeper::start(3)?;
    let cluster = Cluster::builder().nodes(9).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 2, 20);
    load.progress(50).await?;
    check_serving(&cluster, &cluster.running()).await?;

    let mut killed = Vec::new();
    for _ in 0..2 {
        let leader = cluster.leader().await?;
        cluster.kill(leader)?;
        killed.push(leader);
        ensure!(!killed.contains(&cluster.leader().await?));
        load.progress(50).await?;
        check_serving(&cluster, &cluster.running()).await?;
    }
    for node in killed {
        cluster.start_node(node)?;
    }
    cluster.wait_ready().await?;
    let record = load.stop().await?;
    record.verify(&wait_identical(&cluster).await?)?;
    cluster.end().await?;
    Ok(())
}
