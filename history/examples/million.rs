//! How long it takes to check a million operations: `cargo run --release -p quorumkv-history --example million`.

use std::time::Instant;

use fastrand::Rng;
use quorumkv_history::{Action, Operation, Outcome, check, zones};

const OPERATIONS: usize = 1_000_000;
const CLIENTS: u32 = 64;
const KEYS: usize = 100;

fn main() {
    let history = history();
    let begun = Instant::now();
    let checked = check(&history);
    println!("checked in {:.2?}: {checked:?}", begun.elapsed());
    let begun = Instant::now();
    let held = zones(&history).is_ok();
    println!("of that, facts and zones alone take {:.2?}: {held}", begun.elapsed());
}

/// Operations of clients that are all busy all the time, each carried out in the middle of its time.
fn history() -> Vec<Operation> {
    let mut random = Rng::with_seed(7);
    let mut free = vec![0_u64; CLIENTS as usize];
    let mut keys: Vec<Option<(String, u64)>> = vec![None; KEYS];
    let mut version = 0;
    let mut history = Vec::with_capacity(OPERATIONS);
    for index in 0..OPERATIONS {
        let now = index as u64 * 1000;
        let client = random.u32(..CLIENTS);
        let called = free[client as usize].max(now.saturating_sub(random.u64(1..40_000))).min(now);
        let returned = now + random.u64(1..900);
        free[client as usize] = returned + 1;
        let key = random.usize(..KEYS);
        version += 1;
        let is_unanswered = random.u32(..1000) == 0;
        let (action, outcome) = carry_out(&mut random, index, version, &mut keys[key]);
        let (outcome, returned) = match (&action, is_unanswered) {
            (Action::Get, _) | (_, false) => (outcome, Some(returned)),
            (_, true) => (Outcome::Unknown, None),
        };
        history.push(Operation { client, key: format!("key-{key}"), called, returned, action, outcome });
    }
    history
}

fn carry_out(
    random: &mut Rng,
    index: usize,
    version: u64,
    key: &mut Option<(String, u64)>,
) -> (Action, Outcome) {
    let (value, actual) = (format!("value-{index}"), key.as_ref().map_or(0, |(_, version)| *version));
    match random.u32(..10) {
        0..=2 => {
            *key = Some((value.clone(), version));
            (Action::Put { value }, Outcome::Applied { version })
        }
        3 if key.is_none() => (Action::Delete, Outcome::Absent),
        3 => {
            *key = None;
            (Action::Delete, Outcome::Applied { version })
        }
        4 => {
            *key = Some((value.clone(), version));
            (Action::CompareAndSet { expected: actual, value }, Outcome::Applied { version })
        }
        _ => {
            let found =
                key.clone().map_or(Outcome::Absent, |(value, version)| Outcome::Found { value, version });
            (Action::Get, found)
        }
    }
}
