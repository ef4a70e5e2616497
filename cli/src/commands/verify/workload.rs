//! Clients that ask for things and write down what they hear.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorumkv_client::{Client, Consistency, GetOptions, ReadError, Version, WriteError, Written};
use quorumkv_history::{Action, Operation, Outcome};
use tokio::time::{sleep, sleep_until};

use crate::exit::Failure;

/// Most operations of a run, so that the memory suffices: longer runs ask less often.
const MOST: f64 = 1_000_000.0;

/// After so many operations for each of the keys that get the most, other keys take their place: no key has a history that is too
/// long to be searched.
const OPERATIONS_PER_ERA: u64 = 4_000;

/// One operation in so many reads a key whose time is over: what was written long ago is to be there as well.
const LOOK_BACK: u32 = 20;

/// What a client does after an operation that failed, so that a cluster that is down is not flooded.
const PAUSE: Duration = Duration::from_millis(20);

/// What all clients of a run share.
pub(super) struct Run {
    /// What all keys of the run begin with. No other run has the same.
    pub(super) prefix: String,
    /// Keys in use at a time.
    keys: u64,
    consistency: Consistency,
    /// The beginning of the history's time.
    begun: Instant,
    /// The shortest time between two calls of one client.
    interval: Duration,
    stopping: AtomicBool,
    begun_operations: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) unknown: AtomicU64,
}

impl Run {
    pub(super) fn new(keys: usize, clients: u32, seconds: f64, consistency: Consistency) -> Self {
        Self {
            prefix: format!("kvctl-verify/{:016x}/", fastrand::u64(..)),
            keys: keys as u64,
            consistency,
            begun: Instant::now(),
            interval: Duration::from_secs_f64(seconds * f64::from(clients) / MOST),
            stopping: AtomicBool::new(false),
            begun_operations: AtomicU64::new(0),
            done: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }

    /// Has the clients end after what they are doing.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a run is shorter than a few hundred years")
    }

    /// The next operation's key, and whether its time is over. A quarter of the keys, three at most, get three quarters of the
    /// operations.
    fn choose(&self) -> (String, bool) {
        let number = self.begun_operations.fetch_add(1, Ordering::Relaxed);
        let hot = self.keys.div_ceil(4).min(3);
        let among = if fastrand::u8(..4) < 3 { hot } else { self.keys };
        let key = fastrand::u64(..among);
        // All keys that get as much as each other are replaced at once.
        let alike = if key < hot { hot } else { self.keys };
        let era = number / (OPERATIONS_PER_ERA * alike);
        if era > 0 && fastrand::u32(..LOOK_BACK) == 0 {
            return (self.key(key, fastrand::u64(..era)), true);
        }
        (self.key(key, era), false)
    }

    fn key(&self, number: u64, era: u64) -> String {
        format!("{}{number}-{era}", self.prefix)
    }
}

/// What one client asked and heard, and why it last failed. What is under way stands there as unknown, so that nothing is
/// lost of a client that is given up.
#[derive(Default)]
pub(super) struct Record {
    pub(super) operations: Vec<Operation>,
    pub(super) last_error: Option<Failure>,
}

/// A record that its client goes on with.
pub(super) type Shared = Arc<Mutex<Record>>;

/// One client: asks, waits for the answer, and asks again.
pub(super) async fn client(number: u32, client: Client, run: Arc<Run>, record: Shared) {
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut due = tokio::time::Instant::now();
    for sequence in 0_u64.. {
        if run.stopping.load(Ordering::Relaxed) {
            break;
        }
        let (key, is_over) = run.choose();
        let expected = known.get(&key).copied().unwrap_or(0);
        let action = if is_over { Action::Get } else { action(&format!("{number}-{sequence}"), expected) };
        lock(&record).operations.push(Operation {
            client: number,
            key: key.clone(),
            called: run.now(),
            returned: None,
            action: action.clone(),
            outcome: Outcome::Unknown,
        });
        let Heard { outcome, error } = ask(&client, &run, &key, &action).await;
        let returned = (outcome != Outcome::Unknown).then(|| run.now());
        run.done.fetch_add(1, Ordering::Relaxed);
        run.unknown.fetch_add(u64::from(outcome == Outcome::Unknown), Ordering::Relaxed);
        if let Some(version) = version(&outcome, &action) {
            known.insert(key, version);
        }
        let failed = error.is_some();
        note(&record, returned, outcome, error);
        if failed {
            sleep(PAUSE).await;
        }
        due = (due + run.interval).max(tokio::time::Instant::now());
        if !run.interval.is_zero() {
            sleep_until(due).await;
        }
    }
    client.close().await;
}

/// Writes down what the last operation came to.
fn note(record: &Shared, returned: Option<u64>, outcome: Outcome, error: Option<Failure>) {
    let mut record = lock(record);
    let last = record.operations.last_mut().expect("it was written down when it was called");
    (last.returned, last.outcome) = (returned, outcome);
    record.last_error = error.or(record.last_error.take());
}

/// Nothing panics while these locks are held, so a poisoned one is still sound.
pub(super) fn lock(record: &Shared) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do next. No other operation writes this value to any key of the run.
fn action(value: &str, expected: u64) -> Action {
    let value = value.to_owned();
    match fastrand::u8(..20) {
        0..=4 => Action::Put { value },
        5..=7 => Action::CompareAndSet { expected, value },
        8 | 9 => Action::Delete,
        _ => Action::Get,
    }
}

/// The version that the key is at as far as this answer tells; 0: it is absent.
const fn version(outcome: &Outcome, action: &Action) -> Option<u64> {
    match (outcome, action) {
        (Outcome::Applied { .. }, Action::Delete) | (Outcome::Absent, _) => Some(0),
        (Outcome::Found { version, .. } | Outcome::Applied { version }, _) => Some(*version),
        (Outcome::Mismatch { actual }, _) => Some(*actual),
        (Outcome::Failed | Outcome::Unknown, _) => None,
    }
}

/// An answer, or what took its place.
struct Heard {
    outcome: Outcome,
    error: Option<Failure>,
}

async fn ask(client: &Client, run: &Run, key: &str, action: &Action) -> Heard {
    let key = Bytes::copy_from_slice(key.as_bytes());
    match action {
        Action::Get => {
            let options = GetOptions { consistency: run.consistency, evidence: false };
            match client.get_with(key, options).await {
                Ok(got) => Heard::answer(got.value.map_or(Outcome::Absent, |found| Outcome::Found {
                    value: String::from_utf8_lossy(&found.value).into_owned(),
                    version: found.version.get(),
                })),
                Err(error) => Heard::unread(error),
            }
        }
        Action::Put { value } => Heard::written(client.put(key, value.clone()).await),
        Action::Delete => Heard::written(client.delete(key).await),
        Action::CompareAndSet { expected, value } => {
            Heard::written(client.compare_and_set(key, Version::new(*expected), value.clone()).await)
        }
    }
}

impl Heard {
    const fn answer(outcome: Outcome) -> Self {
        Self { outcome, error: None }
    }

    fn unread(error: ReadError) -> Self {
        Self { outcome: Outcome::Failed, error: Some(error.into()) }
    }

    fn written(result: Result<Written, WriteError>) -> Self {
        match result {
            Ok(written) => Self::answer(match written.outcome {
                quorumkv_client::Outcome::Applied => Outcome::Applied { version: written.version.get() },
                quorumkv_client::Outcome::NotFound => Outcome::Absent,
                quorumkv_client::Outcome::Mismatch { actual } => Outcome::Mismatch { actual: actual.get() },
            }),
            Err(error @ WriteError::Unknown { .. }) => {
                Self { outcome: Outcome::Unknown, error: Some(error.into()) }
            }
            Err(error @ (WriteError::NotApplied { .. } | WriteError::Unreachable(_))) => {
                Self { outcome: Outcome::Failed, error: Some(error.into()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_prefixes_of_their_own_and_a_few_keys_get_the_most() {
        let run = Run::new(12, 4, 10.0, Consistency::Quorum);
        assert_ne!(run.prefix, Run::new(12, 4, 10.0, Consistency::Quorum).prefix);
        let chosen: Vec<String> = (0..4000).map(|_| run.choose().0).collect();
        assert!(chosen.iter().all(|key| key.starts_with(&run.prefix)));
        let hot = chosen.iter().filter(|&chosen| (0..3).any(|key| *chosen == run.key(key, 0))).count();
        assert!((2800..3600).contains(&hot), "{hot}");
        let (key, is_over) = Run::new(1, 1, 1.0, Consistency::Local).choose();
        assert!(key.ends_with("/0-0") && !is_over, "{key}");
    }

    #[test]
    fn no_key_gets_so_many_operations_that_the_checker_would_not_search_them() {
        for keys in [1, 2, 4, 12, 1000] {
            let run = Run::new(keys, 1, 1.0, Consistency::Quorum);
            let (mut counts, mut looks_back) = (HashMap::<String, u64>::new(), 0);
            for _ in 0..200_000 {
                let (key, is_over) = run.choose();
                looks_back += u64::from(is_over);
                *counts.entry(key).or_default() += 1;
            }
            let most = counts.values().max().copied().unwrap_or(0);
            assert!(most < 2 * OPERATIONS_PER_ERA, "{most} operations on one of {keys} keys");
            assert!((1000..12_000).contains(&looks_back), "{looks_back}");
        }
    }

    #[test]
    fn a_long_run_asks_less_often() {
        assert_eq!(Run::new(1, 10, 10.0, Consistency::Quorum).interval, Duration::from_micros(100));
        assert_eq!(Run::new(1, 10, 3600.0, Consistency::Quorum).interval, Duration::from_millis(36));
    }

    #[test]
    fn what_a_client_knows_of_a_key_comes_from_every_answer() {
        assert_eq!(version(&Outcome::Applied { version: 3 }, &Action::Delete), Some(0));
        assert_eq!(version(&Outcome::Mismatch { actual: 4 }, &action("v", 1)), Some(4));
        assert_eq!(version(&Outcome::Unknown, &Action::Delete), None);
    }
}
