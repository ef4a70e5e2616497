//! `sim`: runs simulated clusters.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use quorumkv_simulator::{Reduction, Trace};

/// Most of the time goes into small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod many;
#[cfg(feature = "mutants")]
mod mutants;

/// Simulates clusters of quorumkv under faults, one from each seed.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  sim --seeds 20000\n  sim replay 4447"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    many: many::Many,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed and tell what happens.
    Replay(Replay),
    /// Switch on one deliberate bug after the other, and see whether it is found.
    #[cfg(feature = "mutants")]
    Mutants(mutants::Mutants),
}

#[derive(Args)]
struct Replay {
    /// The seed.
    seed: u64,
    /// Make the run smaller first, if it fails: fewer faults, fewer clients, fewer steps.
    #[arg(long)]
    shrink: bool,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    match cli.command {
        None => cli.many.run(),
        Some(Command::Replay(replay)) => Ok(replay.run()),
        #[cfg(feature = "mutants")]
        Some(Command::Mutants(mutants)) => mutants.run(),
    }
}

impl Replay {
    fn run(&self) -> ExitCode {
        let reduction = if self.shrink { many::smaller(self.seed) } else { Reduction::default() };
        match quorumkv_simulator::run(self.seed, &reduction, Trace::Print) {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("{failure}");
                ExitCode::from(10)
            }
        }
    }
}
