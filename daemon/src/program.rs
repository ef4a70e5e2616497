//! What the program `kvd` does: its command line, and how it ends.

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use quorumkv_keeper::process::{
    USAGE, arguments, fail, frugal_runtime, log_to_stderr, raise_file_limit, runtime, warn_of_variables,
};

use crate::config::Config;
use crate::config::flags::{Command, CommandLine};
use crate::dev::DevFlags;
use crate::recover::RecoverFlags;

const NAME: &str = "kvd";

/// Runs the program, with the arguments that it was given.
#[must_use]
pub fn main() -> ExitCode {
    start().unwrap_or_else(|code| code)
}

fn start() -> Result<ExitCode, ExitCode> {
    let matches = arguments(NAME, CommandLine::command())?;
    let line = CommandLine::from_arg_matches(&matches).expect("they are of this very command");
    match line.command {
        Some(Command::Dev(flags)) => develop(flags),
        Some(Command::Recover(flags)) => recover(&flags),
        None => be_a_node(&matches, line.stop_with_stdin),
    }
}

/// Runs a cluster on this machine.
fn develop(flags: DevFlags) -> Result<ExitCode, ExitCode> {
    let ended = runtime(NAME)?.block_on(crate::dev::run(flags));
    ended.map_err(|error| fail(NAME, &error.to_string(), if error.is_usage() { USAGE } else { 1 }))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a new cluster from what is left of an old one.
fn recover(flags: &RecoverFlags) -> Result<ExitCode, ExitCode> {
    let ended = crate::recover::run(flags);
    ended.map_err(|error| fail(NAME, &error.to_string(), error.exit_code()))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs one node.
fn be_a_node(matches: &ArgMatches, stop_with_stdin: bool) -> Result<ExitCode, ExitCode> {
    let usage = |reason: &str| fail(NAME, reason, USAGE);
    let config = Config::from_matches(matches).map_err(|error| usage(&error.to_string()))?;
    // Of the ZooKeeper client's troubles kvd reports what matters itself.
    log_to_stderr(&config.log, config.log_format, &["kvd", "quorumkv_wal"], &["zookeeper_client"])
        .map_err(|error| usage(&error))?;
    warn_of_variables("KVD_", &CommandLine::command());
    warn_of_few_files(config.max_connections);
    if stop_with_stdin {
        crate::dev::stop_with_stdin().map_err(|error| fail(NAME, &format!("cannot start: {error}"), 1))?;
    }
    // As a task among the others it gets its turn as they do, also where all share one thread.
    let ended = frugal_runtime(NAME)?.block_on(async { tokio::spawn(crate::run(config)).await });
    let ended = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    ended.map_err(|error| fail(NAME, &error.to_string(), error.exit_code()))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the system for as many open files as it permits, since each connection is one, and says so if they are too few.
fn warn_of_few_files(max_connections: usize) {
    // Besides connections of clients: the log, the state, other nodes, connections that have not said Hello yet.
    const OTHER_FILES: u64 = 2048;
    let needed = max_connections as u64 + OTHER_FILES;
    if let Some(files) = raise_file_limit().filter(|files| *files < needed) {
        tracing::warn!(
            "only {files} files may be open, and {needed} may be needed: raise the limit (ulimit -n)"
        );
    }
}
