//! Clients that go on through everything, on a few keys that many of them want.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use quorumkv_client::{Client, Outcome as Written, Version, WriteError};
use quorumkv_history::{Action, Operation, Outcome};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::recorder::Recorder;

/// How many there are at once.
const CLIENTS: usize = 6;

/// Keys in use at one time.
const HOT_KEYS: u64 = 4;

/// After so many operations other keys are hot: no key has a history that is too long to be checked.
const OPERATIONS_PER_ERA: u64 = 4_000;

/// How long one operation may take with all its retries.
const TIMEOUT: Duration = Duration::from_secs(5);

/// More than values are padded by, in bytes.
const LONGEST_PADDING: usize = 4096;

/// At most so long a client rests after an operation, in milliseconds: they are not to wear out a small machine.
const REST_MS: u64 = 16;

/// What the clients share.
#[derive(Debug)]
struct Shared {
    recorder: Arc<Recorder>,
    stop: AtomicBool,
    /// Operations begun by anybody.
    begun: AtomicU64,
    /// Ids of clients as the history has them.
    ids: AtomicU32,
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<Result<()>>,
}

impl Clients {
    /// Starts them. What they choose comes from `seed`, what they meet does not.
    ///
    /// # Errors
    /// A client cannot be made.
    pub fn start(cluster: &Arc<Cluster>, recorder: &Arc<Recorder>, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared {
            recorder: Arc::clone(recorder),
            stop: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            ids: AtomicU32::new(0),
        });
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let client = cluster.client(&format!("client-{number}"), TIMEOUT)?;
            let rng = fastrand::Rng::with_seed(seed.wrapping_add(number as u64 + 1));
            let mut one = One { client, rng, shared: Arc::clone(&shared), id: 0, known: BTreeMap::new() };
            one.renew();
            tasks.spawn(async move { one.go_on().await });
        }
        Ok(Self { shared, tasks })
    }

    /// Stops them after what is under way, and returns every key that they ever used.
    ///
    /// # Errors
    /// The history could not be written.
    pub async fn stop(mut self) -> Result<Vec<String>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let eras = self.shared.begun.load(Ordering::Relaxed) / OPERATIONS_PER_ERA;
        Ok((0..=eras).flat_map(|era| (0..HOT_KEYS).map(move |key| key_of(era, key))).collect())
    }
}

fn key_of(era: u64, key: u64) -> String {
    format!("era-{era:05}/key-{key}")
}

/// One of the clients.
struct One {
    client: Client,
    rng: fastrand::Rng,
    shared: Arc<Shared>,
    id: u32,
    /// The versions that it last knew the hot keys to have.
    known: BTreeMap<String, u64>,
}

impl One {
    /// What is asked after an operation of unknown outcome is asked by somebody else: that operation may still take effect.
    fn renew(&mut self) {
        self.id = self.shared.ids.fetch_add(1, Ordering::Relaxed);
    }

    async fn go_on(&mut self) -> Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let number = self.shared.begun.fetch_add(1, Ordering::Relaxed);
            let (era, key) = (number / OPERATIONS_PER_ERA, self.rng.u64(..HOT_KEYS));
            // What was written long ago is to be there as well.
            let is_old = self.rng.u8(..20) == 0;
            let key = key_of(if is_old { self.rng.u64(..=era) } else { era }, key);
            let action = if is_old { Action::Get } else { self.choose(&key, number) };
            let called = self.shared.recorder.now();
            let outcome = self.carry_out(&key, &action).await;
            let returned = (outcome != Outcome::Unknown).then(|| self.shared.recorder.now());
            self.learn(&key, &outcome);
            let failed = matches!(outcome, Outcome::Unknown | Outcome::Failed);
            let operation = Operation { client: self.id, key, called, returned, action, outcome };
            self.shared.recorder.add(operation)?;
            if returned.is_none() {
                self.renew();
            }
            // Who is refused at once is not to ask a thousand times a second.
            let rest = if failed { REST_MS * 4 } else { self.rng.u64(..=REST_MS) };
            sleep(Duration::from_millis(rest)).await;
        }
        self.client.close().await;
        Ok(())
    }

    fn choose(&mut self, key: &str, number: u64) -> Action {
        // Of use to find it in a log: the number of the operation.
        let value = format!("value-{number}");
        match self.rng.u8(..100) {
            0..45 => Action::Get,
            45..75 => Action::Put { value },
            75..92 => {
                // Often it is still there.
                Action::CompareAndSet { expected: self.known.get(key).copied().unwrap_or(0), value }
            }
            _ => Action::Delete,
        }
    }

    fn learn(&mut self, key: &str, outcome: &Outcome) {
        let version = match outcome {
            Outcome::Found { version, .. } | Outcome::Applied { version } => *version,
            Outcome::Mismatch { actual } => *actual,
            Outcome::Absent => 0,
            Outcome::Failed | Outcome::Unknown => return,
        };
        if self.known.len() as u64 > 2 * HOT_KEYS {
            self.known.clear();
        }
        self.known.insert(key.to_owned(), version);
    }

    async fn carry_out(&self, key: &str, action: &Action) -> Outcome {
        let key = key.to_owned();
        let written = match action {
            Action::Get => return read(&self.client, &key).await,
            Action::Put { value } => self.client.put(key, padded(value)).await,
            Action::Delete => self.client.delete(key).await,
            Action::CompareAndSet { expected, value } => {
                self.client.compare_and_set(key, Version::new(*expected), padded(value)).await
            }
        };
        match written {
            Ok(written) => match written.outcome {
                Written::Applied => Outcome::Applied { version: written.version.get() },
                Written::NotFound => Outcome::Absent,
                Written::Mismatch { actual } => Outcome::Mismatch { actual: actual.get() },
            },
            Err(WriteError::Unknown { .. }) => Outcome::Unknown,
            Err(WriteError::NotApplied { .. } | WriteError::Unreachable(_)) => Outcome::Failed,
        }
    }
}

/// A value as it is stored: with something after it, so that the log grows and snapshots take time.
fn padded(value: &str) -> String {
    let length = value.bytes().fold(0, |sum, byte| (sum * 31 + usize::from(byte)) % LONGEST_PADDING);
    format!("{value} {}", "x".repeat(length))
}

/// The value that was padded so. Anything else stays as it is: nobody has written it.
fn without_padding(stored: &[u8]) -> String {
    let stored = String::from_utf8_lossy(stored);
    match stored.split_once(' ') {
        Some((value, _)) if padded(value) == stored => value.to_owned(),
        _ => stored.into_owned(),
    }
}

/// Reads a key, linearizably.
pub(crate) async fn read(client: &Client, key: &str) -> Outcome {
    match client.get(key.to_owned()).await {
        Ok(got) => match got.value {
            Some(found) => {
                Outcome::Found { value: without_padding(&found.value), version: found.version.get() }
            }
            None => Outcome::Absent,
        },
        Err(_) => Outcome::Failed,
    }
}
