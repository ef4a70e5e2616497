//! kazoo, the Python client, from PyPI.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

use super::run;
use crate::servers::Server;

/// The version that is tested.
const KAZOO: &str = "kazoo==2.11.0";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keeper/clients/conformance.py");
const NEEDS: &str = "install python3 and python3-venv, and have PyPI within reach";

#[test]
fn kazoo_works_with_apache_zookeeper() -> Result<()> {
    conforms(&Server::apache()?)
}

#[test]
fn kazoo_works_with_keeper() -> Result<()> {
    conforms(&Server::keeper()?)
}

fn conforms(server: &Server) -> Result<()> {
    let printed = run(Command::new(python()?).arg(SCRIPT).arg(&server.address), NEEDS)?;
    ensure!(printed.ends_with("all passed\n"), "{printed}");
    Ok(())
}

/// A Python that has kazoo: made once, in cargo's directory for such things.
fn python() -> Result<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(KAZOO);
    let python = environment.join("bin/python");
    let is_made = Command::new(&python).args(["-c", "import kazoo"]).output();
    if !is_made.is_ok_and(|output| output.status.success()) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment), NEEDS)?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", KAZOO]), NEEDS)?;
    }
    Ok(python)
}
