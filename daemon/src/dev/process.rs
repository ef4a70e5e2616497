//! One node: a process of its own.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, select_all};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, timeout_at};

use super::flags::{HOST, Shape};
use super::home::Home;
use super::restarts::Restarts;
use super::story::Ending;
use super::{DevError, text};

/// After this time without a node, another is elected: soon enough to watch, and long enough for a busy laptop.
const SESSION_TIMEOUT: &str = "3s";

/// Bytes of a log's end that are searched for the reason of a node's end.
const TAIL: u64 = 64 << 10;

/// What a node logs that a client tells to stop. Its exit code is the same as after SIGTERM.
const KILLED: &str = " told to stop from=";

/// A node, whether its process runs or not.
#[derive(Debug)]
pub(super) struct Process {
    index: usize,
    binary: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    /// Where the log of this run begins.
    log_from: u64,
    running: Option<Running>,
    restarts: Restarts,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// While this is open, the node knows that we are there (see the module `leash`).
    _leash: Option<ChildStdin>,
}

impl Process {
    /// Node `i` of the cluster, not started.
    pub(super) fn new(i: usize, shape: Shape, home: &Home, zookeeper: &str, binary: &Path) -> Self {
        let mut arguments: Vec<OsString> = [
            ("--host", HOST.to_owned()),
            ("--port", shape.port(i).to_string()),
            ("--admin-port", shape.admin_port(i).to_string()),
            ("--zookeeper", zookeeper.to_owned()),
            ("--session-timeout", SESSION_TIMEOUT.to_owned()),
            ("--cluster-size", shape.nodes.to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.into(), value.into()])
        .collect();
        arguments.extend(["--data-dir".into(), home.node(i).into_os_string()]);
        Self {
            index: i,
            binary: binary.to_owned(),
            arguments,
            log: home.node_log(i),
            log_from: 0,
            running: None,
            restarts: Restarts::new(),
        }
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Its process id, if it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.running.as_ref()?.child.id()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The command that starts this node in a terminal.
    pub(super) fn command(&self) -> String {
        let words = std::iter::once(self.binary.display().to_string())
            .chain(self.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()));
        words.map(|word| text::quoted(&word)).collect::<Vec<_>>().join(" ")
    }

    /// Starts the process, which does not run.
    pub(super) fn start(&mut self) -> Result<(), DevError> {
        assert!(self.running.is_none(), "node {} runs already", self.index);
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DevError::Io { action, path, source }
        };
        let log =
            OpenOptions::new().create(true).append(true).open(&self.log).map_err(io("open", &self.log))?;
        self.log_from = log.metadata().map_err(io("open", &self.log))?.len();
        let errors = log.try_clone().map_err(io("open", &self.log))?;
        let mut command = Command::new(&self.binary);
        // Settings that the user's environment has for some other node are none of this one's.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVD_")) {
            command.env_remove(name);
        }
        command.args(&self.arguments).arg("--stop-with-stdin");
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        // Ctrl-C in a terminal reaches this process only, which then stops the nodes in order.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(io("run", &self.binary))?;
        // Waiting for a child would close what it holds.
        let leash = child.stdin.take();
        self.running = Some(Running { child, _leash: leash });
        self.restarts.started(Instant::now());
        Ok(())
    }

    /// Sends a signal, if the process runs.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(id) = self.id() else { return };
        if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
            // It has not been waited for, so the id is still its own; at worst it has ended already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for the process's end, if it runs.
    fn wait(&mut self) -> Option<BoxFuture<'_, (usize, io::Result<ExitStatus>)>> {
        let index = self.index;
        let child = &mut self.running.as_mut()?.child;
        Some(async move { (index, child.wait().await) }.boxed())
    }

    /// How long to wait before it is started again, when it has ended or cannot be started.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.restarts.ended(Instant::now())
    }

    fn ending(&self, status: io::Result<ExitStatus>) -> Ending {
        let failed = |reason| Ending::Failed { reason, log: self.log.clone() };
        match status {
            Ok(status) if status.success() && self.has_logged(KILLED) => Ending::KilledByKvctl,
            Ok(status) if status.success() => Ending::InGoodOrder,
            Ok(status) => match status.signal() {
                Some(signal) => Ending::Killed(signal),
                None => failed(self.last_words().unwrap_or_else(|| format!("{status}"))),
            },
            Err(error) => failed(format!("it cannot be waited for: {error}")),
        }
    }

    fn has_logged(&self, words: &str) -> bool {
        tail(&self.log, self.log_from).is_ok_and(|tail| tail.contains(words))
    }

    /// The line by which the process says why it ends, or else its last one.
    fn last_words(&self) -> Option<String> {
        let tail = tail(&self.log, self.log_from).ok()?;
        let mut lines = tail.lines().rev().filter(|line| !line.trim().is_empty());
        let last = lines.clone().next();
        let reason = lines.find_map(|line| line.strip_prefix("kvd: ")).or(last)?;
        Some(reason.to_owned())
    }
}

/// The end of a file, from `from` on.
fn tail(path: &Path, from: u64) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits until one of the processes has ended, and says which and how; for ever if none runs. Nothing is lost when it is
/// cancelled.
pub(super) async fn next_end(processes: &mut [Process]) -> (usize, Ending) {
    let waits: Vec<_> = processes.iter_mut().filter_map(Process::wait).collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    let ((index, status), _, others) = select_all(waits).await;
    drop(others);
    let process = &mut processes[index];
    process.running = None;
    (index, process.ending(status))
}

/// Stops all that run: first with SIGTERM, and after `patience` with SIGKILL. Says which had to be killed.
pub(super) async fn stop_all(processes: &mut [Process], patience: Duration) -> Vec<usize> {
    let deadline = Instant::now() + patience;
    for process in &*processes {
        process.signal(Signal::TERM);
        // One that somebody has frozen could not hear it.
        process.signal(Signal::CONT);
    }
    while processes.iter().any(Process::is_running) {
        if timeout_at(deadline, next_end(processes)).await.is_err() {
            break;
        }
    }
    let killed: Vec<usize> =
        processes.iter().filter(|process| process.is_running()).map(Process::index).collect();
    for process in &*processes {
        process.signal(Signal::KILL);
    }
    while processes.iter().any(Process::is_running) {
        next_end(processes).await;
    }
    killed
}
