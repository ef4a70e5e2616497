//! One `kvd` process: its ports, its directory, its log.

use std::env;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::ClusterError;
use crate::zookeeper::ReservedPort;

/// Lines of a log that are shown when something fails.
const TAIL: usize = 40;

/// A node of a cluster, running or not.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) index: usize,
    pub(super) endpoint: String,
    pub(super) data_dir: PathBuf,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    admin_port: ReservedPort,
    _port: ReservedPort,
    /// The process, unless it was ended on purpose.
    process: Mutex<Option<Child>>,
}

impl Node {
    pub(super) fn new(
        index: usize,
        binary: PathBuf,
        arguments: Vec<String>,
        directory: &Path,
        port: ReservedPort,
        admin_port: ReservedPort,
    ) -> Result<Self, ClusterError> {
        Ok(Self {
            index,
            endpoint: format!("127.0.0.1:{}", port.port()),
            data_dir: Self::data_dir_in(directory, index),
            binary,
            arguments,
            log: directory.join(format!("node-{index}.log")),
            admin_port,
            _port: port,
            process: Mutex::new(None),
        })
    }

    pub(super) fn data_dir_in(directory: &Path, index: usize) -> PathBuf {
        directory.join(format!("node-{index}"))
    }

    pub(super) fn admin_port(&self) -> u16 {
        self.admin_port.port()
    }

    pub(super) fn start(&self) -> Result<(), ClusterError> {
        let mut process = self.process();
        if process.is_some() {
            return Err(ClusterError::StillRuns { node: self.index });
        }
        let io = |action: String| move |source| ClusterError::Io { action, source };
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let log = open(&self.log).map_err(io(format!("open {}", self.log.display())))?;
        let errors = log.try_clone().map_err(io("share a log file".to_owned()))?;
        let mut command = Command::new(&self.binary);
        // A setting of whoever runs the tests is none of the test's.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVD_")) {
            command.env_remove(name);
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        let started = command.spawn().map_err(io(format!("run {}", self.binary.display())))?;
        *process = Some(started);
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.process().as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), ClusterError> {
        let mut process = self.process();
        let not_running = ClusterError::NotRunning { node: self.index };
        let Some(child) = process.as_mut() else { return Err(not_running) };
        // Nobody else waits for this child, so its id is not used again before `try_wait` has seen it end.
        let running = matches!(child.try_wait(), Ok(None));
        match (running, i32::try_from(child.id()).ok().and_then(Pid::from_raw)) {
            (true, Some(pid)) => kill_process(pid, signal).map_err(|source| ClusterError::Io {
                action: format!("send a signal to node {}", self.index),
                source: source.into(),
            }),
            _ => Err(not_running),
        }
    }

    pub(super) fn pid(&self) -> Result<u32, ClusterError> {
        self.check_runs()?;
        self.process().as_ref().map(Child::id).ok_or(ClusterError::NotRunning { node: self.index })
    }

    pub(super) fn kill(&self) -> Result<(), ClusterError> {
        self.check_runs()?;
        self.kill_if_running();
        Ok(())
    }

    pub(super) fn kill_if_running(&self) {
        if let Some(mut child) = self.process().take() {
            // An error means that it has ended before.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// How the process ended, if it has: from then on it counts as ended on purpose.
    pub(super) fn take_ended(&self) -> Result<Option<ExitStatus>, ClusterError> {
        let mut process = self.process();
        let Some(child) = process.as_mut() else {
            return Err(ClusterError::NotRunning { node: self.index });
        };
        let ended = child
            .try_wait()
            .map_err(|source| ClusterError::Io { action: format!("wait for node {}", self.index), source })?;
        if ended.is_some() {
            *process = None;
        }
        Ok(ended)
    }

    /// Checks that the process runs.
    pub(super) fn check_runs(&self) -> Result<(), ClusterError> {
        self.check_not_ended()?;
        if self.is_running() { Ok(()) } else { Err(ClusterError::NotRunning { node: self.index }) }
    }

    /// Checks that the process has not ended by itself.
    pub(super) fn check_not_ended(&self) -> Result<(), ClusterError> {
        match self.process().as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => {
                Err(ClusterError::Ended { node: self.index, status, log: self.log_tail() })
            }
            _ => Ok(()),
        }
    }

    /// Checks that no task has panicked.
    pub(super) fn check_log(&self) -> Result<(), ClusterError> {
        match self.log()?.lines().find(|line| line.contains("panicked at")) {
            Some(line) => Err(ClusterError::Panicked { node: self.index, line: line.to_owned() }),
            None => Ok(()),
        }
    }

    pub(super) fn log(&self) -> Result<String, ClusterError> {
        match fs::read(&self.log) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(ClusterError::Io { action: format!("read {}", self.log.display()), source }),
        }
    }

    pub(super) fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
