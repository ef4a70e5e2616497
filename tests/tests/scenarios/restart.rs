//! Everything is killed at once, again and again: what was acknowledged is there.

use anyhow::Result;
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::wait_identical;
use crate::load::{Load, Record};

const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_that_every_node_is_killed() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let mut record = Record::default();
    for round in 0..ROUNDS {
        let load = Load::start(&cluster, &format!("round-{round}"), 4, 100);
        load.progress(200).await?;
        // In the midst of writes, and not quite at the same moment.
        for i in 0..3 {
            cluster.kill((round + i) % 3)?;
        }
        for i in 0..3 {
            cluster.start_node(i)?;
        }
        cluster.wait_ready().await?;
        load.progress(50).await?;
        record.merge(load.stop().await?);
        record.verify(&wait_identical(&cluster).await?)?;
    }
    cluster.end().await?;
    Ok(())
}
