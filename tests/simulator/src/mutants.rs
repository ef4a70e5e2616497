//! `sim mutants`: which deliberate bugs the simulator finds, and how soon.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Table, presets};
use quorumkv_mutants::Mutant;
use quorumkv_simulator::{Failure, Reduction, Trace};

#[derive(Args)]
pub(crate) struct Mutants {
    /// Only these mutants; all if none is named.
    #[arg(value_parser = named)]
    names: Vec<Mutant>,
    /// The most seeds that are tried for each.
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How many of a hundred must be found.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    percent: u8,
    /// How many at a time; all cores if it is not given.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// List the mutants and end.
    #[arg(long)]
    list: bool,
}

fn named(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| "`sim mutants --list` names them all".to_owned())
}

/// What became of a mutant.
struct Hunted {
    mutant: Mutant,
    seeds: u64,
    took: Duration,
    failure: Option<Failure>,
}

impl Mutants {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let mutants = if self.names.is_empty() { Mutant::ALL.to_vec() } else { self.names.clone() };
        if self.list {
            for mutant in mutants {
                println!("{:<32} {}", mutant.name(), mutant.what());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let cores = std::thread::available_parallelism()?.get();
        let count = mutants.len();
        let left = Mutex::new(VecDeque::from(mutants));
        let hunted = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.map_or(cores, NonZeroUsize::get) {
                scope.spawn(|| {
                    loop {
                        let next = left.lock().expect("no hunt panics").pop_front();
                        let Some(mutant) = next else { return };
                        let result = self.hunt(mutant);
                        result.tell();
                        hunted.lock().expect("no hunt panics").push(result);
                    }
                });
            }
        });
        let mut hunted = hunted.into_inner().expect("no hunt panics");
        hunted.sort_by_key(|one| one.mutant as usize);
        println!("{}", table(&hunted));
        let found = hunted.iter().filter(|one| one.failure.is_some()).count();
        println!("{found} of {count} mutants found");
        let is_enough = found * 100 >= count * usize::from(self.percent);
        Ok(if is_enough { ExitCode::SUCCESS } else { ExitCode::from(10) })
    }

    fn hunt(&self, mutant: Mutant) -> Hunted {
        quorumkv_mutants::switch_for_this_thread(Some(mutant));
        let began = Instant::now();
        let failing = (0..self.seeds)
            .find_map(|seed| quorumkv_simulator::run(seed, &Reduction::default(), Trace::Off).err());
        quorumkv_mutants::switch_for_this_thread(None);
        if let Some(failure) = &failing
            && let Err(failure) = quorumkv_simulator::run(failure.seed, &Reduction::default(), Trace::Off)
        {
            panic!("this has nothing to do with {}: {failure}", mutant.name());
        }
        let seeds = failing.as_ref().map_or(self.seeds, |failure| failure.seed + 1);
        Hunted { mutant, seeds, took: began.elapsed(), failure: failing }
    }
}

impl Hunted {
    fn tell(&self) {
        let what = match &self.failure {
            Some(failure) => format!("found at seed {}: {}", failure.seed, first_line(&failure.message)),
            None => format!("NOT FOUND in {} seeds", self.seeds),
        };
        eprintln!("{}: {what} ({:.1} s)", self.mutant.name(), self.took.as_secs_f64());
    }
}

fn table(hunted: &[Hunted]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["Mutant", "What is wrong", "Seeds", "Seconds", "Found by"]);
    for one in hunted {
        let found = one.failure.as_ref().map_or("not found".to_owned(), |failure| found_by(&failure.place));
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(one.mutant.name()),
            Cell::new(one.mutant.what()),
            right(one.seeds.to_string()),
            right(format!("{:.1}", one.took.as_secs_f64())),
            Cell::new(found),
        ]);
    }
    table
}

/// The invariant or part that noticed it, from a place in the source.
fn found_by(place: &str) -> String {
    let file = place.rsplit('/').next().unwrap_or(place);
    let name = match file.split('.').next() {
        Some("mod") | None => "invariants",
        Some(name) => name,
    };
    let by = if place.contains("invariants/") { "" } else { "an assertion in " };
    format!("{by}{name}")
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(140).collect()
}
