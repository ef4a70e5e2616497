//! kvctl: the command line of quorumkv.
//!
//! Arguments are parsed as typed ([`args`]), then checked into what they mean ([`invocation`]); a [command](commands)
//! carries that out with the client library. Data goes to stdout ([`output`]), everything else to stderr, and the exit
//! code says how it ended ([`exit`]). `docs/kvctl.md` is the user's page.

mod args;
mod checkpoint;
mod commands;
mod exit;
#[cfg(test)]
mod fuzz;
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
    if !is_help {
        let format = if json_is_asked_for() { Format::Json } else { Format::Table };
        return report(&misuse(&error.render().to_string()), format);
    }
    // Whoever has closed the stream does not want to read it.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Code::Usage as u8))
}

/// What the parser says in several paragraphs, in one line: the problem and its tips, and the usage as advice.
fn misuse(rendered: &str) -> Failure {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = rendered.split("For more information").next().unwrap_or_default();
    let (problem, usage) = text.split_once("Usage: ").unwrap_or((text, ""));
    let failure = Failure::new(Code::Usage, words(problem.trim_start_matches("error: ")));
    // Each way to use the command stands on a line of its own.
    let ways: Vec<_> = usage.lines().map(words).filter(|way| !way.is_empty()).collect();
    if ways.is_empty() { failure } else { failure.advise(format!("usage: {}", ways.join(", or "))) }
}

/// Whether a command line that could not be parsed asks for JSON.
fn json_is_asked_for() -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    let separate =
        |pair: &[std::ffi::OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    let together = ["-ojson", "-o=json", "--output=json"];
    words.windows(2).any(separate) || words.iter().any(|word| together.iter().any(|asked| word == asked))
}

fn report(failure: &Failure, format: Format) -> ExitCode {
    let report = match failure {
        Failure::ReaderGone => return ExitCode::SUCCESS,
        Failure::Told(code) => return ExitCode::from(*code as u8),
        Failure::Report(report) => report,
    };
    let line = if format == Format::Json { report.json() } else { report.line() };
    // Without stderr, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(report.code as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> String {
        let error = Arguments::try_parse_from(words).expect_err("the command line is wrong");
        let Failure::Report(report) = misuse(&error.render().to_string()) else {
            panic!("nothing is reported")
        };
        assert_eq!(report.code, Code::Usage);
        report.line()
    }

    #[test]
    fn a_wrong_command_line_is_told_in_one_line() {
        for (words, parts) in [
            (
                &["kvctl", "put"][..],
                &["<KEY>", "usage: kvctl put", "<VALUE|->, or kvctl put", "--file <FILE>"][..],
            ),
            (&["kvctl", "putt", "a", "b"], &["'putt'", "'put'", "usage: kvctl"]),
            (&["kvctl", "get", "k", "--consistency", "weak"], &["'weak'", "quorum", "local"]),
            (&["kvctl", "status", "--timeout", "never"], &["'never'", "--timeout"]),
        ] {
            let line = line(words);
            assert!(!line.contains('\n') && !line.contains("error:"), "{line}");
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        }
    }
}
