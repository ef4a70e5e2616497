//! What belongs to one run: everything that it makes carries its name, and what a run that was killed has left is removed by
//! the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use quorumkv_tests::zookeeper::docker::{self, docker};
use quorumkv_tests::zookeeper::{Lock, random};
use rustix::process::{Pid, Signal, kill_process};

use super::command::ip;

/// How the names of namespaces, containers and directories begin.
const PREFIX: &str = "quorumkv-chaos-";

/// The label of containers. Not that of other tests: they would remove the containers of a dead run, and its lock with them.
const LABEL: &str = "quorumkv.chaos.owner";

/// The name of a run, held while it lives. Dropping it removes everything that carries it.
#[derive(Debug)]
pub(super) struct Owner {
    name: String,
    directory: PathBuf,
    keep: AtomicBool,
    lock: Lock,
}

impl Owner {
    /// Takes a new name, after removing what dead runs have left.
    pub(super) fn new() -> Result<Self> {
        ensure!(rustix::process::getuid().is_root(), "network namespaces and mounts need root");
        docker::check()?;
        remove_leftovers()?;
        let name = format!("{PREFIX}{:016x}", random());
        let lock = Lock::acquire(&name)?;
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Self { name, directory, keep: AtomicBool::new(false), lock })
    }

    /// A directory of its own.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of a namespace or container.
    pub(super) fn named(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// The label of containers, in the form `docker run` takes.
    pub(super) fn label(&self) -> String {
        format!("--label={LABEL}={}", self.name)
    }

    /// Keeps the directory when this is dropped.
    pub(super) fn keep_directory(&self) -> &Path {
        self.keep.store(true, Ordering::Relaxed);
        &self.directory
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let removed =
            remove_containers(&self.name).and_then(|()| remove_namespaces(&self.name)).and_then(|()| {
                if self.keep.load(Ordering::Relaxed) { Ok(()) } else { remove_directory(&self.directory) }
            });
        match removed {
            Ok(()) => self.lock.remove(),
            Err(error) => eprintln!("parts of {} stay behind until the next run: {error:#}", self.name),
        }
    }
}

/// Removes what belongs to runs that were killed before they could clean up.
fn remove_leftovers() -> Result<()> {
    let namespaces = namespaces()?;
    let mut owners: Vec<String> = namespaces.iter().filter_map(|name| owner_of(name)).collect();
    let directory = std::env::temp_dir();
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        owners.extend(owner_of(&entry?.file_name().to_string_lossy()));
    }
    owners.sort_unstable();
    owners.dedup();
    for owner in owners {
        let Some(lock) = Lock::inherit(&owner)? else { continue };
        remove_containers(&owner)?;
        remove_namespaces(&owner)?;
        let left = directory.join(&owner);
        if left.exists() {
            remove_directory(&left)?;
        }
        lock.remove();
    }
    Ok(())
}

fn remove_containers(owner: &str) -> Result<()> {
    let containers = docker(&["ps", "-aq", "--filter", &format!("label={LABEL}={owner}")])?;
    if !containers.is_empty() {
        docker(&["rm", "-f", "-v"].into_iter().chain(containers.lines()).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The owner in the name of a namespace or directory.
fn owner_of(name: &str) -> Option<String> {
    let id = name.strip_prefix(PREFIX)?.get(..16)?;
    id.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| format!("{PREFIX}{id}"))
}

fn namespaces() -> Result<Vec<String>> {
    let listed = ip("netns list")?;
    Ok(listed.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
}

/// Ends what runs in the namespaces of an owner, and removes them.
fn remove_namespaces(owner: &str) -> Result<()> {
    for namespace in namespaces()?.iter().filter(|name| name.starts_with(owner)) {
        let pids = ip(&format!("netns pids {namespace}"))?;
        for pid in pids.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        ip(&format!("netns del {namespace}"))?;
    }
    Ok(())
}

/// Removes a directory in which disks may be mounted.
fn remove_directory(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(directory)) {
        super::command::run("umount", &["--lazy", point])?;
    }
    fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_have_an_owner() {
        let owner = "quorumkv-chaos-0123456789abcdef";
        assert_eq!(owner_of(&format!("{owner}-n0")).as_deref(), Some(owner));
        assert_eq!(owner_of(owner).as_deref(), Some(owner));
        for other in
            ["quorumkv-chaos-long.log", "quorumkv-chaos-", "other", "quorumkv-chaos-0123456789abcdeg"]
        {
            assert_eq!(owner_of(other), None, "{other}");
        }
    }
}
