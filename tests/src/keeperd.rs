//! `keeperd` as a process of a test: its port, its data, its log.
//!
//! All functions block, as those of [`crate::zookeeper`] do.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::{ClusterError, PATIENCE, keeperd_binary};
use crate::zookeeper::ReservedPort;

/// How often a server that does not serve yet is asked again.
const POLL: Duration = Duration::from_millis(5);
/// How long one question to a server may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of the log that are shown when something fails.
const TAIL: usize = 40;

/// A `keeperd` with a data directory of its own. Dropping it kills it and deletes the directory.
#[derive(Debug)]
pub struct Keeperd {
    binary: PathBuf,
    arguments: Vec<String>,
    directory: TempDir,
    port: ReservedPort,
    process: Option<Child>,
}

impl Keeperd {
    /// Starts one with these arguments, besides port and data directory, and waits until it serves.
    ///
    /// # Errors
    /// It does not compile, or it does not serve; then the end of its log is shown.
    pub fn start(arguments: &[&str]) -> Result<Self, ClusterError> {
        let mut keeperd = Self {
            binary: keeperd_binary()?,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            directory: tempfile::tempdir().map_err(io("make a temporary directory"))?,
            port: ReservedPort::reserve()?,
            process: None,
        };
        keeperd.start_again()?;
        Ok(keeperd)
    }

    /// What clients connect to: `127.0.0.1:port`. It stays the same over restarts.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.port())
    }

    /// Starts the process, with the data that is there, and waits until it serves.
    ///
    /// # Errors
    /// It runs already, cannot be started or does not serve.
    pub fn start_again(&mut self) -> Result<(), ClusterError> {
        if self.process.is_some() {
            return Err(ClusterError::StillRuns { node: 0 });
        }
        let log =
            OpenOptions::new().create(true).append(true).open(self.log_path()).map_err(io("open the log"))?;
        let errors = log.try_clone().map_err(io("share the log"))?;
        let mut command = Command::new(&self.binary);
        // A setting of whoever runs the tests is none of the test's.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEEPERD_")) {
            command.env_remove(name);
        }
        command.arg("--port").arg(self.port.port().to_string());
        command.arg("--data-dir").arg(self.directory.path().join("data")).args([
            "--4lw",
            "*",
            "--max-client-cnxns",
            "0",
        ]);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        self.process = Some(command.spawn().map_err(io("run keeperd"))?);
        self.wait_until_serving()
    }

    /// The id of the process.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<u32, ClusterError> {
        Ok(self.process.as_ref().ok_or(ClusterError::NotRunning { node: 0 })?.id())
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It does not run any more: it ended by itself, which it never should.
    pub fn kill(&mut self) -> Result<(), ClusterError> {
        self.check_runs()?;
        let mut process = self.process.take().ok_or(ClusterError::NotRunning { node: 0 })?;
        process.kill().map_err(io("kill keeperd"))?;
        process.wait().map_err(io("wait for keeperd"))?;
        Ok(())
    }

    /// Asks the process to end with SIGTERM and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> Result<ExitStatus, ClusterError> {
        let mut process = self.process.take().ok_or(ClusterError::NotRunning { node: 0 })?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or(ClusterError::NotRunning { node: 0 })?, Signal::TERM)
            .map_err(|error| io("send a signal to keeperd")(error.into()))?;
        process.wait().map_err(io("wait for keeperd"))
    }

    /// Checks that the process has not ended by itself and that nothing in it has panicked.
    ///
    /// # Errors
    /// It has, with the end of its log.
    pub fn check_runs(&mut self) -> Result<(), ClusterError> {
        let log = self.log();
        if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
            return Err(ClusterError::Panicked { node: 0, line: line.to_owned() });
        }
        let process = self.process.as_mut().ok_or(ClusterError::NotRunning { node: 0 })?;
        match process.try_wait().map_err(io("look after keeperd"))? {
            Some(status) => Err(ClusterError::Ended { node: 0, status, log: tail(&log) }),
            None => Ok(()),
        }
    }

    /// Memory that the process has in use, in bytes.
    ///
    /// # Errors
    /// It does not run.
    pub fn resident_bytes(&self) -> Result<u64, ClusterError> {
        let path = format!("/proc/{}/status", self.pid()?);
        let status = fs::read_to_string(path).map_err(io("read how much memory keeperd has"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes: u64 = line
            .and_then(|line| line.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        Ok(kibibytes * 1024)
    }

    /// What a four-letter word is answered.
    ///
    /// # Errors
    /// There is no answer.
    pub fn ask(&self, word: &str) -> Result<String, ClusterError> {
        ask(self.port.port(), word).map_err(io("ask keeperd"))
    }

    /// All that the process has written so far, over all restarts.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn wait_until_serving(&mut self) -> Result<(), ClusterError> {
        let started = Instant::now();
        loop {
            self.check_runs()?;
            match self.ask("ruok") {
                Ok(answer) if answer == "imok" => return Ok(()),
                other if started.elapsed() > PATIENCE => {
                    let last = format!("{other:?}; its log ends with:\n{}", tail(&self.log()));
                    let what = "keeperd serves".to_owned();
                    return Err(ClusterError::TimedOut { what, waited: PATIENCE, last });
                }
                _ => thread::sleep(POLL),
            }
        }
    }
}

impl Drop for Keeperd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Errors mean that it has ended before.
            let _ = process.kill();
            let _ = process.wait();
        }
        if thread::panicking() {
            eprintln!("keeperd's log ends with:\n{}", tail(&self.log()));
        }
    }
}

fn ask(port: u16, word: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ASK_TIMEOUT)?;
    stream.set_read_timeout(Some(ASK_TIMEOUT))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

fn io(action: &str) -> impl FnOnce(std::io::Error) -> ClusterError {
    move |source| ClusterError::Io { action: action.to_owned(), source }
}
