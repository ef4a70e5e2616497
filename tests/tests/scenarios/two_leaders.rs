//! The leader sleeps past its session and wakes up believing that it leads: it is fenced.

use anyhow::{Result, bail, ensure};
use quorumkv_client::{NodeRole, WriteError};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{check, wait_identical};
use crate::load::{Counter, Load};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_up_after_another_was_elected_is_fenced() -> Result<()> {
    let zookeeper = ZooKeeper::start(3)?;
    // Its session is to end, so the majority must not be quicker (see `impeachment` for that).
    let cluster = Cluster::builder().nodes(3).arg("--failover-timeout=1min").start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 2, 20);
    let counter = Counter::start(&cluster, 2);
    load.progress(50).await?;

    for round in 0..2 {
        let first = cluster.leader().await?;
        let others = [(first + 1) % 3, (first + 2) % 3];
        let client = cluster.client_of(&others);
        client.put("key", format!("before {round}")).await?;
        cluster.pause(first)?;
        let second = cluster.leader_among(&others).await?;
        let value = format!("after {round}");
        let version = client.put("key", value.clone()).await?.version;
        load.progress(50).await?;

        // What the first leader answers first, while it may still believe that it leads.
        let awake = cluster.client_of(&[first]);
        let late = tokio::spawn({
            let client = awake.clone();
            async move { client.put("late", format!("{round}")).await }
        });
        cluster.resume(first)?;
        for _ in 0..50 {
            check(&awake, "key", &value, version).await?;
        }
        match late.await? {
            // Then the second leader has it.
            Ok(written) => {
                check(&client, "late", &format!("{round}"), written.version).await?;
                ensure!(written.version > version);
            }
            Err(WriteError::Unknown { .. } | WriteError::NotApplied { .. }) => {}
            Err(error @ WriteError::Unreachable(_)) => bail!(error),
        }

        let follows = async || -> Result<()> {
            let (awake, leads) = (cluster.status(first).await?, cluster.status(second).await?);
            ensure!(awake.role == NodeRole::Follower && awake.epoch == leads.epoch, "{awake:?}");
            Ok(())
        };
        wait_until(PATIENCE, "the first leader follows the second", follows).await?;
        cluster.wait_ready().await?;
    }

    let record = load.stop().await?;
    counter.stop_and_check(&cluster.client()).await?;
    record.verify(&wait_identical(&cluster).await?)?;
    cluster.end().await?;
    Ok(())
}
