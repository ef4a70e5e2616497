//! Measures how long nobody can write when the leader goes, and prints a line of JSON for each way in which it goes.
//!
//! ```text
//! scripts/bench-failover [ROUNDS]      # default 20
//! ```
//!
//! Three nodes with their default settings, one ZooKeeper (see `KV_TEST_ZOOKEEPER`), and a client that stays connected and
//! writes without a pause, one write after the other. A round is the longest time between two acknowledged writes around the
//! end of the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;

/// How the leader goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// SIGKILL.
    Killed,
    /// SIGSTOP: its connections stay.
    Silent,
    /// `kvctl kill-leader`.
    Asked,
}

/// When the last write was acknowledged, in microseconds since the beginning, and the longest time between two since it was
/// asked last.
#[derive(Debug, Default)]
struct Writes {
    last: AtomicU64,
    longest: AtomicU64,
    ended: AtomicBool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(20), |rounds| rounds.parse())?;
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).arg("--session-timeout=6s").start(&zookeeper).await?;
    let writes = Arc::new(Writes::default());
    let begun = Instant::now();
    let writer = tokio::spawn({
        let (client, writes) = (cluster.client(), Arc::clone(&writes));
        async move {
            while !writes.ended.load(Ordering::Relaxed) {
                if client.put("failover", "value").await.is_ok() {
                    let now = micros(begun.elapsed());
                    let gap = now - writes.last.swap(now, Ordering::Relaxed);
                    writes.longest.fetch_max(gap, Ordering::Relaxed);
                }
            }
        }
    });
    for way in [Way::Silent, Way::Killed, Way::Asked] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(round(&cluster, &writes, way).await?);
        }
        times.sort_unstable();
        let at = |part: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let index = ((times.len() - 1) as f64 * part).round() as usize;
            times[index].as_secs_f64() * 1000.0
        };
        println!(
            r#"{{"leader":"{way:?}","rounds":{rounds},"min_ms":{:.1},"median_ms":{:.1},"p90_ms":{:.1},"max_ms":{:.1}}}"#,
            at(0.0),
            at(0.5),
            at(0.9),
            at(1.0)
        );
    }
    writes.ended.store(true, Ordering::Relaxed);
    writer.await?;
    cluster.end().await?;
    Ok(())
}

/// One leader goes and comes back. How long nothing was acknowledged.
async fn round(cluster: &Cluster, writes: &Writes, way: Way) -> Result<Duration> {
    let leader = cluster.leader().await?;
    progress(writes).await?;
    writes.longest.store(0, Ordering::Relaxed);
    match way {
        Way::Killed => cluster.kill(leader)?,
        Way::Silent => cluster.pause(leader)?,
        Way::Asked => {
            let output = cluster.kvctl(&["kill-leader"]).await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let others: Vec<usize> = (0..3).filter(|&node| node != leader).collect();
    cluster.leader_among(&others).await.context("another leads")?;
    progress(writes).await?;
    let longest = writes.longest.load(Ordering::Relaxed);
    match way {
        Way::Silent => cluster.resume(leader)?,
        Way::Killed => cluster.start_node(leader)?,
        Way::Asked => {
            cluster.wait_ended(leader).await?;
            cluster.start_node(leader)?;
        }
    }
    cluster.wait_ready().await?;
    ensure!(longest > 0, "nothing was written");
    Ok(Duration::from_micros(longest))
}

/// Waits for some more writes.
async fn progress(writes: &Writes) -> Result<()> {
    for _ in 0..20 {
        let last = writes.last.load(Ordering::Relaxed);
        let more = async {
            while writes.last.load(Ordering::Relaxed) == last {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), more).await.context("no write is acknowledged")?;
    }
    Ok(())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
