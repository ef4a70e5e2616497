//! ZooKeeper's own command line, in Java: what it prints of keeperd must be what it prints of Apache ZooKeeper.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use quorumkv_tests::zookeeper::image;

use crate::servers::{Kind, Server};

/// One command a line.
const COMMANDS: &str = include_str!("zkcli.txt");
/// Runs it in the official image and in ours.
const RUN: &str = "if command -v zkCli.sh >/dev/null; then exec zkCli.sh -server \"$0\" 2>&1; fi; \
    exec java -Dorg.slf4j.simpleLogger.defaultLogLevel=off -cp '/zk/*' \
    org.apache.zookeeper.ZooKeeperMain -server \"$0\" 2>&1";

#[test]
fn the_command_line_prints_the_same_of_keeper_as_of_apache_zookeeper() -> Result<()> {
    let (apache, keeper) = (Server::apache()?, Server::keeper()?);
    let (expected, found) = (session(&apache)?, session(&keeper)?);
    // That it has done what it was asked for at all.
    for line in
        ["Created /cli/n-0000000001", "[/cli/es-0000000003]", "'digest,'ann:grDcJ7OS1jCu/cG2TyJHw/I9L8o="]
    {
        ensure!(found.replies.iter().any(|reply| reply == line), "{line} is missing in {found:#?}");
    }
    ensure!(found.events.len() >= 8, "{:#?}", found.events);
    // Before 3.9 the server's watches had other rules; the command line is the same age as the server.
    if apache.kind != Kind::Old {
        compare(&expected.events, &found.events)?;
        compare(&expected.replies, &found.replies)?;
    }
    Ok(())
}

fn compare(expected: &[String], found: &[String]) -> Result<()> {
    let differs = expected.iter().zip(found).position(|(expected, found)| expected != found);
    let differs =
        differs.or_else(|| (expected.len() != found.len()).then(|| expected.len().min(found.len())));
    if let Some(at) = differs {
        let from = at.saturating_sub(5);
        let part = |lines: &[String]| lines[from.min(lines.len())..(at + 3).min(lines.len())].join("\n");
        anyhow::bail!("line {at} differs; expected\n{}\n\nfound\n{}", part(expected), part(found));
    }
    Ok(())
}

/// What has been printed. Watch events come when they come, and so are kept apart.
#[derive(Debug)]
struct Printed {
    replies: Vec<String>,
    events: Vec<String>,
}

fn session(server: &Server) -> Result<Printed> {
    let mut command = Command::new("docker");
    command.args(["run", "--interactive", "--rm", "--network=host", "--entrypoint=sh", &image()?, "-c", RUN]);
    command.arg(&server.address).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().context("run docker")?;
    process.stdin.take().context("a pipe")?.write_all(COMMANDS.as_bytes())?;
    let output = process.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{}: {text}", output.status);
    let lines = text.lines().map(|line| shown(line, server)).filter(|line| !line.is_empty());
    let (events, replies) = lines.partition(|line| line.starts_with("WatchedEvent"));
    Ok(Printed { replies, events })
}

/// A line without what differs between two servers: addresses, transactions, times, the order of lists; and without what
/// the official image logs.
fn shown(line: &str, server: &Server) -> String {
    let is_noise = line == "WATCHER::" || line.starts_with("Connecting to") || line.starts_with("JLine");
    let is_logged = line.get(..4).is_some_and(|year| year.starts_with("20") && year.parse::<u32>().is_ok());
    if is_noise || is_logged {
        return String::new();
    }
    if let Some(list) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
        let mut names: Vec<&str> = list.split(", ").collect();
        names.sort_unstable();
        return format!("[{}]", names.join(", "));
    }
    for prefix in ["cZxid = ", "mZxid = ", "pZxid = ", "ctime = ", "mtime = ", "ip: "] {
        if line.starts_with(prefix) {
            return prefix.to_owned();
        }
    }
    // An owner is a session; that there is none is the same everywhere.
    match line.strip_prefix("ephemeralOwner = ") {
        Some(owner) if owner != "0x0" => return "ephemeralOwner = somebody".to_owned(),
        _ => {}
    }
    line.split(" zxid: ").next().unwrap_or_default().replace(&server.address, "server")
}
