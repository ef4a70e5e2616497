//! Explores a model of chosen size, and tells how it goes on.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use quorumkv_model::checker::{Verdict, explore};
use quorumkv_model::config::{Bug, Config, Reads, Start};
use quorumkv_model::report::grouped;

/// What this ends with when a property does not hold.
const VIOLATION: u8 = 10;

/// The same if there are more states than it was to explore.
const UNFINISHED: u8 = 7;

/// Explore all states of a small model of the protocol.
///
/// Ends with 0 if all properties hold in all of them, with 10 and the shortest counterexample if one does not (with --bug, that is what it
/// is for), and with 7 if there are more states than --states.
#[derive(Parser, Debug)]
struct Arguments {
    /// Replicas, up to 4.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Epochs that are ever opened, up to 4.
    #[arg(long, default_value_t = 2)]
    epochs: u8,
    /// Writes of clients, all of one key.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    writes: u8,
    /// Where all begins.
    #[arg(long, value_enum, default_value_t = Start::Empty)]
    start: Start,
    /// Which reads there are.
    #[arg(long, value_enum, default_value_t = Reads::Sampled)]
    reads: Reads,
    /// Replicas do not crash, so everything is durable at once.
    #[arg(long)]
    no_crashes: bool,
    /// Replace a rule by a wrong one.
    #[arg(long, value_enum)]
    bug: Option<Bug>,
    /// Answers that a read needs; a majority unless said otherwise.
    #[arg(long)]
    read_quorum: Option<usize>,
    /// Votes that commit; a majority unless said otherwise.
    #[arg(long)]
    write_quorum: Option<usize>,
    /// Stop after a depth with more states than this. A hundred million need about 6 GiB.
    #[arg(long, default_value_t = 100_000_000)]
    states: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual = Config::new(arguments.nodes, arguments.epochs, arguments.writes);
    let config = Config {
        start: arguments.start,
        reads: arguments.reads,
        crashes: !arguments.no_crashes,
        bug: arguments.bug,
        read_quorum: arguments.read_quorum.unwrap_or(usual.read_quorum),
        write_quorum: arguments.write_quorum.unwrap_or(usual.write_quorum),
        ..usual
    };
    let explored = explore(config, arguments.states, |progress| {
        eprintln!(
            "depth {:>2}: {:>13} states, {:>12} to explore, {:.0} s",
            progress.depth,
            grouped(progress.states as u64),
            grouped(progress.frontier as u64),
            progress.took.as_secs_f64()
        );
    });
    let outcome = explored.unwrap_or_else(|error| {
        Arguments::command()
            .error(ErrorKind::ValueValidation, format!("there is no such model: {error}"))
            .exit()
    });
    println!("{outcome}");
    println!("{}", outcome.events_line());
    match &outcome.verdict {
        Verdict::Holds => ExitCode::SUCCESS,
        Verdict::Unfinished => ExitCode::from(UNFINISHED),
        Verdict::Violated(counterexample) => {
            println!("{counterexample}");
            ExitCode::from(VIOLATION)
        }
    }
}
