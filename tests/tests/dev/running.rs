//! A `kvd dev` that runs, and the processes that belong to it.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use quorumkv_tests::cluster::{PATIENCE, kvd_binary, mutant_binary, wait_until};
use quorumkv_tests::zookeeper::{ReservedPort, Slot};
use rustix::process::{Pid, Signal, kill_process};

/// Ports for a cluster of up to five nodes, and a keeper.
pub(crate) struct Ports {
    reserved: Vec<ReservedPort>,
}

impl Ports {
    pub(crate) fn reserve() -> Result<Self> {
        // Health and metrics are 1000 above.
        let distances = [0, 1, 2, 3, 4, 5, 1000, 1001, 1002, 1003, 1004];
        Ok(Self { reserved: ReservedPort::reserve_together(&distances)? })
    }

    pub(crate) fn node(&self, i: u16) -> u16 {
        self.reserved[0].port() + i
    }

    pub(crate) fn keeper(&self) -> u16 {
        self.node(5)
    }

    /// The flags that choose these ports.
    pub(crate) fn flags(&self) -> [String; 2] {
        [format!("--base-port={}", self.node(0)), format!("--keeper-port={}", self.keeper())]
    }
}

/// The command `kvd dev`, with settings for some other node in its environment.
pub(crate) fn command(arguments: &[String]) -> Result<Command> {
    Ok(equipped(Command::new(kvd_binary()?), arguments))
}

/// The same with a deliberate bug in every node.
pub(crate) fn command_with_mutant(mutant: &str, arguments: &[String]) -> Result<Command> {
    let mut command = equipped(Command::new(mutant_binary()?), arguments);
    command.env("QUORUMKV_MUTANT", mutant);
    Ok(command)
}

/// The same, in a process whose files may only become so large; that is told as an error and not by a signal.
pub(crate) fn command_that_survives_limits(arguments: &[String], commands: &str) -> Result<Command> {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("trap '' XFSZ; {commands} exec \"$0\" \"$@\"")]).arg(kvd_binary()?);
    Ok(equipped(shell, arguments))
}

fn equipped(mut command: Command, arguments: &[String]) -> Command {
    command.arg("dev").args(arguments).stdin(Stdio::null()).env_remove("KVCTL_ENDPOINTS");
    command.env("KVD_PORT", "1").env("KVD_ZOOKEEPER", "127.0.0.1:1").env("KVD_DATA_DIR", "/nowhere");
    // Others than where what it prints is pasted.
    command.current_dir("/");
    command
}

/// Runs `kvd dev` until it ends by itself.
pub(crate) fn run(arguments: &[String]) -> Result<Output> {
    Ok(command(arguments)?.output()?)
}

/// A `kvd dev` that runs. Killed when it is dropped, with which its nodes end as well.
pub(crate) struct Dev {
    child: Child,
    printed: Arc<Mutex<String>>,
    _slot: Option<Slot>,
}

impl Dev {
    /// Starts it, and does not wait for anything.
    pub(crate) fn start(arguments: &[String]) -> Result<Self> {
        Self::spawn(command(arguments)?)
    }

    /// The same with a command that was changed.
    pub(crate) fn spawn(command: Command) -> Result<Self> {
        Self::spawn_in(Some(Slot::acquire()?), command)
    }

    /// The same for a test that has a ZooKeeper of its own, and with it the right to run a cluster.
    pub(crate) fn start_beside_zookeeper(arguments: &[String]) -> Result<Self> {
        Self::spawn_in(None, command(arguments)?)
    }

    fn spawn_in(slot: Option<Slot>, mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdout = child.stdout.take().context("stdout is a pipe")?;
        let printed = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&printed);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                shared.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Self { child, printed, _slot: slot })
    }

    /// Everything that it has printed.
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has printed a line with these words, and returns that.
    pub(crate) async fn until(&self, words: &str) -> Result<String> {
        self.until_nth(1, words).await
    }

    /// Waits until it has printed the `n`th line with these words, from 1, and returns that.
    pub(crate) async fn until_nth(&self, n: usize, words: &str) -> Result<String> {
        let said = async || {
            let printed = self.printed();
            // A line that has no end yet may still grow.
            let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
            let line = whole.lines().filter(|line| line.contains(words)).nth(n - 1).map(str::to_owned);
            line.with_context(|| format!("it has printed:\n{printed}"))
        };
        Ok(wait_until(PATIENCE, &format!("kvd dev prints {words:?} {n} times"), said).await?)
    }

    /// Waits until it has told that all is well, and who leads.
    pub(crate) async fn until_begun(&self) -> Result<()> {
        self.until("leads (epoch").await?;
        Ok(())
    }

    /// The lines to paste.
    pub(crate) fn pasteable(&self) -> Result<[String; 3]> {
        let printed = self.printed();
        let find = |command: &str| {
            let line = printed.lines().find(|line| line.starts_with("  ") && line.ends_with(command));
            line.map(|line| line.trim().to_owned())
                .with_context(|| format!("no line for {command:?} in:\n{printed}"))
        };
        Ok([find(" put greeting hello")?, find(" get greeting")?, find(" kill-leader")?])
    }

    /// Where its data is, as it says.
    pub(crate) fn directory(&self) -> Result<PathBuf> {
        let printed = self.printed();
        let line = printed.lines().find_map(|line| line.strip_prefix("The data is in "));
        let path =
            line.and_then(|line| line.split(" and is ").next()).context("it says where the data is")?;
        Ok(PathBuf::from(path))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        send(self.child.id(), signal)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on stderr; it has ended.
    pub(crate) fn complaint(&mut self) -> Result<String> {
        let mut text = String::new();
        self.child.stderr.take().context("stderr is a pipe")?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The line by which it says that a node is started again by hand, started.
    pub(crate) async fn start_by_hand(&self, n: usize) -> Result<Child> {
        let line = self.until_nth(n, "start it again with: ").await?;
        let line = line.split("start it again with: ").nth(1).context("a command")?.to_owned();
        // The shell gives way to the command, so that its end is the command's.
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line}")]).current_dir(std::env::temp_dir());
        Ok(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// Waits until it has ended.
    pub(crate) async fn end(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended = async || child.try_wait()?.context("it still runs");
        Ok(wait_until(PATIENCE, "kvd dev ends", ended).await?)
    }

    /// Ends it like Ctrl-C does, with a second one behind; checks that it ends well and nothing is left.
    pub(crate) async fn interrupt(mut self) -> Result<String> {
        let directory = self.directory()?;
        self.signal(Signal::INT)?;
        self.until("Ctrl-C: stopping").await?;
        // It may have ended by now.
        let _ = self.signal(Signal::INT);
        let status = self.end().await?;
        self.until("stopped: nothing is left running").await?;
        ensure!(status.code() == Some(0), "ended with {status}:\n{}", self.printed());
        ensure!(processes_in(&directory)?.is_empty(), "left behind: {:?}", processes_in(&directory)?);
        Ok(self.printed())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Errors mean that it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a line of shell.
pub(crate) fn paste(line: &str) -> Result<Output> {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).stdin(Stdio::null()).env_remove("KVCTL_ENDPOINTS");
    let output = shell.current_dir(std::env::temp_dir()).output()?;
    ensure!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

pub(crate) fn send(process: u32, signal: Signal) -> Result<()> {
    kill_process(Pid::from_raw(process.try_into()?).context("a process has an id")?, signal)?;
    Ok(())
}

/// The processes that have a directory below this one among their arguments: a cluster's nodes.
pub(crate) fn processes_in(directory: &Path) -> Result<Vec<u32>> {
    let directory = format!("{}/", directory.display());
    processes_with(|argument| argument.starts_with(directory.as_bytes()))
}

/// The process of node `i`, whoever has started it.
pub(crate) fn process_of(directory: &Path, i: usize) -> Result<Option<u32>> {
    let node = directory.join(format!("node-{i}"));
    Ok(processes_with(|argument| argument == node.as_os_str().as_bytes())?.first().copied())
}

fn processes_with(is_it: impl Fn(&[u8]) -> bool) -> Result<Vec<u32>> {
    let is_node = |process: &Path| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        command.split(|&byte| byte == 0).any(&is_it)
    };
    let processes = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
    let nodes = processes.filter(|process| is_node(process));
    Ok(nodes.filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect())
}

/// Waits until none of them is left.
pub(crate) async fn until_none_in(directory: &Path) -> Result<()> {
    let gone = async || {
        let left = processes_in(directory)?;
        ensure!(left.is_empty(), "{left:?} still run");
        Ok(())
    };
    Ok(wait_until(PATIENCE, "all nodes have ended", gone).await?)
}
