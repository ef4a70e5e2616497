//! Whole clusters under random faults, from one seed each (docs/simulation.md).
//!
//! A run has two phases. First chaos: crashes that lose what was not synced, links that break, partitions, slow disks,
//! snapshots, an election that names two leaders at once, or none, or the worst, members that come and go, and disks that
//! are lost. Then everything heals, and the cluster must come to agree, answer everybody and serve. The `invariants` hold
//! all the while.
//!
//! `SEED=n` runs one seed and prints what happens; `SEEDS=n` runs many, from `FIRST` on.

mod clients;
mod faults;
mod healing;
mod invariants;
mod links;
mod members;
#[path = "../model/mod.rs"]
mod model;
mod network;
mod node;
mod plan;
mod world;

use world::{Summary, World};

/// Seeds that every run of the tests tries.
const SEEDS: u64 = 2_000;

/// Reads a number from the environment.
fn variable(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a test's knobs; the code under test takes none")]
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

/// Says which seed it was if the run panics.
struct OnPanic(u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {} failed; run it again with SEED={} and --nocapture to see what happened",
                self.0, self.0
            );
        }
    }
}

fn run(seed: u64, trace: world::Trace) -> (Summary, u64) {
    let _on_panic = OnPanic(seed);
    World::new(seed, trace).run()
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        let (_, first) = run(seed, world::Trace::Hash);
        let (_, second) = run(seed, world::Trace::Hash);
        assert_eq!(first, second, "seed {seed} gave two different runs");
    }
}

#[test]
fn clusters_survive_chaos_and_agree_after_it() {
    if let Some(seed) = variable("SEED") {
        let (summary, _) = run(seed, world::Trace::Print);
        eprintln!("{summary:?}");
        return;
    }
    let (first, seeds) = (variable("FIRST").unwrap_or(0), variable("SEEDS").unwrap_or(SEEDS));
    let mut total = Summary::default();
    for seed in first..first + seeds {
        total.add(&run(seed, world::Trace::Off).0);
    }
    eprintln!("{seeds} seeds from {first}: {total:?}");
    if seeds >= 100 {
        total.assert_covers_everything();
    }
}
