//! The embedded keeper fails while the cluster runs.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use zookeeper_client::Client;

use crate::running::{Dev, Ports, command_that_survives_limits, paste};

#[tokio::test(flavor = "multi_thread")]
async fn without_its_keeper_the_cluster_goes_on_until_that_is_back() -> Result<()> {
    let ports = Ports::reserve()?;
    let dev = Dev::spawn(command_that_survives_limits(&ports.flags(), "")?)?;
    dev.until_begun().await?;
    let [put, get, kill] = dev.pasteable()?;

    // From now on no file of its process can be written, and the keeper's log is the one that has to be.
    let unlimited = limit_files(&dev, Some(0))?;
    let keeper = format!("127.0.0.1:{}", ports.keeper());
    let asks = tokio::spawn(async move { Client::connect(&keeper).await.is_ok() });
    dev.until("the keeper has failed: the log cannot be written").await?;
    dev.until("reads and writes go on").await?;
    paste(&put)?;
    ensure!(paste(&get)?.stdout.starts_with(b"hello"));
    // Nothing heals until files can be written again.
    dev.until_nth(2, "the keeper has failed").await?;
    asks.abort();
    limit_files(&dev, unlimited)?;
    dev.until_nth(2, "the keeper runs again").await?;
    paste(&kill)?;
    dev.until("leads (epoch 2)").await?;
    ensure!(paste(&get)?.stdout.starts_with(b"hello"), "what was written meanwhile is there");
    dev.interrupt().await?;
    Ok(())
}

/// Sets how large files of the process may become, in bytes; returns how large they might be before.
fn limit_files(dev: &Dev, bytes: Option<u64>) -> Result<Option<u64>> {
    let process = Pid::from_raw(dev.id().try_into()?).context("a process has an id")?;
    let before = rustix::process::getrlimit(Resource::Fsize);
    let new = Rlimit { current: bytes, maximum: before.maximum };
    Ok(prlimit(Some(process), Resource::Fsize, new)?.current)
}
