//! One place for a `kvd`: its network namespace, its disk, its clock, and its process if one runs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::clock::{Clock, Shim};
use super::command::ip;
use super::network::{Network, Place, within};
use super::owner::Owner;
use crate::disk::Disk;

/// The port for clients and nodes.
const PORT: u16 = 5000;

/// What one node is started with, besides who it is.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) binary: PathBuf,
    pub(super) arguments: Vec<String>,
}

/// How a process ended that was to be killed.
#[derive(Clone, Copy, Debug)]
pub struct Killed {
    /// Whether it still ran.
    pub ran: bool,
    /// How it ended.
    pub status: ExitStatus,
}

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    number: usize,
    namespace: String,
    place: Place,
    endpoint: String,
    log: PathBuf,
    program: Program,
    process: Mutex<Option<Child>>,
    /// How long the log was when the process was started.
    log_before: AtomicU64,
    /// How much trouble the disk had made by then.
    troubles_before: AtomicU64,
    clock: Clock,
    disk: Disk,
}

impl Node {
    pub(super) fn new(
        owner: &Owner,
        network: &Network,
        shim: &Shim,
        number: usize,
        program: &Program,
    ) -> Result<Self> {
        let namespace = owner.named(&format!("n{number}"));
        ip(&format!("netns add {namespace}"))?;
        let place = network.join(&namespace, u8::try_from(number + 1).context("few nodes")?)?;
        let address = network.address(place);
        let disk = Disk::mount(&owner.directory().join(format!("n{number}")))?;
        let mut program = program.clone();
        program.arguments.extend([
            format!("--host={address}"),
            format!("--port={PORT}"),
            format!("--data-dir={}", disk.path().join("data").display()),
        ]);
        Ok(Self {
            number,
            namespace,
            place,
            endpoint: format!("{address}:{PORT}"),
            log: owner.directory().join(format!("n{number}.log")),
            program,
            process: Mutex::new(None),
            log_before: AtomicU64::new(0),
            troubles_before: AtomicU64::new(0),
            clock: Clock::new(shim, &owner.directory().join(format!("n{number}.clock")))?,
            disk,
        })
    }

    /// Which node it is, from 0 on.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    /// Where it stands in the network.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where clients reach it.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its disk.
    #[must_use]
    pub const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Its clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where on its disk everything is that it keeps.
    #[must_use]
    pub const fn data(&self) -> &'static str {
        "data"
    }

    /// Where its log is, over all its starts.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts its process, unless it runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self) -> Result<()> {
        let mut process = self.process();
        if process.is_some() {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        self.log_before.store(log.metadata()?.len(), Ordering::Relaxed);
        self.troubles_before.store(self.disk.troubles(), Ordering::Relaxed);
        let mut command = Command::new(&self.program.binary);
        // A setting of whoever runs this is none of the cluster's.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVD_")) {
            command.env_remove(name);
        }
        self.clock.give_to(&mut command);
        // If this program is killed its nodes end by themselves: nobody holds their standard input any more.
        command.arg("--stop-with-stdin").args(&self.program.arguments).stdin(Stdio::piped());
        command.stdout(log.try_clone()?).stderr(log);
        let started = within(&self.namespace, || command.spawn())?;
        *process = Some(started.with_context(|| format!("run {}", self.program.binary.display()))?);
        Ok(())
    }

    /// Whether its process runs, or is paused.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.process().as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut process = self.process();
        // Nobody else waits for this child, so its id is not used again before it was seen to end.
        let running = process.as_mut().map(Child::try_wait);
        let (Some(Ok(None)), Some(child)) = (running, process.as_ref()) else {
            bail!("node {} does not run", self.number);
        };
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process has an id")?;
        kill_process(pid, signal).with_context(|| format!("send a signal to node {}", self.number))
    }

    /// Whether its disk has given its process a reason to end since that was started.
    #[must_use]
    pub fn was_troubled(&self) -> bool {
        self.disk.troubles() > self.troubles_before.load(Ordering::Relaxed)
    }

    /// Kills its process with SIGKILL and waits until it is gone, which may take as long as a slow sync. Returns how it ended,
    /// if there was one that nobody had seen to end.
    ///
    /// # Errors
    /// The system does not say how it ended.
    pub fn kill(&self) -> Result<Option<Killed>> {
        let Some(mut child) = self.process().take() else { return Ok(None) };
        let ran = matches!(child.try_wait(), Ok(None));
        // An error means that it has ended before.
        let _ = child.kill();
        let status = child.wait().with_context(|| format!("wait for node {}", self.number))?;
        Ok(Some(Killed { ran, status }))
    }

    /// How its process ended, if it has by itself. Told once.
    ///
    /// # Errors
    /// The system does not say.
    pub fn take_ended(&self) -> Result<Option<ExitStatus>> {
        let mut process = self.process();
        let Some(child) = process.as_mut() else { return Ok(None) };
        let ended = child.try_wait().with_context(|| format!("wait for node {}", self.number))?;
        if ended.is_some() {
            *process = None;
        }
        Ok(ended)
    }

    /// Everything that it has logged.
    #[must_use]
    pub fn logged(&self) -> String {
        self.logged_after(0)
    }

    /// What it has logged since it was last started.
    #[must_use]
    pub fn logged_since_start(&self) -> String {
        self.logged_after(self.log_before.load(Ordering::Relaxed))
    }

    fn logged_after(&self, offset: u64) -> String {
        let mut bytes = Vec::new();
        // A node that was never started has logged nothing.
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.disk.heal();
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}
