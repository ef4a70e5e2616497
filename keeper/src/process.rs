//! What the programs of this project have in common as processes: how they read their command line, how they log, and how
//! they say what is wrong.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{ArgMatches, Command, ValueEnum};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::settings::unknown_variables;

/// The exit code for flags or settings that make no sense.
pub const USAGE: u8 = 2;

/// How log lines look.
#[derive(ValueEnum, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What the program was told on its command line; or else the exit code, with everything said.
///
/// # Errors
/// The exit code for a command line that makes no sense.
pub fn arguments(program: &str, command: Command) -> Result<ArgMatches, ExitCode> {
    match command.try_get_matches() {
        Ok(matches) => Ok(matches),
        Err(error) if error.use_stderr() => Err(fail(program, &one_line(&error), USAGE)),
        Err(help) => help.exit(),
    }
}

/// Up to so many cores, a server whose work meets in one task is faster with all of it on one thread: the log's thread and
/// the clients have the other core, and nobody waits to be woken (docs/performance.md).
const FEW_CORES: usize = 2;

/// A runtime with a thread for each core; or else the exit code, with everything said.
///
/// # Errors
/// The exit code for a system that has no thread to give.
pub fn runtime(program: &str) -> Result<Runtime, ExitCode> {
    build(program, Builder::new_multi_thread())
}

/// The same, but with a single thread where there are few cores.
///
/// # Errors
/// The exit code for a system that has no thread to give.
pub fn frugal_runtime(program: &str) -> Result<Runtime, ExitCode> {
    let cores = std::thread::available_parallelism().map_or(FEW_CORES, Into::into);
    build(
        program,
        if cores <= FEW_CORES { Builder::new_current_thread() } else { Builder::new_multi_thread() },
    )
}

fn build(program: &str, mut builder: Builder) -> Result<Runtime, ExitCode> {
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| fail(program, &format!("cannot start: {error}"), 1))
}

/// Logs to stderr from now on. A level alone is meant for `own`, the program's own crates; of the libraries under it only
/// what goes wrong is of interest then, and nothing at all of those in `silent`.
///
/// # Errors
/// What is wrong with the filter, for people.
///
/// # Panics
/// If the process logs already.
pub fn log_to_stderr(filter: &str, format: LogFormat, own: &[&str], silent: &[&str]) -> Result<(), String> {
    let text = match filter.parse::<LevelFilter>() {
        Ok(level) => {
            let own = own.iter().map(|name| format!(",{name}={level}"));
            let silent = silent.iter().map(|name| format!(",{name}=off"));
            "warn".to_owned() + &own.chain(silent).collect::<String>()
        }
        Err(_) => filter.to_owned(),
    };
    let env_filter =
        EnvFilter::try_new(text).map_err(|error| format!("--log {filter:?} is no filter: {error}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(env_filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written (a full disk, a pipe without a reader) is no reason to end.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Logs which variables of the environment look like settings of this program, and are none.
pub fn warn_of_variables(prefix: &str, command: &Command) {
    let environment = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in unknown_variables(prefix, command, environment) {
        tracing::warn!("the variable {name} means nothing here (see --help)");
    }
}

/// In one line what clap says in several paragraphs.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let words: Vec<&str> = text.trim_start_matches("error: ").split_whitespace().collect();
    [(" tip: ", "; tip: "), (" Usage: ", "; usage: "), (" For more information, ", "; for more, ")]
        .iter()
        .fold(words.join(" "), |line, (paragraph, part)| line.replace(paragraph, part))
}

/// Says on stderr, in one line, why the program ends.
pub fn fail(program: &str, reason: &str, code: u8) -> ExitCode {
    // Nobody may be reading any more; that is no reason to end in another way.
    let _ = writeln!(std::io::stderr(), "{program}: {reason}");
    ExitCode::from(code)
}

/// Lets the process have as many open files as the system permits it, and says how many that are.
pub fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    // What cannot be raised stays as it is: connections beyond it will have to wait.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before });
    getrlimit(Resource::Nofile).current
}
