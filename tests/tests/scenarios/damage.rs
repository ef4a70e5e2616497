//! What a disk changes by itself is found, named and repaired, while the cluster serves.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use quorumkv_client::{DamageFound, DamagedPart};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;
use xxhash_rust::xxh3::xxh3_64;

use crate::contents::wait_identical;
use crate::load::Load;

/// Values so large that the state soon moves from memory to tables on the disk.
const VALUE_BYTES: usize = 8 << 10;

/// Tables from this size on are those of the data: smaller ones soon are merged with others.
const LARGE: u64 = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_tables_change_is_repaired_by_the_leader() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 8, VALUE_BYTES);
    let follower = (cluster.leader().await? + 1) % 3;
    flip_tables(&cluster, follower).await?;
    let found = repaired(&cluster, follower, DamagedPart::State).await?;
    // By the table that is read back, or by whoever needs what was in it: a comparison, or a merge of tables.
    let known = ["not as it was written", "cannot read the state", "cannot store applied entries"];
    ensure!(known.iter().any(|known| found.what.contains(known)), "it says {:?}", found.what);
    load.progress(100).await?;
    let output = cluster.kvctl(&["status", "-o", "table"]).await?;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(table.contains("found damage in its state"), "{table}");
    for (name, least) in [("kvd_damage_found_total", 1.0), ("kvd_snapshots_received_total", 1.0)] {
        let count = cluster.metric(follower, name).await?;
        ensure!(count >= least, "{name} is {count}");
    }
    cluster.wait_ready().await?;
    let record = load.stop().await?;
    record.verify_without_failures(&wait_identical(&cluster).await?)?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_tables_change_gives_up_its_place_and_is_repaired() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 8, VALUE_BYTES);
    let leader = cluster.leader().await?;
    let node = cluster.status(leader).await?.node;
    flip_tables(&cluster, leader).await?;
    cluster.leader_among(&[(leader + 1) % 3, (leader + 2) % 3]).await?;
    repaired(&cluster, leader, DamagedPart::State).await?;
    load.progress(100).await?;
    cluster.wait_ready().await?;
    ensure!(cluster.status(leader).await?.node == node, "it is another node now");
    let record = load.stop().await?;
    record.verify_without_failures(&wait_identical(&cluster).await?)?;
    Ok(cluster.end().await?)
}

/// The value has other bytes at one replica, and everything that is stored with it fits them: only a comparison can tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_silently_differs_is_found_by_comparison() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let client = cluster.client();
    for i in 0..100 {
        client.put(format!("key-{i}"), format!("the value of key {i:03}")).await?;
    }
    let odd = (cluster.leader().await? + 1) % 3;
    let expected = wait_identical(&cluster).await?;
    cluster.kill(odd)?;
    forge(cluster.data_dir(odd), b"the value of key 042", b"the VALUE of key 042")?;
    cluster.start_node(odd)?;
    let found = repaired(&cluster, odd, DamagedPart::State).await?;
    ensure!(found.what.contains("differs from that of a majority"), "it says {:?}", found.what);
    let leader = cluster.leader().await?;
    let counted = cluster.metric(leader, "kvd_replicas_differ_total").await?;
    ensure!(counted >= 1.0, "the leader counts {counted} replicas that differ");
    ensure!(wait_identical(&cluster).await? == expected, "something else has changed");
    client.close().await;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_changes_is_got_rid_of_before_it_is_needed() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 4, 100);
    load.progress(200).await?;
    let leader = cluster.leader().await?;
    for i in [leader, (leader + 1) % 3] {
        let node = cluster.status(i).await?.node;
        let segment = newest(&cluster.data_dir(i).join("log"), "wal")?;
        flip(&segment, 8 << 10)?;
        let found = repaired(&cluster, i, DamagedPart::Log).await?;
        ensure!(found.what.contains(&segment.display().to_string()), "it says {:?}", found.what);
        ensure!(!segment.exists(), "{} is still there", segment.display());
        load.progress(50).await?;
        cluster.kill(i)?;
        cluster.start_node(i)?;
        cluster.wait_ready().await?;
        ensure!(cluster.status(i).await?.node == node, "it has lost its memory, and is another node");
    }
    let record = load.stop().await?;
    record.verify(&wait_identical(&cluster).await?)?;
    Ok(cluster.end().await?)
}

/// Waits until a node has found damage and repaired it, and is ready; returns what it says.
async fn repaired(cluster: &Cluster, i: usize, part: DamagedPart) -> Result<DamageFound> {
    let repaired = async || -> Result<DamageFound> {
        let status = cluster.status(i).await?;
        let found = status.damage.context("it has found nothing")?;
        ensure!(found.part == part, "it has found {found:?}");
        ensure!(found.repaired_s.is_some() && status.ready, "it is not repaired: {}", status.remarks);
        Ok(found)
    };
    Ok(wait_until(PATIENCE * 2, &format!("node {i} is repaired"), repaired).await?)
}

/// Waits until a node's state has large tables, and changes a byte of each.
async fn flip_tables(cluster: &Cluster, i: usize) -> Result<()> {
    let directory = cluster.data_dir(i).join("state");
    let tables = async || -> Result<Vec<PathBuf>> {
        let mut tables = Vec::new();
        collect_tables(&directory, &mut tables)?;
        ensure!(!tables.is_empty(), "there are none in {}", directory.display());
        Ok(tables)
    };
    for table in wait_until(PATIENCE, "there are tables on the disk", tables).await? {
        flip(&table, LARGE / 3)?;
    }
    Ok(())
}

fn collect_tables(directory: &Path, tables: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_tables(&path, tables)?;
        } else if directory.ends_with("tables") && fs::metadata(&path)?.len() >= LARGE {
            tables.push(path);
        }
    }
    Ok(())
}

/// Flips the bits of one byte.
fn flip(path: &Path, offset: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[!byte[0]], offset)?;
    Ok(())
}

/// The file with this ending whose name comes last.
fn newest(directory: &Path, extension: &str) -> Result<PathBuf> {
    let files = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = files.collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.into_iter().max().with_context(|| format!("no .{extension} in {}", directory.display()))
}

/// Changes a value of the state where fjall keeps what it has not moved to tables yet, with the checksum of the batch.
fn forge(data_dir: &Path, from: &[u8], to: &[u8]) -> Result<()> {
    let state = fs::read_to_string(data_dir.join("state/CURRENT"))?;
    let number = state.lines().nth(1).context("CURRENT names a database")?;
    let path = newest(&data_dir.join(format!("state/state-{number}")), "jnl")?;
    let mut bytes = fs::read(&path)?;
    let at = bytes.windows(from.len()).position(|window| window == from).context("the value is there")?;
    bytes[at..at + from.len()].copy_from_slice(to);
    let batch = batch_around(&bytes, at).context("the value is in a batch")?;
    let hash = xxh3_64(&bytes[batch.clone()]);
    // The end of a batch: a tag, the checksum, the trailer.
    bytes[batch.end + 1..batch.end + 9].copy_from_slice(&hash.to_le_bytes());
    fs::write(&path, bytes)?;
    Ok(())
}

/// The items of the batch that has the byte at `wanted`: see `kvd`'s `state/journal.rs` for the format.
fn batch_around(journal: &[u8], wanted: usize) -> Option<std::ops::Range<usize>> {
    let number = |at: usize, length: usize| {
        let bytes = journal.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let mut at = 0;
    while journal.get(at) == Some(&1) {
        let (count, begin) = (number(at + 1, 4)?, at + 13);
        at = begin;
        for _ in 0..count {
            at += 21 + number(at + 11, 2)? + number(at + 13, 4)?;
        }
        if (begin..at).contains(&wanted) {
            return Some(begin..at);
        }
        at += 13;
    }
    None
}
