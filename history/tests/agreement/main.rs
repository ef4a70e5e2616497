//! Random histories, of which all ways to check them must say the same.

mod generate;
mod strictness;

use fastrand::Rng;
use quorumkv_history::{Operation, Order, check, check_local, search, zones};

use crate::generate::{Shape, good, mutate};

/// Histories of each shape.
const HISTORIES: u64 = 4000;

const ALL: Shape =
    Shape { keys: 2, clients: 3, operations: 9, unanswered: 15, removes: true, conditional: true };
const ONE_KEY: Shape = Shape { keys: 1, operations: 10, unanswered: 30, ..ALL };
const MANY_UNANSWERED: Shape = Shape { keys: 1, operations: 9, unanswered: 55, ..ALL };
const REGISTERS: Shape = Shape { unanswered: 20, removes: false, conditional: false, ..ALL };

fn of_key<'a>(history: &'a [Operation], key: &'a str) -> Vec<Operation> {
    history.iter().filter(|operation| operation.key == key).cloned().collect()
}

fn text(history: &[Operation]) -> String {
    history.iter().map(|operation| format!("{}\n", serde_json::to_string(operation).expect("JSON"))).collect()
}

/// Has all look at one history; whether it is linearizable.
fn agree(seed: u64, history: &[Operation]) -> bool {
    let explained = search(history, Order::Versions);
    match check(history) {
        Err(violation) => {
            assert!(!explained, "seed {seed}: an order explains it\n{violation}\n{}", text(history));
            assert!(violation.to_string().lines().count() > 3);
            let told = &violation.operations;
            // Of a search that found nothing, and of what nobody wrote, the whole history is the reason.
            let is_of_all = ["No order explains", "nothing can have written"];
            assert!(
                is_of_all.iter().any(|words| violation.reason.contains(words))
                    || !search(told, Order::Versions),
                "seed {seed}: what is told fits one order\n{violation}\n{}",
                text(history)
            );
        }
        Ok(checked) if checked.searched == 0 => {
            assert!(explained, "seed {seed}: no order explains it\n{}", text(history));
        }
        // Keys are decided one by one then.
        Ok(checked) => {
            assert_eq!(checked.undecided, 0, "seed {seed}");
            for key in ["a", "b"] {
                let of_key = of_key(history, key);
                assert!(search(&of_key, Order::Versions), "seed {seed}: {key}\n{}", text(history));
            }
        }
    }
    if let Err(violation) = zones(history) {
        assert!(!explained, "seed {seed}: an order explains it, not zones\n{violation}\n{}", text(history));
    }
    if explained {
        let (_, stale) = check_local(history).expect("what is linearizable is also no worse than old");
        assert_eq!(stale.stale, 0, "seed {seed}: nothing is old\n{}", text(history));
    }
    explained
}

fn run(shape: Shape) {
    let mut broken = 0;
    for seed in 0..HISTORIES {
        let mut random = Rng::with_seed(seed);
        let mut history = good(&mut random, shape);
        assert!(agree(seed, &history), "seed {seed}: made by linearizing\n{}", text(&history));
        for _ in 0..=random.u32(..2) {
            mutate(&mut random, &mut history);
        }
        broken += u64::from(!agree(seed, &history));
    }
    assert!((HISTORIES / 10..HISTORIES * 9 / 10).contains(&broken), "{broken} of {HISTORIES} are broken");
}

#[test]
fn all_ways_agree_on_everything_at_once() {
    run(ALL);
}

#[test]
fn all_ways_agree_on_one_key() {
    run(ONE_KEY);
}

#[test]
fn all_ways_agree_where_most_is_unanswered() {
    run(MANY_UNANSWERED);
}

#[test]
fn all_ways_agree_on_registers_and_zones_decide_them_without_versions() {
    run(REGISTERS);
    let mut broken = 0;
    for seed in 0..HISTORIES {
        let mut random = Rng::with_seed(seed);
        let mut history = good(&mut random, REGISTERS);
        for _ in 0..=random.u32(..2) {
            mutate(&mut random, &mut history);
        }
        let explained = search(&history, Order::Values);
        match zones(&history) {
            Ok(()) => assert!(explained, "seed {seed}: no order explains it\n{}", text(&history)),
            // What is wrong with the versions alone, a search for values does not mind.
            Err(violation) if violation.reason.contains("version ") => {}
            Err(_) => assert!(!explained, "seed {seed}: an order explains it\n{}", text(&history)),
        }
        broken += u64::from(!explained);
    }
    assert!(broken > HISTORIES / 10, "{broken} of {HISTORIES} are broken");
}
