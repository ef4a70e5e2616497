//! The C client, from Debian's packages.

use std::process::Command;

use anyhow::{Result, ensure};

use super::run;
use crate::servers::Server;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keeper/clients/conformance.c");
const NEEDS: &str = "install gcc, libc6-dev and libzookeeper-mt-dev";

#[test]
fn the_c_client_works_with_apache_zookeeper() -> Result<()> {
    conforms(&Server::apache()?)
}

#[test]
fn the_c_client_works_with_keeper() -> Result<()> {
    conforms(&Server::keeper()?)
}

fn conforms(server: &Server) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("conformance");
    let mut compile = Command::new("cc");
    compile.args(["-Wall", "-Wextra", "-Werror", "-DTHREADED", SOURCE, "-lzookeeper_mt", "-lpthread", "-o"]);
    run(compile.arg(&program), NEEDS)?;
    let printed = run(Command::new(&program).arg(&server.address), NEEDS)?;
    ensure!(printed == "all passed\n", "{printed}");
    Ok(())
}
