//! Making a new cluster from what is left of an old one. The daemon knows its own files, so it does that: `kvd recover`.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::exit::{Code, Failure};
use crate::invocation::Recovery;
use crate::output::{Format, Output};

pub(crate) fn run(recovery: &Recovery, output: &mut Output) -> Result<(), Failure> {
    let Recovery { directories, to, address, dry_run, force } = recovery;
    let kvd = daemon();
    let mut command = Command::new(&kvd);
    command.arg("recover").args(directories).arg("--to").arg(to).arg("--address").arg(address.as_str());
    command.args(dry_run.then_some("--dry-run")).args(force.then_some("--force"));
    command.args((output.format == Format::Json).then_some("--json"));
    // It tells people how far it is on stderr. To programs, what went wrong is told as everywhere.
    let is_for_programs = output.format == Format::Json;
    command.stdin(Stdio::null()).stderr(if is_for_programs { Stdio::piped() } else { Stdio::inherit() });
    let ended = command.output().map_err(|error| {
        Failure::io(&format!("run {}", kvd.display()), &error)
            .advise("kvd must be beside kvctl, or in PATH: it knows its own files")
    })?;
    output.bytes(&ended.stdout)?;
    let code = match ended.status.code() {
        Some(0) => return Ok(()),
        Some(code) if code == Code::Usage as i32 => Code::Usage,
        Some(code) if code == Code::PreconditionFailed as i32 => Code::PreconditionFailed,
        _ => Code::Other,
    };
    if !is_for_programs {
        return Err(Failure::Told(code));
    }
    let told = String::from_utf8_lossy(&ended.stderr);
    Err(Failure::new(code, told.trim().trim_start_matches("kvd: ")).advise("see `kvctl recover --help`"))
}

/// The daemon's program: beside this one, or else wherever the system finds it.
fn daemon() -> PathBuf {
    let name = OsStr::new("kvd");
    let beside = env::current_exe().ok().map(|program| program.with_file_name(name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}
