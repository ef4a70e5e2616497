//! Pausing and killing nodes of a cluster that `kvd dev` runs.

use std::time::Duration;

use indicatif::ProgressBar;
use quorumkv_client::Client;
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::dev::DevCluster;
use crate::exit::{Code, Failure};

/// Longest that nodes may take to be well again.
const RECOVERY: Duration = Duration::from_secs(60);

/// Pause between looks.
const LOOK: Duration = Duration::from_millis(50);

/// How long nodes are well between faults, and how long they are paused or dead, in milliseconds.
const CALM: std::ops::Range<u64> = 200..800;
const TROUBLE: std::ops::Range<u64> = 300..2500;

/// What was done to the nodes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Faults {
    pub(super) pauses: u64,
    pub(super) kills: u64,
}

/// Makes trouble, and undoes it.
pub(super) struct Chaos {
    cluster: DevCluster,
    client: Client,
    /// Processes that were paused and not yet woken up.
    paused: Vec<i32>,
    pub(super) faults: Faults,
}

impl Chaos {
    pub(super) const fn new(cluster: DevCluster, client: Client) -> Self {
        Self { cluster, client, paused: Vec::new(), faults: Faults { pauses: 0, kills: 0 } }
    }

    /// Pauses and kills nodes, a minority at a time, until it is dropped or the cluster does not recover.
    pub(super) async fn run(&mut self, bar: &ProgressBar) -> Failure {
        loop {
            if let Err(failure) = self.round(bar).await {
                return failure;
            }
        }
    }

    async fn round(&mut self, bar: &ProgressBar) -> Result<(), Failure> {
        self.until_well().await?;
        sleep(Duration::from_millis(fastrand::u64(CALM))).await;
        let mut endpoints = self.cluster.endpoints.clone();
        let minority = (endpoints.len() - 1) / 2;
        fastrand::shuffle(&mut endpoints);
        let mut told = Vec::new();
        for endpoint in &endpoints[..fastrand::usize(1..=minority)] {
            if fastrand::bool() {
                let pid = self.cluster.signal(endpoint, Signal::STOP)?;
                self.paused.push(pid);
                self.faults.pauses += 1;
                told.push(format!("{endpoint} is paused"));
            } else {
                self.cluster.signal(endpoint, Signal::KILL)?;
                self.faults.kills += 1;
                told.push(format!("{endpoint} was killed"));
            }
        }
        bar.set_message(told.join(", "));
        sleep(Duration::from_millis(fastrand::u64(TROUBLE))).await;
        self.wake_up();
        bar.set_message("");
        Ok(())
    }

    /// Wakes up all that were paused.
    fn wake_up(&mut self) {
        for pid in self.paused.drain(..) {
            // One that has ended meanwhile needs it no more.
            let _ = self.cluster.signal_process(pid, Signal::CONT);
        }
    }

    /// Undoes everything, and waits until all nodes are well.
    pub(super) async fn restore(&mut self) -> Result<(), Failure> {
        self.wake_up();
        self.until_well().await
    }

    async fn until_well(&self) -> Result<(), Failure> {
        let until = Instant::now() + RECOVERY;
        for endpoint in &self.cluster.endpoints {
            let asking = self.client.with_timeout(Duration::from_secs(1));
            while !asking.status(endpoint).await.is_ok_and(|status| status.ready) {
                if Instant::now() >= until {
                    let message = format!("{endpoint} is not well again after {RECOVERY:?}");
                    return Err(Failure::new(Code::Unhealthy, message).advise("see what kvd dev says"));
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.wake_up();
    }
}
