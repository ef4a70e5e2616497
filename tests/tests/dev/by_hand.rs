//! Nodes that their user starts in place of those that have ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::{PATIENCE, wait_until};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::running::{Dev, Ports, paste, process_of, processes_in, send};

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_ready_is_waited_for_at_the_end() -> Result<()> {
    let ports = Ports::reserve()?;
    let mut dev = Dev::start(&ports.flags())?;
    dev.until_begun().await?;
    let directory = dev.directory()?;
    for node in processes_in(&directory)? {
        send(node, Signal::KILL)?;
    }
    dev.until("0 of 3 nodes run").await?;
    // Alone it is no majority, so it is never ready.
    let mut by_hand = dev.start_by_hand(1).await?;
    let id = by_hand.id();
    wait_until(PATIENCE, "the node has its directory", async || uses(id, &directory)).await?;
    dev.signal(Signal::INT)?;
    ensure!(dev.end().await?.code() == Some(0), "{}", dev.printed());
    dev.until("which was started by hand, stops as well").await?;
    dev.until("stopped: nothing is left running").await?;
    ensure!(by_hand.wait()?.code() == Some(0), "it was stopped in good order");
    ensure!(!directory.exists(), "and only then its directory was deleted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_stop_is_named_and_keeps_its_data() -> Result<()> {
    let ports = Ports::reserve()?;
    let mut dev = Dev::start(&ports.flags())?;
    dev.until_begun().await?;
    let directory = dev.directory()?;
    paste(&dev.pasteable()?[2])?;
    let mut by_hand = dev.start_by_hand(1).await?;
    dev.until("serves again, started by hand").await?;
    send(by_hand.id(), Signal::STOP)?;
    dev.signal(Signal::INT)?;
    ensure!(dev.end().await?.code() == Some(1), "{}", dev.printed());
    let complaint = dev.complaint()?;
    ensure!(complaint.starts_with("kvd: what was started by hand still runs"), "{complaint}");
    ensure!(!dev.printed().contains("nothing is left running"), "{}", dev.printed());
    dev.until(&format!("the data stays in {}", directory.display())).await?;
    ensure!(directory.join("dev.json").exists());
    by_hand.kill()?;
    by_hand.wait()?;
    // Nobody uses it any more, and it was to be temporary.
    fs::remove_dir_all(directory)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_replaces_one_that_has_ended() -> Result<()> {
    let ports = Ports::reserve()?;
    let dev = Dev::start(&[&ports.flags()[..], &["--restart".to_owned()]].concat())?;
    dev.until_begun().await?;
    let directory = dev.directory()?;
    let mut by_hand = replace(&directory).await?;
    dev.until("serves again, started by hand").await?;
    // When it is the turn of `kvd dev`, it finds somebody there.
    let printed = dev.printed();
    let pause = printed.lines().rev().find_map(|line| line.split("it is started again in ").nth(1));
    let seconds: u64 =
        pause.and_then(|pause| pause.strip_suffix('s')?.parse().ok()).context("it says when")?;
    sleep(Duration::from_secs(seconds + 1)).await;
    ensure!(processes_in(&directory)?.contains(&by_hand.id()), "it was left alone");
    send(by_hand.id(), Signal::KILL)?;
    by_hand.wait()?;
    dev.until("has ended, which was started by hand").await?;
    let replaced = async || {
        let node = process_of(&directory, 0)?.context("node 0 does not run")?;
        uses(node, &directory)
    };
    wait_until(PATIENCE, "node 0 was started again", replaced).await?;
    dev.interrupt().await?;
    Ok(())
}

/// Kills node 0 and starts it by hand, until that was quicker than `kvd dev`, whose pauses grow.
async fn replace(directory: &Path) -> Result<Child> {
    loop {
        let runs = async || process_of(directory, 0)?.context("it does not run");
        let node = wait_until(PATIENCE, "node 0 runs", runs).await?;
        let line = String::from_utf8(fs::read(format!("/proc/{node}/cmdline"))?)?;
        let mut words = line.split_terminator('\0').filter(|&word| word != "--stop-with-stdin");
        send(node, Signal::KILL)?;
        let gone = async || {
            ensure!(process_of(directory, 0)? != Some(node), "it still runs");
            Ok(())
        };
        wait_until(PATIENCE, "node 0 has ended", gone).await?;
        let mut command = Command::new(words.next().context("a program")?);
        let mut by_hand = command.args(words).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let decided = async || match by_hand.try_wait()? {
            Some(_) => Ok(false),
            None => uses(by_hand.id(), directory).map(|()| true),
        };
        if wait_until(PATIENCE, "one of them has the directory", decided).await? {
            return Ok(by_hand);
        }
    }
}

/// Fails unless a process has its log below this directory open: then the lock on it is its own.
fn uses(process: u32, directory: &Path) -> Result<()> {
    let files = fs::read_dir(format!("/proc/{process}/fd"))?;
    let is_log = |path: PathBuf| path.starts_with(directory) && path.iter().any(|part| part == "log");
    let used = files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(is_log);
    ensure!(used, "process {process} uses no log in {}", directory.display());
    Ok(())
}
