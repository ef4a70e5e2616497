//! Real clients, unchanged, with the same script for Apache ZooKeeper and for keeperd.

mod c;
mod command_line;
mod kazoo;
mod rust;

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a command to its end; what it printed is in the error, or returned. `needs` says what to install if it is missing.
fn run(command: &mut Command, needs: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {:?}: {needs}", command.get_program()))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}; {needs}\n{stdout}\n{stderr}", output.status);
    Ok(stdout.into_owned())
}
