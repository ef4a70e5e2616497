//! What the programs of this project have in common as processes: how they log, and how they say what is wrong.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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

/// Logs to stderr from now on. A level alone is meant for `own`, the program's own crates; of the libraries under it only
/// what goes wrong is of interest then.
///
/// # Errors
/// What is wrong with the filter, for people.
///
/// # Panics
/// If the process logs already.
pub fn log_to_stderr(filter: &str, own: &[&str], format: LogFormat) -> Result<(), String> {
    let text = match filter.parse::<LevelFilter>() {
        Ok(level) => own.iter().fold("warn".to_owned(), |text, name| text + &format!(",{name}={level}")),
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

/// In one line what clap says in several paragraphs.
#[must_use]
pub fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let words: Vec<&str> = text.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ").replace(" Usage: ", "; usage: ").replace(" For more information, ", "; for more, ")
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
