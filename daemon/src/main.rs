//! `kvd`, the quorumkv daemon.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use kvd::config::Config;
use kvd::config::flags::{Command, CommandLine, Flags, LogFormat};
use kvd::dev::DevFlags;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Flags or settings that make no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) if error.use_stderr() => return fail(&one_line(&error), USAGE),
        Err(help) => help.exit(),
    };
    match line.command {
        Some(Command::Dev(flags)) => develop(flags),
        None => be_a_node(line.node, line.stop_with_stdin),
    }
}

/// Runs a cluster on this machine.
fn develop(flags: DevFlags) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), 1),
    };
    match runtime.block_on(kvd::dev::run(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), if error.is_usage() { USAGE } else { 1 }),
    }
}

/// Runs one node.
fn be_a_node(flags: Flags, stop_with_stdin: bool) -> ExitCode {
    let config = match Config::from_flags(flags) {
        Ok(config) => config,
        Err(error) => return fail(&error.to_string(), USAGE),
    };
    let filter = match EnvFilter::try_new(filter(&config.log)) {
        Ok(filter) => filter,
        Err(error) => return fail(&format!("--log {:?} is no filter: {error}", config.log), USAGE),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written (a full disk, a pipe without a reader) is no reason for a node to end.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match config.log_format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
    if stop_with_stdin && let Err(error) = kvd::dev::stop_with_stdin() {
        return fail(&format!("cannot start: {error}"), 1);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), 1),
    };
    match runtime.block_on(kvd::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), 1),
    }
}

/// A level alone is meant for kvd; of the libraries under it only what goes wrong is of interest then, and nothing at
/// all of the ZooKeeper client, whose troubles kvd reports itself.
fn filter(log: &str) -> String {
    match log.parse::<tracing_subscriber::filter::LevelFilter>() {
        Ok(level) => format!("warn,zookeeper_client=off,kvd={level},quorumkv_wal={level}"),
        Err(_) => log.to_owned(),
    }
}

/// What clap says in several paragraphs.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let words: Vec<&str> = text.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ").replace(" Usage: ", "; usage: ").replace(" For more information, ", "; for more, ")
}

fn fail(reason: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "kvd: {reason}");
    ExitCode::from(code)
}
