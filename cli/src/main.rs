//! kvctl: the command line of quorumkv.
//!
//! Arguments are parsed as typed ([`args`]), then checked into what they mean ([`invocation`]); a [command](commands)
//! carries that out with the client library. Data goes to stdout ([`output`]), everything else to stderr, and the exit
//! code says how it ended ([`exit`]). `docs/kvctl.md` is the user's page.

mod args;
mod checkpoint;
mod commands;
mod exit;
mod invocation;
mod output;
mod records;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::Arguments;
use crate::exit::{Code, Failure};
use crate::invocation::Invocation;
use crate::output::Format;

/// Requests and answers are many small allocations; a quick allocator leaves more of a shared machine to the nodes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    let format = invocation::format(arguments.output);
    match Invocation::try_from(arguments).and_then(commands::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, format),
    }
}

/// Prints help or the version, or what is wrong with the command line.
fn not_understood(error: &clap::Error) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if !is_help && json_is_asked_for() {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        return report(&Failure::new(Code::Usage, message), Format::Json);
    }
    // Whoever has closed the stream does not want to read it.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Code::Usage as u8))
}

/// Whether a command line that could not be parsed asks for JSON.
fn json_is_asked_for() -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    let separate =
        |pair: &[std::ffi::OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    words.windows(2).any(separate) || words.iter().any(|word| word == "-ojson" || word == "--output=json")
}

fn report(failure: &Failure, format: Format) -> ExitCode {
    let Failure::Report(report) = failure else { return ExitCode::SUCCESS };
    let line = if format == Format::Json { report.json() } else { report.line() };
    // Without stderr, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(report.code as u8)
}
