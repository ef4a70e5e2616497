//! The same random sequence of operations goes to Apache ZooKeeper and to keeper, and both must answer alike.
//!
//! `SEEDS=n` says how many sequences are tried, `SEED=n` that only this one is.

mod generate;
mod ops;
mod run;
mod shrink;

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use ops::Step;
use run::{Transcript, run};

use crate::servers::{Kind, Server};

/// Steps of a sequence.
const STEPS: usize = 60;
/// Sequences in one run of the test.
const SEEDS: u64 = 200;

#[test]
fn keeper_answers_as_apache_zookeeper_does() -> Result<()> {
    let (apache, keeper) = (Server::apache()?, Server::keeper()?);
    for seed in seeds()? {
        compare_seed(&apache, &keeper, seed)?;
    }
    Ok(())
}

fn seeds() -> Result<std::ops::Range<u64>> {
    let number =
        |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().context(value)).transpose();
    Ok(match (number("SEED")?, number("SEEDS")?) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    })
}

fn compare_seed(apache: &Server, keeper: &Server, seed: u64) -> Result<()> {
    let steps = generate::sequence(seed, STEPS, apache.kind == Kind::Old);
    let (one, other) = (&apache.address, &keeper.address);
    let Some(difference) = difference(one, other, &steps)? else { return Ok(()) };
    eprintln!("seed {seed} differs: {difference}\nlooking for a shorter sequence");
    let shorter = shrink::shrink(steps, |steps| matches!(self::difference(one, other, steps), Ok(Some(_))));
    let difference = self::difference(one, other, &shorter)?.unwrap_or(difference);
    let shorter: Vec<String> = shorter.iter().map(|step| format!("{step:?}")).collect();
    bail!("SEED={seed}: {difference}\n\nthe shorter sequence:\n{}", shorter.join("\n"))
}

/// Where the answers to a sequence differ first, if they do.
fn difference(one: &str, other: &str, steps: &[Step]) -> Result<Option<String>> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let root = format!("/run-{:06}-{:010}/r", RUNS.fetch_add(1, Ordering::Relaxed), std::process::id());
    let (expected, found) = std::thread::scope(|scope| {
        let expected = scope.spawn(|| run(one, &root, steps));
        let found = run(other, &root, steps);
        (expected.join().expect("no panic in a run"), found)
    });
    let (expected, found) = (expected.context("ZooKeeper")?, found.context("keeper")?);
    Ok(first_difference(&expected, &found))
}

fn first_difference(expected: &Transcript, found: &Transcript) -> Option<String> {
    let at = expected.iter().zip(found).position(|(one, other)| one != other);
    let at = at.or_else(|| (expected.len() != found.len()).then(|| expected.len().min(found.len())))?;
    let line = |transcript: &Transcript| transcript.get(at).cloned().unwrap_or_else(|| "nothing".to_owned());
    Some(format!(
        "after\n  {}\nexpected {}\nfound    {}",
        expected[..at].join("\n  "),
        line(expected),
        line(found)
    ))
}
