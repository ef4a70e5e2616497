//! Writers that go on through whatever happens, and what they were promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use quorumkv_client::{Client, Outcome, Version, Versioned, WriteError};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use tokio::task::JoinSet;

use crate::contents::Contents;

/// Between two writes of one writer: they are to be there, not to wear out a small machine.
const PAUSE: Duration = Duration::from_millis(2);

/// Writers that each put one new key after the other until they are told to stop.
pub(crate) struct Load {
    shared: Arc<Shared>,
    writers: JoinSet<Result<Record>>,
}

struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// What became of the writes of a [`Load`].
#[derive(Default)]
pub(crate) struct Record {
    /// Keys with the values and versions that were acknowledged.
    acknowledged: Contents,
    /// Keys whose writes may have been applied or not, with the values they would have.
    unknown: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Keys that certainly were not written.
    refused: BTreeSet<Vec<u8>>,
}

impl Load {
    /// Starts writers, each with a client of its own, whose keys begin with `name`. Values have `bytes` bytes or a few.
    pub(crate) fn start(cluster: &Cluster, name: &str, writers: usize, bytes: usize) -> Self {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), acknowledged: AtomicU64::new(0) });
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let prefix = format!("{name}/{writer}/");
            tasks.spawn(write_on(cluster.client(), prefix, bytes, Arc::clone(&shared)));
        }
        Self { shared, writers: tasks }
    }

    /// How many writes were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until that many more writes were acknowledged than have been by now.
    pub(crate) async fn progress(&self, more: u64) -> Result<()> {
        self.reach(self.acknowledged() + more).await
    }

    /// Waits until that many writes were acknowledged altogether.
    pub(crate) async fn reach(&self, target: u64) -> Result<()> {
        let reached = async || {
            let now = self.acknowledged();
            if now >= target { Ok(()) } else { Err(format!("{now} of {target}")) }
        };
        wait_until(PATIENCE * 2, "writes are acknowledged", reached).await?;
        Ok(())
    }

    /// Stops the writers after the writes that are under way.
    pub(crate) async fn stop(mut self) -> Result<Record> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Record::default();
        while let Some(record) = self.writers.join_next().await {
            all.merge(record??);
        }
        Ok(all)
    }
}

async fn write_on(client: Client, prefix: String, bytes: usize, shared: Arc<Shared>) -> Result<Record> {
    let mut record = Record::default();
    for i in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{prefix}{i:06}").into_bytes();
        let value = format!("{i:0bytes$}").into_bytes();
        match client.put(key.clone(), value.clone()).await {
            Ok(written) if written.outcome == Outcome::Applied => {
                let value = Versioned { version: written.version, value: value.into() };
                record.acknowledged.insert(key, value);
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(written) => bail!("a put came to {:?}", written.outcome),
            Err(WriteError::Unknown { .. }) => drop(record.unknown.insert(key, value)),
            Err(WriteError::NotApplied { .. } | WriteError::Unreachable(_)) => {
                record.refused.insert(key);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    client.close().await;
    Ok(record)
}

impl Record {
    /// Adds what another load was promised.
    pub(crate) fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.refused.extend(other.refused);
    }

    /// How many acknowledged writes up to this version are there as they were acknowledged, and how many after it are not there.
    pub(crate) fn kept_to(&self, last: Version, contents: &Contents) -> (usize, usize) {
        let (before, after): (Vec<_>, Vec<_>) =
            self.acknowledged.iter().partition(|(_, value)| value.version <= last);
        let is_kept = |(key, value): &&(&Vec<u8>, &Versioned)| contents.get(*key) == Some(*value);
        let is_missing = |(key, _): &&(&Vec<u8>, &Versioned)| !contents.contains_key(*key);
        let kept = before.iter().filter(is_kept).count();
        let missing = after.iter().filter(is_missing).count();
        assert_eq!((kept, missing), (before.len(), after.len()), "all of the first, and none of the others");
        (kept, missing)
    }

    /// Checks, besides, that no write failed at all: the client library got over all that happened.
    pub(crate) fn verify_without_failures(&self, contents: &Contents) -> Result<()> {
        let failed: Vec<_> = self.unknown.keys().chain(&self.refused).collect();
        ensure!(failed.is_empty(), "{} writes failed, the first of {:?}", failed.len(), failed.first());
        self.verify(contents)
    }

    /// Checks that what is there is what was promised: acknowledged writes as they were acknowledged, unknown ones
    /// whole or not at all, refused ones never.
    pub(crate) fn verify(&self, contents: &Contents) -> Result<()> {
        ensure!(!self.acknowledged.is_empty(), "nothing was acknowledged, so nothing is tested");
        let mut versions = BTreeSet::new();
        for (key, expected) in &self.acknowledged {
            let name = String::from_utf8_lossy(key);
            let Some(found) = contents.get(key) else { bail!("{name} was acknowledged and is lost") };
            ensure!(found == expected, "{name} is at {}, not at {}", found.version, expected.version);
            ensure!(versions.insert(found.version), "two writes have version {}", found.version);
        }
        for key in &self.refused {
            ensure!(!contents.contains_key(key), "{} is there", String::from_utf8_lossy(key));
        }
        for (key, value) in &self.unknown {
            if let Some(found) = contents.get(key) {
                ensure!(found.value == value, "{} has another value", String::from_utf8_lossy(key));
            }
        }
        Ok(())
    }
}

/// A counter that several tasks increment by compare-and-set, and how often they were told that they did.
pub(crate) struct Counter {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<Increments>>,
}

/// Increments by what their writers were told.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Increments {
    acknowledged: u64,
    unknown: u64,
}

/// The counter's key.
const COUNTER: &str = "counter";

impl Counter {
    /// Starts `tasks` tasks, each with a client of its own.
    pub(crate) fn start(cluster: &Cluster, tasks: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for _ in 0..tasks {
            set.spawn(increment_on(cluster.client(), Arc::clone(&stop)));
        }
        Self { stop, tasks: set }
    }

    /// Stops the tasks, and checks that each increment was applied at most once, and at least once if acknowledged.
    pub(crate) async fn stop_and_check(mut self, client: &Client) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Increments::default();
        while let Some(increments) = self.tasks.join_next().await {
            let Increments { acknowledged, unknown } = increments??;
            sum.acknowledged += acknowledged;
            sum.unknown += unknown;
        }
        let (_, count) = read_counter(client).await?;
        ensure!(sum.acknowledged > 0, "nothing was counted");
        ensure!(
            (sum.acknowledged..=sum.acknowledged + sum.unknown).contains(&count),
            "the counter is {count} after {sum:?}"
        );
        Ok(())
    }
}

async fn increment_on(client: Client, stop: Arc<AtomicBool>) -> Result<Increments> {
    let mut increments = Increments::default();
    while !stop.load(Ordering::Relaxed) {
        let (version, count) = read_counter(&client).await?;
        let next = (count + 1).to_string();
        match client.compare_and_set(COUNTER, version, next).await {
            Ok(written) => match written.outcome {
                Outcome::Applied => increments.acknowledged += 1,
                Outcome::Mismatch { actual } => {
                    ensure!(actual > version, "the counter went back from {version} to {actual}");
                }
                Outcome::NotFound => bail!("a compare-and-set came to NotFound"),
            },
            Err(WriteError::Unknown { .. }) => increments.unknown += 1,
            Err(WriteError::NotApplied { .. } | WriteError::Unreachable(_)) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    client.close().await;
    Ok(increments)
}

async fn read_counter(client: &Client) -> Result<(Version, u64)> {
    Ok(match client.get(COUNTER).await?.value {
        None => (Version::ZERO, 0),
        Some(value) => (value.version, std::str::from_utf8(&value.value)?.parse()?),
    })
}
