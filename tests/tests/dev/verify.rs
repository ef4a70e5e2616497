//! `kvctl verify` pauses and kills nodes of `kvd dev`, and all is well again afterwards.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::kvctl_binary;
use rustix::process::Signal;
use serde_json::Value;

use crate::running::{Dev, Ports, command_with_mutant, process_of, processes_in, send};

/// kvctl at these nodes.
fn kvctl(ports: &Ports, arguments: &[&str]) -> Result<Command> {
    let endpoints: Vec<String> = (0..3).map(|i| format!("127.0.0.1:{}", ports.node(i))).collect();
    let mut command = Command::new(kvctl_binary()?);
    command.args(arguments).env("KVCTL_ENDPOINTS", endpoints.join(",")).stdin(Stdio::null());
    command.current_dir(std::env::temp_dir());
    Ok(command)
}

async fn run(ports: &Ports, arguments: &[&str]) -> Result<Output> {
    let mut command = kvctl(ports, arguments)?;
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_linearizable_while_nodes_are_paused_and_killed() -> Result<()> {
    let (ports, place) = (Ports::reserve()?, tempfile::tempdir()?);
    // It does not start nodes again otherwise.
    let dev = Dev::start(&ports.flags())?;
    dev.until_begun().await?;
    let html = place.path().join("violation.html");
    let html = html.to_str().context("a path of text")?;
    let ran = run(&ports, &["verify", "--chaos", "--seconds", "12", "--html", html, "-o", "json"]).await?;
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(ran.status.code() == Some(0), "{told}\n{}", String::from_utf8_lossy(&ran.stdout));
    let json: Value = serde_json::from_slice(&ran.stdout)?;
    let faults = ["pauses", "kills"].map(|kind| json["chaos"][kind].as_u64().unwrap_or_default());
    ensure!(faults.iter().sum::<u64>() > 0, "{json}");
    ensure!(json["verdict"] == "holds" && json["cleaned_up"] == true, "{json}");
    dev.until("ceased to pause and kill").await?;
    ensure!(processes_in(&dev.directory()?)?.len() == 3, "all nodes run again");
    let scan = run(&ports, &["scan", "kvctl-verify/"]).await?;
    ensure!(scan.status.success() && scan.stdout.is_empty(), "keys are left");
    // Whoever kills a node now has to start it again, as before.
    let node = process_of(&dev.directory()?, 0)?.context("it runs")?;
    send(node, Signal::KILL)?;
    let mut by_hand = dev.start_by_hand(1).await?;
    dev.until("serves again, started by hand").await?;
    send(by_hand.id(), Signal::TERM)?;
    by_hand.wait()?;
    dev.interrupt().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_nodes_wake_up_although_kvctl_was_killed() -> Result<()> {
    let ports = Ports::reserve()?;
    let dev = Dev::start(&ports.flags())?;
    dev.until_begun().await?;
    let mut verify = kvctl(&ports, &["verify", "--chaos", "--seconds", "600"])?;
    let mut verify = verify.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    dev.until("pauses and kills nodes from here on").await?;
    verify.kill()?;
    verify.wait()?;
    dev.until("ceased to pause and kill").await?;
    for i in 0..3 {
        let process = async || process_of(&dev.directory()?, i)?.context("it is down");
        let process =
            quorumkv_tests::cluster::wait_until(quorumkv_tests::cluster::PATIENCE, "the node runs", process)
                .await?;
        let state = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        ensure!(!state.contains(") T "), "node {i} is still paused");
    }
    let again = run(&ports, &["verify", "--seconds", "1", "-o", "json"]).await?;
    ensure!(again.status.code() == Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    dev.interrupt().await?;
    Ok(())
}

/// Each node answers reads from what it holds itself, as if that were a quorum.
#[tokio::test(flavor = "multi_thread")]
async fn a_bug_in_the_read_rule_is_found_and_shown() -> Result<()> {
    let (ports, place) = (Ports::reserve()?, tempfile::tempdir()?);
    let dev = Dev::spawn(command_with_mutant("read-local-only", &ports.flags())?)?;
    dev.until_begun().await?;
    let page = place.path().join("violation.html");
    let html = page.to_str().context("a path of text")?;
    let ran = run(&ports, &["verify", "--seconds", "10", "--html", html, "-o", "json"]).await?;
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(ran.status.code() == Some(10), "{:?}: {told}", ran.status);
    let json: Value = serde_json::from_slice(&ran.stdout)?;
    ensure!(json["verdict"] == "violation" && json["cleaned_up"] == true, "{json}");
    let shown = std::fs::read_to_string(&page)?;
    ensure!(shown.contains("<svg"), "the page shows no operations");
    dev.interrupt().await?;
    Ok(())
}
