//! A cluster with a directory of its own, whose nodes come back.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::running::{Dev, Ports, paste, processes_in, run, send, until_none_in};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_back_and_so_does_everything_whatever_ended_it() -> Result<()> {
    let (ports, place) = (Ports::reserve()?, tempfile::tempdir()?);
    let directory = place.path().join("cluster");
    let data_dir = format!("--data-dir={}", directory.display());
    let [base_port, keeper_port] = ports.flags();

    let mut dev = Dev::start(&[base_port, keeper_port.clone(), data_dir.clone(), "--restart".to_owned()])?;
    dev.until_begun().await?;
    let [put, get, kill] = dev.pasteable()?;
    paste(&put)?;
    paste(&kill)?;
    dev.until("it is started again in").await?;
    dev.until("leads (epoch 2)").await?;
    dev.until("serves again").await?;
    let nodes = processes_in(&directory)?;
    ensure!(nodes.len() == 3, "three nodes run again: {nodes:?}");
    for node in nodes {
        send(node, Signal::KILL)?;
    }
    dev.until("was killed (SIGKILL)").await?;
    dev.until("0 of 3 nodes run").await?;
    dev.until_nth(3, "leads (epoch").await?;
    ensure!(paste(&get)?.stdout.starts_with(b"hello"));
    dev.signal(Signal::TERM)?;
    ensure!(dev.end().await?.code() == Some(0), "SIGTERM ends it well");
    ensure!(processes_in(&directory)?.is_empty());
    drop(dev);

    // The directory knows how many nodes there are, and where.
    let mut dev = Dev::start(&[keeper_port.clone(), data_dir.clone()])?;
    dev.until_begun().await?;
    ensure!(dev.directory()? == directory.canonicalize()?);
    ensure!(paste(&get)?.stdout.starts_with(b"hello"));
    let second = run(std::slice::from_ref(&data_dir))?;
    ensure!(second.status.code() == Some(1));
    ensure!(String::from_utf8(second.stderr)?.contains("another kvd dev runs in"));
    // Nothing can be done by one that is killed; its nodes notice.
    dev.signal(Signal::KILL)?;
    dev.end().await?;
    until_none_in(&directory).await?;
    drop(dev);

    let dev = Dev::start(&[keeper_port, data_dir.clone()])?;
    dev.until_begun().await?;
    ensure!(paste(&get)?.stdout.starts_with(b"hello"));
    dev.interrupt().await?;
    ensure!(directory.join("node-0").exists(), "the directory is kept");

    let other = run(&[data_dir, "--nodes=5".to_owned()])?;
    let reason = String::from_utf8(other.stderr)?;
    ensure!(other.status.code() == Some(2) && reason.contains("--nodes 3 --base-port"), "{reason}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_ends_the_rest_and_says_why() -> Result<()> {
    let (ports, place) = (Ports::reserve()?, tempfile::tempdir()?);
    let directory = place.path().join("cluster");
    let [base_port, keeper_port] = ports.flags();
    let flags = [base_port, keeper_port, format!("--data-dir={}", directory.display())];
    let dev = Dev::start(&flags)?;
    dev.until_begun().await?;
    dev.interrupt().await?;

    std::fs::write(directory.join("node-1").join("letter.txt"), "dear")?;
    let failed = run(&flags)?;
    let reason = String::from_utf8(failed.stderr)?;
    let line = reason.lines().next().context("a reason")?;
    ensure!(failed.status.code() == Some(1) && reason.lines().count() == 1, "{reason}");
    for words in ["node 1 did not start", "node-1 is not empty and no data directory", "node-1.log"] {
        ensure!(line.contains(words), "{words:?} is not in {line}");
    }
    ensure!(processes_in(&directory)?.is_empty(), "the others were stopped");
    Ok(())
}
