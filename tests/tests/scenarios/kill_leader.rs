//! The leader is killed: another takes over, every remaining node is served by it, and nothing acknowledged is lost.

use anyhow::{Result, ensure};
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{check_serving, wait_identical};
use crate::load::{Counter, Load};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_succeeded_and_nothing_acknowledged_is_lost_or_applied_twice() -> Result<()> {
    let zookeeper = ZooKeeper::start(3)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 3, 20);
    let counter = Counter::start(&cluster, 3);
    load.progress(100).await?;

    for way in [Way::Sigkill, Way::Kvctl] {
        let leader = cluster.leader().await?;
        let epoch = cluster.status(leader).await?.epoch;
        way.kill(&cluster, leader).await?;
        let next = cluster.leader().await?;
        ensure!(next != leader && cluster.status(next).await?.epoch > epoch);
        load.progress(100).await?;
        check_serving(&cluster, &cluster.running()).await?;
        cluster.start_node(leader)?;
        cluster.wait_ready().await?;
    }

    load.progress(100).await?;
    let record = load.stop().await?;
    counter.stop_and_check(&cluster.client()).await?;
    record.verify(&wait_identical(&cluster).await?)?;
    cluster.end().await?;
    Ok(())
}

#[derive(Clone, Copy)]
enum Way {
    Sigkill,
    Kvctl,
}

impl Way {
    async fn kill(self, cluster: &Cluster, leader: usize) -> Result<()> {
        match self {
            Self::Sigkill => cluster.kill(leader)?,
            Self::Kvctl => {
                let output = cluster.kvctl(&["kill-leader"]).await?;
                let said = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "kvctl kill-leader ended with {}: {said}", output.status);
                let status = cluster.wait_ended(leader).await?;
                ensure!(status.success(), "the leader ended with {status}");
            }
        }
        Ok(())
    }
}
