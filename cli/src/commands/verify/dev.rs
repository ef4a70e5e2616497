//! Finding the cluster that `kvd dev` runs on this machine.
//!
//! While it runs, `kvd dev` says in a file of the system's directory for temporary files which processes its nodes are. That
//! is believed only if the file belongs to this user and the lock of the cluster's directory is held. A process is sent a
//! signal only as long as it is a child of that `kvd dev`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorumkv_client::Endpoint;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde::Deserialize;

use crate::exit::{Code, Failure};

/// What names of the files begin and end with.
const PREFIX: &str = "quorumkv-dev-";
const SUFFIX: &str = ".json";

/// What the files say is understood in this form.
const FORMAT: u32 = 1;

/// Locked by `kvd dev` as long as it runs.
const LOCK: &str = "LOCK";

/// Locked by whoever pauses and kills its nodes. Meanwhile `kvd dev` starts nodes again, and afterwards it wakes up those
/// that are still paused, whatever became of us.
const FAULTS: &str = "FAULTS";

/// `kvd dev` looks at the lock, and takes it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// What `kvd dev` says of itself.
#[derive(Deserialize)]
struct Register {
    format: u32,
    /// Its process.
    pid: i32,
    directory: PathBuf,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    endpoint: String,
    /// Its process, if it runs.
    pid: Option<i32>,
}

/// A cluster of `kvd dev`. While this is there, nobody else pauses or kills its nodes.
pub(super) struct DevCluster {
    file: PathBuf,
    /// The process that runs it.
    pid: i32,
    pub(super) endpoints: Vec<String>,
    _faults: File,
}

impl DevCluster {
    /// The one whose nodes these are.
    pub(super) fn find(endpoints: &[Endpoint]) -> Result<Self, Failure> {
        let found = registers(&std::env::temp_dir());
        let has = |register: &Register, endpoint: &Endpoint| {
            register.nodes.iter().any(|node| node.endpoint == endpoint.as_str())
        };
        let fits = |register: &Register| endpoints.iter().all(|endpoint| has(register, endpoint));
        let Some((file, register)) = found.into_iter().find(|(_, register)| fits(register)) else {
            let named: Vec<&str> = endpoints.iter().map(Endpoint::as_str).collect();
            let message = format!(
                "--chaos is only for a cluster that kvd dev runs on this machine for this user, and {} is none",
                named.join(",")
            );
            return Err(Failure::new(Code::NotPermitted, message)
                .advise("start one with `kvd dev`, or verify without --chaos"));
        };
        let endpoints: Vec<String> = register.nodes.iter().map(|node| node.endpoint.clone()).collect();
        if endpoints.len() < 3 {
            let message = format!(
                "--chaos stops a minority of the nodes at a time, and of {} there is none",
                endpoints.len()
            );
            return Err(
                Failure::new(Code::NotPermitted, message).advise("run `kvd dev` with three nodes or more")
            );
        }
        let faults = hold(&register.directory.join(FAULTS))?;
        Ok(Self { file, pid: register.pid, endpoints, _faults: faults })
    }

    /// Sends a signal to the process of a node, which must run as a child of `kvd dev`. Returns its id.
    pub(super) fn signal(&self, endpoint: &str, signal: Signal) -> Result<i32, Failure> {
        let register = read(&self.file).filter(|register| register.pid == self.pid);
        let node = register.and_then(|register| register.nodes.into_iter().find(|n| n.endpoint == endpoint));
        let pid = node.and_then(|node| node.pid).ok_or_else(|| not_running(endpoint))?;
        self.signal_process(pid, signal).map_err(|_| not_running(endpoint))?;
        Ok(pid)
    }

    /// The same for a process that was a node's.
    pub(super) fn signal_process(&self, pid: i32, signal: Signal) -> io::Result<()> {
        let process = Pid::from_raw(pid).filter(|_| parent(pid) == Some(self.pid));
        let process = process.ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(process, signal)?)
    }
}

fn not_running(endpoint: &str) -> Failure {
    Failure::new(Code::Unhealthy, format!("no process of kvd dev runs for {endpoint}"))
        .advise("see what kvd dev says")
}

/// All that can be believed.
fn registers(directory: &Path) -> Vec<(PathBuf, Register)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(PREFIX) && name.ends_with(SUFFIX)
    });
    let read = named.filter_map(|entry| Some((entry.path(), read(&entry.path())?)));
    read.filter(|(_, register)| is_locked(&register.directory.join(LOCK))).collect()
}

fn read(path: &Path) -> Option<Register> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let is_ours = metadata.is_file() && metadata.uid() == geteuid().as_raw();
    let text = fs::read_to_string(path).ok().filter(|_| is_ours)?;
    serde_json::from_str(&text).ok().filter(|register: &Register| register.format == FORMAT)
}

fn is_locked(path: &Path) -> bool {
    let lock = OpenOptions::new().write(true).open(path);
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Takes the right to pause and kill nodes.
fn hold(path: &Path) -> Result<File, Failure> {
    let io = |error: &io::Error| Failure::io(&format!("lock {}", path.display()), error);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(|error| io(&error))?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(io(&error)),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                let message = "another kvctl verify --chaos pauses and kills the nodes of this cluster";
                return Err(Failure::new(Code::NotPermitted, message).advise("wait for its end"));
            }
        }
    }
}

/// The parent of a process.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_running_kvd_dev_says_is_believed() {
        let place = tempfile::tempdir().expect("a directory");
        let home = place.path().join("home");
        fs::create_dir(&home).expect("made");
        let lock = File::create(home.join(LOCK)).expect("made");
        let text = format!(
            r#"{{"format":1,"pid":1,"directory":{home:?},"nodes":[{{"endpoint":"127.0.0.1:1","pid":2}}]}}"#
        );
        fs::write(place.path().join("quorumkv-dev-1.json"), &text).expect("written");
        fs::write(place.path().join("quorumkv-dev-2.json"), "{}").expect("written");
        assert!(registers(place.path()).is_empty(), "it has ended");
        lock.lock().expect("locked");
        assert_eq!(registers(place.path()).len(), 1);
        fs::write(place.path().join("quorumkv-dev-1.json"), text.replace("\"format\":1", "\"format\":2"))
            .expect("written");
        assert!(registers(place.path()).is_empty(), "what a later one says is not understood");
    }

    #[test]
    fn a_process_that_is_no_child_of_kvd_dev_gets_no_signal() {
        let own = i32::try_from(std::process::id()).expect("an id");
        let place = tempfile::tempdir().expect("a directory");
        let faults = hold(&place.path().join(FAULTS)).expect("held");
        let cluster = DevCluster { file: PathBuf::new(), pid: own, endpoints: Vec::new(), _faults: faults };
        assert!(cluster.signal_process(own, Signal::CONT).is_err(), "we are no child of ours");
        assert!(cluster.signal("127.0.0.1:1", Signal::CONT).is_err());
        assert!(parent(own).is_some());
    }
}
