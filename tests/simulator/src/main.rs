//! `sim`: runs simulated clusters.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser};
use quorumkv_simulator::{Reduction, Trace};

mod many;
#[cfg(feature = "mutants")]
mod mutants;

/// Most of the time goes into small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates clusters of quorumkv under faults, one from each seed. Ends with 10 if something went wrong.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  sim                  the seeds from 0 to 3999\n  sim --years 0.1      as many as that takes\n  sim 4447             one seed, with all that happens"
)]
struct Cli {
    #[cfg(feature = "mutants")]
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    story: Story,
    #[command(flatten)]
    many: many::Many,
}

#[cfg(feature = "mutants")]
#[derive(clap::Subcommand)]
enum Command {
    /// Switch on one deliberate bug after the other, and see whether it is found.
    Mutants(mutants::Mutants),
}

#[derive(Args)]
struct Story {
    /// Run this seed and tell what happens. If it fails the run is made smaller first: fewer faults, clients and steps.
    seed: Option<u64>,
    /// Do not make a failing run smaller.
    #[arg(long, requires = "seed")]
    whole: bool,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    #[cfg(feature = "mutants")]
    if let Some(Command::Mutants(mutants)) = cli.command {
        return mutants.run();
    }
    match cli.story.seed {
        Some(seed) => Ok(cli.story.tell(seed)),
        None => cli.many.run(),
    }
}

impl Story {
    fn tell(&self, seed: u64) -> ExitCode {
        let whole = Reduction::default();
        let fails = !self.whole && quorumkv_simulator::run(seed, &whole, Trace::Off).is_err();
        let reduction = if fails { many::smaller(seed) } else { whole };
        let (end, code) = match quorumkv_simulator::run(seed, &reduction, Trace::Print) {
            Ok(summary) => (summary.to_string(), ExitCode::SUCCESS),
            Err(failure) => (failure.to_string(), ExitCode::from(10)),
        };
        // Whoever reads it may have seen enough.
        let _ = writeln!(std::io::stdout(), "{end}");
        code
    }
}
