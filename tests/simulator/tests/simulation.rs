//! A fixed number of seeds in every run of the tests, and the proof that a seed says everything.

use quorumkv_simulator::{Reduction, Summary, Trace};

/// Seeds that every run of the tests tries.
const SEEDS: u64 = 2_000;

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..10 {
        let first = quorumkv_simulator::trace_hash(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let second = quorumkv_simulator::trace_hash(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second, "seed {seed} gave two different runs");
    }
}

#[test]
fn clusters_survive_chaos_and_agree_after_it() {
    let mut total = Summary::default();
    for seed in 0..SEEDS {
        match quorumkv_simulator::run(seed, &Reduction::default(), Trace::Off) {
            Ok(summary) => total.add(&summary),
            Err(failure) => panic!("{failure}\nTo see what happened: just sim {seed}"),
        }
    }
    println!("{SEEDS} seeds: {total}");
    total.assert_covers_everything();
}
