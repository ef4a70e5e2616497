//! A fixed number of seeds in every run of the tests, and the proof that a seed says everything.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use quorumkv_simulator::{Reduction, Summary, Trace};

/// Seeds that every run of the tests tries, of about 25 simulated seconds each: 4,000 times 30 seconds.
const SEEDS: u64 = 4_950;

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
    let (next, total) = (AtomicU64::new(0), Mutex::new(Summary::default()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    let ended = quorumkv_simulator::run(seed, &Reduction::default(), Trace::Off);
                    let summary = ended.unwrap_or_else(|_| {
                        next.store(SEEDS, Ordering::Relaxed);
                        let failure = quorumkv_simulator::shrink(seed).failure;
                        panic!("{failure}\nTo see what happened: just sim {seed}")
                    });
                    total.lock().expect("no run panics").add(&summary);
                }
            });
        }
    });
    let total = total.into_inner().expect("no run panics");
    println!("{SEEDS} seeds, {:.4} simulated years: {total}", total.years());
    total.assert_covers_everything();
}
