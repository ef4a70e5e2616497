//! Logs that a disk or a crash has changed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;

const KEYS: usize = 40;

/// A log of one file, as it was written.
struct LogFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl LogFile {
    fn of(cluster: &Cluster) -> Result<Self> {
        let files = fs::read_dir(cluster.data_dir(0).join("log"))?;
        let paths = files.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let written = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wal");
        let mut wal = paths.into_iter().filter(written);
        let path = wal.next().context("there is no log")?;
        ensure!(wal.next().is_none(), "the log has more than one file");
        Ok(Self { bytes: fs::read(&path)?, path })
    }

    /// Where a value that was written stands.
    fn find(&self, value: &str) -> Result<usize> {
        let found = self.bytes.windows(value.len()).position(|window| window == value.as_bytes());
        found.with_context(|| format!("{value} is not in the log"))
    }

    /// Where the next record would begin.
    fn end(&self) -> usize {
        let used = self.bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        used.next_multiple_of(8)
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        Ok(fs::write(&self.path, bytes)?)
    }
}

/// A node with a cluster of its own that was killed after it had acknowledged some writes.
async fn killed(zookeeper: &ZooKeeper) -> Result<(Cluster, LogFile)> {
    let cluster = Cluster::builder().nodes(1).start(zookeeper).await?;
    let client = cluster.client();
    for i in 0..KEYS {
        client.put(format!("key-{i}"), value(i)).await?;
    }
    cluster.kill(0)?;
    let log = LogFile::of(&cluster)?;
    Ok((cluster, log))
}

fn value(i: usize) -> String {
    format!("the value of number {i}, as it was acknowledged")
}

async fn holds_everything(cluster: &Cluster) -> Result<()> {
    cluster.wait_ready().await?;
    let client = cluster.client();
    for i in 0..KEYS {
        let got = client.get(format!("key-{i}")).await?.value.with_context(|| format!("key-{i} is gone"))?;
        ensure!(got.value == value(i), "key-{i} holds {:?}", got.value);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_damaged_in_the_middle_is_refused_and_kept_as_it_is() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let (cluster, log) = killed(&zookeeper).await?;
    let place = log.find(&value(KEYS / 2))?;
    for (name, at) in [("its payload", place), ("its header", place - 60), ("the file's header", 20)] {
        let mut damaged = log.bytes.clone();
        damaged[at] ^= 1;
        log.write(&damaged)?;
        let before = cluster.log(0)?.len();
        cluster.start_node(0)?;
        let ended = cluster.wait_ended(0).await?;
        ensure!(ended.code() == Some(1), "a bit of {name} is wrong, and kvd ended with {ended}");
        let said = cluster.log(0)?.split_off(before);
        let reasons: Vec<_> = said.lines().filter(|line| line.starts_with("kvd: ")).collect();
        ensure!(reasons.len() == 1 && reasons[0].contains("the log cannot be opened"), "{name}: {said}");
        ensure!(fs::read(&log.path)? == damaged, "the log was changed ({name})");
    }
    log.write(&log.bytes)?;
    cluster.start_node(0)?;
    holds_everything(&cluster).await?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_and_nothing_acknowledged_is_lost() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let (cluster, log) = killed(&zookeeper).await?;
    let (end, place) = (log.end(), log.find(&value(KEYS - 1))?);
    // What the crash of a whole machine leaves: the beginning of a record that was never acknowledged.
    for torn in [8, 48, end - place] {
        let mut bytes = log.bytes.clone();
        bytes.copy_within(end - torn.next_multiple_of(8)..end, end);
        log.write(&bytes)?;
        let before = cluster.log(0)?.len();
        cluster.start_node(0)?;
        holds_everything(&cluster).await.with_context(|| format!("{torn} bytes after the end"))?;
        let said = cluster.log(0)?.split_off(before);
        ensure!(said.contains("torn tail"), "kvd does not say that it cut {torn} bytes: {said}");
        cluster.kill(0)?;
    }
    cluster.start_node(0)?;
    holds_everything(&cluster).await?;
    Ok(cluster.end().await?)
}
