//! `kvctl bench election` with a ZooKeeper near by and with one far away.
//!
//! ```text
//! scripts/bench-election [ROUNDS]      # default 20
//! ```
//!
//! `kvd dev --restart` keeps three nodes with default settings; between them and their ZooKeeper (see `KV_TEST_ZOOKEEPER`)
//! stands a proxy that holds back all bytes for 0, 50 or 150 ms each way.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use quorumkv_tests::zookeeper::{ReservedPort, ZooKeeper};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long bytes are held back each way.
const DELAYS_MS: [u64; 3] = [0, 50, 150];

/// Reads that a proxy holds back at most for one direction of one connection.
const HELD: usize = 1024;

/// Bytes of one of them.
const CHUNK: usize = 16 << 10;

/// Longest that a cluster may take to begin.
const BEGIN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).unwrap_or_else(|| "20".to_owned());
    let binary = |name: &str| std::env::var(name).with_context(|| format!("{name} must name a binary"));
    let (kvd, kvctl) = (binary("KVD_BIN")?, binary("KVCTL_BIN")?);
    let zookeeper = ZooKeeper::start(1)?;
    for delay in DELAYS_MS.map(Duration::from_millis) {
        println!("ZooKeeper {} ms away each way", delay.as_millis());
        let proxy = far(&zookeeper, delay).await?;
        let ports = ReservedPort::reserve_together(&[0, 1, 2, 1000, 1001, 1002])?;
        let endpoints = [0, 1, 2].map(|i| format!("127.0.0.1:{}", ports[i].port())).join(",");
        let mut dev = Command::new(&kvd)
            .args(["dev", "--restart", "--zookeeper", &format!("{proxy}/far-{}", delay.as_millis())])
            .args(["--base-port", &ports[0].port().to_string()])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        begun(&kvctl, &endpoints).await?;
        let status = Command::new(&kvctl)
            .args(["-e", &endpoints, "bench", "election", "--rounds", &rounds, "-o", "table"])
            .status()
            .await?;
        ensure!(status.success(), "kvctl bench election ends with {status}");
        interrupt(&mut dev).await?;
    }
    Ok(())
}

/// Waits until the cluster is well.
async fn begun(kvctl: &str, endpoints: &str) -> Result<()> {
    let until = Instant::now() + BEGIN;
    while Instant::now() < until {
        if Command::new(kvctl).args(["-e", endpoints, "status"]).output().await?.status.success() {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
    bail!("the cluster has not begun after {BEGIN:?}")
}

/// Ends `kvd dev` as Ctrl-C does.
async fn interrupt(dev: &mut Child) -> Result<()> {
    let id = dev.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    rustix::process::kill_process(id.context("kvd dev has ended")?, rustix::process::Signal::INT)?;
    timeout(BEGIN, dev.wait()).await.context("kvd dev does not end")??;
    Ok(())
}

/// A proxy of `zookeeper` that holds back all bytes. It runs until the process ends.
async fn far(zookeeper: &ZooKeeper, delay: Duration) -> Result<SocketAddr> {
    let target = zookeeper.connect_string();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            if let Ok(far) = TcpStream::connect(&target).await {
                // Small messages must not wait for each other.
                if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_ok() {
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    hold_back(near_in, far_out, delay);
                    hold_back(far_in, near_out, delay);
                }
            }
        }
    });
    Ok(address)
}

/// Passes on what comes in, each part of it `delay` later.
fn hold_back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (held, mut due) = mpsc::channel(HELD);
    tokio::spawn(async move {
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK);
            let read = from.read_buf(&mut bytes).await;
            if !matches!(read, Ok(1..)) || held.send((Instant::now() + delay, bytes)).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
}
