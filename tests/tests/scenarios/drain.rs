//! Nodes are drained, stopped and started again one after the other, and no client sees a request fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Result, ensure};
use quorumkv_client::NodeRole;
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;
use tokio::task::JoinSet;

use crate::contents::wait_identical;
use crate::load::Load;

/// Readers that go on until they are told to stop. A read that fails fails the test.
struct Readers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: JoinSet<Result<()>>,
}

impl Readers {
    fn start(cluster: &Cluster, readers: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..readers {
            let (client, stop, answered) = (cluster.client(), Arc::clone(&stop), Arc::clone(&answered));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.get("load/0/000000").await?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Self { stop, answered, tasks }
    }

    async fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request_whether_drained_first_or_only_stopped() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 8, 32);
    let readers = Readers::start(&cluster, 4);
    load.progress(200).await?;
    for drained in [true, false] {
        // The leader goes last, and then its successor, …: every restart but one hands over.
        let leader = cluster.leader().await?;
        for i in (0..3).map(|i| (leader + i) % 3) {
            if drained {
                drain(&cluster, i, &[]).await?;
                let status = cluster.status(i).await?;
                ensure!(status.role != NodeRole::Leader && !status.ready, "{status:?}");
                ensure!(status.remarks.contains("drained"), "{}", status.remarks);
            }
            load.progress(50).await?;
            let ended = cluster.terminate(i).await?;
            ensure!(ended.success(), "node {i} ended with {ended}");
            load.progress(50).await?;
            cluster.start_node(i)?;
            cluster.wait_ready().await?;
        }
    }
    let record = load.stop().await?;
    ensure!(readers.stop().await? > 0, "nothing was read");
    record.verify_without_failures(&wait_identical(&cluster).await?)?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_votes_and_serves_again_when_it_is_told_to() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let drained = cluster.leader().await?;
    drain(&cluster, drained, &[]).await?;
    let leader = cluster.leader().await?;
    ensure!(leader != drained, "it leads although it is drained");
    let other = 3 - leader - drained;
    // Its vote is needed now.
    cluster.kill(other)?;
    cluster.client_of(&[leader]).put("key", "value").await?;
    let refused = cluster.client_of(&[drained]).with_timeout(std::time::Duration::from_secs(1));
    ensure!(refused.put("key", "other").await.is_err(), "a drained node took a write");
    drain(&cluster, drained, &["--undo"]).await?;
    cluster.client_of(&[drained]).put("key", "another").await?;
    cluster.kill(leader)?;
    cluster.start_node(other)?;
    wait_until(PATIENCE, "one of the two leads", async || cluster.leader_among(&[other, drained]).await)
        .await?;
    Ok(cluster.end().await?)
}

async fn drain(cluster: &Cluster, node: usize, arguments: &[&str]) -> Result<()> {
    let output = cluster.kvctl(&[&["drain", cluster.endpoint(node)], arguments].concat()).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "kvctl drain ended with {}: {said}", output.status);
    Ok(())
}
