//! A leader gives up its place when another would serve better, and says why.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::wait_identical;
use crate::load::Load;

/// Delays every sync of a process while it lives.
struct SlowDisk(Child);

impl SlowDisk {
    fn of(pid: u32) -> Result<Self> {
        let strace = Command::new("strace")
            .args(["-f", "-q", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=60000000"])
            .args(["-o", "/dev/null", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("strace must be installed")?;
        Ok(Self(strace))
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // It may have ended by itself; then the test has failed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_log_stalls_gives_up_and_the_status_says_why() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 2, 20);
    load.progress(50).await?;
    let first = cluster.leader().await?;
    let others = [(first + 1) % 3, (first + 2) % 3];
    let stalled = SlowDisk::of(cluster.pid(first)?)?;
    cluster.leader_among(&others).await?;
    load.progress(50).await?;
    let gave_up = cluster.status(first).await?.gave_up.context("it does not say that it gave up")?;
    ensure!(gave_up.why.contains("the log has not synced"), "it says {:?}", gave_up.why);
    ensure!(gave_up.epoch.node() == cluster.status(first).await?.node, "it led epoch {}", gave_up.epoch);
    let output = cluster.kvctl(&["status", "-o", "table"]).await?;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(table.contains("gave up the lead of epoch"), "{table}");
    drop(stalled);
    cluster.wait_ready().await?;
    let record = load.stop().await?;
    record.verify(&wait_identical(&cluster).await?)?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_nearly_full_gives_up_to_one_with_room() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let full = 0;
    let cluster = Cluster::builder().arg_of(full, "--min-free-mib=1000000000").start(&zookeeper).await?;
    let client = cluster.client();
    // The others go to the end of the line, until the full one's turn has come.
    let gave_up = wait_until(PATIENCE, "the node without room leads and gives up", async || {
        if let Some(gave_up) = cluster.status(full).await?.gave_up {
            return Ok(gave_up);
        }
        let leader = cluster.leader().await?;
        if leader != full {
            let endpoint = cluster.endpoint(leader);
            for arguments in [&["drain", endpoint][..], &["drain", endpoint, "--undo"]] {
                let output = cluster.kvctl(arguments).await?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        anyhow::bail!("node {leader} led")
    })
    .await?;
    ensure!(gave_up.why.contains("disk"), "it says {:?}", gave_up.why);
    let leader = wait_until(PATIENCE, "a node with room leads", async || {
        let leader = cluster.leader().await?;
        ensure!(leader != full, "the full one leads");
        Ok(leader)
    })
    .await?;
    ensure!(cluster.status(leader).await?.gave_up.is_none(), "node {leader} has room");
    client.delete("whatever").await?;
    Ok(cluster.end().await?)
}
