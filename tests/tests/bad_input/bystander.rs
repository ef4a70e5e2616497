//! A well-behaved client that must not notice what happens to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use quorumkv_client::{Client, GetOptions};

/// Rounds of a write and a read that prove that the client is being served.
const PROOF: u64 = 5;

/// The client: it writes a counter and reads it back, through all nodes, without pause.
pub(crate) struct Bystander {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    rounds: AtomicU64,
}

impl Bystander {
    /// Starts the client, and sees it served.
    pub(crate) fn start(endpoints: &[String]) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let (theirs, endpoints) = (Arc::clone(&shared), endpoints.to_vec());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(rounds(&theirs, &endpoints))
        });
        let mut bystander = Self { shared, thread: Some(thread) };
        bystander.is_served().context("before anything bad has happened")?;
        Ok(bystander)
    }

    /// Waits until the client has been served a few times more. An error if it has failed even once.
    pub(crate) fn is_served(&mut self) -> Result<()> {
        let goal = self.shared.rounds.load(Ordering::Relaxed) + PROOF;
        while self.shared.rounds.load(Ordering::Relaxed) < goal {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return self.join();
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends the client. An error if it has failed even once.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.is_served()?;
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the bystander has failed before")?;
        let ended = thread.join().map_err(|_| anyhow!("the bystander panicked"))?;
        ended.context("the bystander was disturbed")
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn rounds(shared: &Shared, endpoints: &[String]) -> Result<()> {
    let client = Client::builder(endpoints).timeout(Duration::from_secs(30)).connect()?;
    while !shared.stop.load(Ordering::Relaxed) {
        let count = shared.rounds.load(Ordering::Relaxed).to_string();
        let written = client.put("bystander", count.clone()).await?;
        let got =
            client.get_with("bystander", GetOptions { evidence: true, ..GetOptions::default() }).await?;
        let is_mine = got.value.as_ref().is_some_and(|read| read.value == count.as_bytes());
        ensure!(is_mine, "wrote {count} as {written:?} and read {got:?}");
        shared.rounds.fetch_add(1, Ordering::Relaxed);
    }
    client.close().await;
    Ok(())
}
