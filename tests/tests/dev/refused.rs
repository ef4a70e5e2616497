//! What cannot be: told in one line, with nothing left behind.

use std::net::TcpListener;
use std::process::Output;

use anyhow::{Result, ensure};

use crate::running::{Dev, Ports, command_that_survives_limits, run};

/// Checks that `kvd dev` does not start, with this exit code, and says why in one line with all these words.
fn expect_refusal(arguments: &[String], code: i32, words: &[&str]) -> Result<()> {
    refuses(&run(arguments)?, arguments, code, words)
}

fn refuses(output: &Output, arguments: &[String], code: i32, words: &[&str]) -> Result<()> {
    let reason = String::from_utf8(output.stderr.clone())?;
    ensure!(output.status.code() == Some(code), "{arguments:?} ended with {}: {reason}", output.status);
    ensure!(reason.lines().count() == 1 && reason.starts_with("kvd: "), "{arguments:?}: {reason}");
    for word in words {
        ensure!(reason.contains(word), "{word:?} is not in {reason}");
    }
    Ok(())
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_behind() -> Result<()> {
    let (ports, place) = (Ports::reserve()?, tempfile::tempdir()?);
    let directory = place.path().join("cluster");
    let [base_port, keeper_port] = ports.flags();
    let arguments = [base_port, keeper_port, format!("--data-dir={}", directory.display())];
    for (port, remedy) in [
        (ports.node(1), "--base-port"),
        (ports.node(2) + 1000, "--base-port"),
        (ports.keeper(), "--zookeeper"),
    ] {
        let _taken = TcpListener::bind(("127.0.0.1", port))?;
        expect_refusal(&arguments, 1, &[&format!("127.0.0.1:{port}"), remedy])?;
        ensure!(!directory.exists(), "the directory was made for nothing");
    }
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let place = tempfile::tempdir()?;
    std::fs::write(place.path().join("letter.txt"), "dear")?;
    let foreign = format!("--data-dir={}", place.path().display());
    for (arguments, code, words) in [
        (vec!["--nodes=0"], 2, "--nodes must be"),
        (vec!["--nodes=many"], 2, "'many'"),
        (vec!["--base-port=65000"], 2, "--base-port must be"),
        (vec!["--keeper-port=5001"], 2, "--keeper-port"),
        (vec!["--zookeeper=a:b"], 2, "--zookeeper"),
        (vec!["--zookeeper=127.0.0.1", "--keeper-port=7"], 2, "cannot be used with"),
        (vec!["--port=5000"], 2, "--port"),
        (vec![foreign.as_str()], 1, "no directory of kvd dev"),
    ] {
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        expect_refusal(&arguments, code, &[words])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_fails_leaves_a_directory_for_the_next() -> Result<()> {
    let (ports, place) = (Ports::reserve()?, tempfile::tempdir()?);
    // One that has to be made, and one that is there and empty.
    let directory = place.path().join("cluster");
    for exists in [false, true] {
        if exists {
            std::fs::create_dir(&directory)?;
        }
        let [base_port, keeper_port] = ports.flags();
        let arguments = [base_port, keeper_port, format!("--data-dir={}", directory.display())];
        // The keeper's log does not fit into files of 100 KiB.
        let failed = command_that_survives_limits(&arguments, "ulimit -f 200;")?.output()?;
        refuses(&failed, &arguments, 1, &["the keeper does not start", "File too large"])?;
        ensure!(directory.exists() == exists, "a directory that was made goes again");
        let dev = Dev::start(&arguments)?;
        dev.until_begun().await?;
        dev.interrupt().await?;
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(())
}
