//! Lets everything go wrong that can, for as long as one likes, and checks that nothing comes of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use quorumkv_chaos::run::{Options, run};

/// What this ends with when something is wrong with the cluster.
const VIOLATION: u8 = 10;

/// The same when it was ended before its time (Ctrl-C, SIGTERM), and nothing was wrong until then.
const INTERRUPTED: u8 = 130;

/// Faults unless it is said how many, or for how long.
const FAULTS: u64 = 60;

/// Real kvd processes and ZooKeepers under real faults: killed and frozen processes, cut networks, bad disks, wrong clocks,
/// changing members. Everything that clients ask and hear is recorded and checked. Needs root and Docker.
///
/// Ends with 0 if nothing is wrong, with 10 if something is wrong with the cluster, with 1 if the faults could not be made, and with 130 if
/// it was interrupted. Builds kvd and kvctl first, unless KVD_BIN and KVCTL_BIN name them.
#[derive(Parser, Debug)]
#[command(name = "chaos", max_term_width = 110)]
struct CommandLine {
    /// End after so many faults [default: 60, unless a time is given]
    #[arg(long)]
    faults: Option<u64>,
    /// End after so many minutes
    #[arg(long, value_parser = time)]
    minutes: Option<f64>,
    /// End after so many hours
    #[arg(long, value_parser = time, conflicts_with = "minutes")]
    hours: Option<f64>,
    /// Decides which faults happen when [default: a new one, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Nodes that form the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// How to print the summary
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Write the history to this file, an operation a line in JSON
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Where to write a page that shows a violation
    #[arg(long, value_name = "FILE", default_value = "chaos-violation.html")]
    page: PathBuf,
}

/// Forms of the summary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum Output {
    /// Tables, for people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let line = CommandLine::parse();
    let minutes = line.minutes.or(line.hours.map(|hours| hours * 60.0));
    let duration = minutes.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0)).transpose()?;
    let options = Options {
        nodes: usize::from(line.nodes),
        seed: line.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        faults: line.faults.or(duration.is_none().then_some(FAULTS)),
        duration,
        history: line.history,
        page: line.page,
    };
    let report = run(&options).await?;
    match line.output {
        Output::Table => println!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    if !report.is_good() {
        return Ok(ExitCode::from(VIOLATION));
    }
    if report.interrupted {
        eprintln!("interrupted after {} faults", report.faults);
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// A number of minutes or hours, up to a year of the latter.
fn time(text: &str) -> Result<f64, String> {
    let time = text.parse().ok().filter(|time| *time > 0.0 && *time < 8766.0);
    time.ok_or_else(|| "a time is above zero, and less than 8766".to_owned())
}
