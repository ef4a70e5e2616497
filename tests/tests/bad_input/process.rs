//! A `kvd` that is expected not to start, and a look at the memory of one that runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::{Cluster, kvd_binary};

/// Runs `kvd` with these arguments, as `--flag=value`, until it ends by itself.
pub(crate) fn run_kvd(arguments: &[String]) -> Result<Output> {
    let mut command = Command::new(kvd_binary()?);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVD_")) {
        command.env_remove(name);
    }
    Ok(command.args(arguments).stdin(Stdio::null()).output()?)
}

/// Checks that a `kvd` ended with `code`, and that the last line on stderr says why in all these words.
pub(crate) fn expect_failure(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "ended with {}, not {code}: {stderr}", output.status);
    ensure!(output.stdout.is_empty(), "errors belong on stderr: {}", String::from_utf8_lossy(&output.stdout));
    let reasons: Vec<&str> = stderr.lines().filter(|line| line.starts_with("kvd: ")).collect();
    ensure!(reasons.len() == 1, "one line should say why it ended: {stderr}");
    for word in words {
        ensure!(reasons[0].contains(word), "{word:?} is not in the reason: {}", reasons[0]);
    }
    Ok(())
}

/// The memory that node `i` takes, in MiB: the resident set of the process that has its data directory.
pub(crate) fn resident_mib(cluster: &Cluster, i: usize) -> Result<u64> {
    let directory = format!("--data-dir={}", cluster.data_dir(i).display());
    let is_node = |process: &Path| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        command.split(|&byte| byte == 0).any(|argument| argument == directory.as_bytes())
    };
    let processes = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
    let process = processes.into_iter().find(|path| is_node(path)).context("the node's process is gone")?;
    let status = fs::read_to_string(process.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib >> 10)
}
