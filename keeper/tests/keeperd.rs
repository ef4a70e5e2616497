//! keeperd as a process: what it prints, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn keeperd(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keeperd"));
    command.arg("--data-dir").arg(dir.join("data")).env("KEEPERD_PORT", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One that runs, and the address that it has printed.
struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let address = line.trim_end().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, address }
    }

    fn ask(&self, word: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("connected");
        stream.write_all(word.as_bytes()).expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        text
    }

    /// Ends it with a signal; returns its exit code and what it has logged.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("signalled");
        let mut log = String::new();
        let mut stderr: ChildStderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        (self.child.wait().expect("ended").code(), log)
    }
}

fn output(command: &mut Command) -> Output {
    command.output().expect("ended by itself")
}

/// The one line that it has said on stderr.
fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("keeperd: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    lines[0].to_owned()
}

#[test]
fn signals_end_it_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().expect("a directory");
        let keeperd = Running::start(keeperd(dir.path()).args(["--4lw", "ruok"]));
        assert_eq!(keeperd.ask("ruok"), "imok");
        let (code, log) = keeperd.end(signal);
        assert_eq!(code, Some(0), "{log}");
        for story in ["starts", "recovered", "listening", "stopping", "stopped"] {
            assert!(log.contains(story), "{story} is not in {log}");
        }
    }
}

#[test]
fn variables_and_files_are_settings_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("keeperd.toml");
    std::fs::write(&file, "4lw = 'conf'\ntick-time = '3s'\nmax-client-cnxns = 5").expect("written");
    let mut command = keeperd(dir.path());
    command.env("KEEPERD_CONFIG", &file).env("KEEPERD_TICK_TIME", "4s").args(["--max-client-cnxns", "7"]);
    let keeperd = Running::start(&mut command);
    let conf = keeperd.ask("conf");
    assert!(conf.contains("tickTime=4000\nmaxClientCnxns=7\n"), "{conf}");
    assert_eq!(keeperd.end(Signal::TERM).0, Some(0));
}

#[test]
fn usage_errors_are_one_line_and_exit_code_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = |arguments: &[&str]| complaint(&output(keeperd(dir.path()).args(arguments)), 2);
    assert!(refused(&["--prot", "1"]).contains("--prot"));
    assert!(refused(&["--tick-time", "soon"]).contains("--tick-time \"soon\" is no time"));
    assert!(refused(&["--host", "0.0.0.0"]).contains("--insecure"));
    assert!(refused(&["--log", "=="]).contains("is no filter"));
    assert!(!dir.path().join("data").exists(), "something was made before the settings were checked");
}

#[test]
fn what_prevents_a_start_is_one_line_and_exit_code_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut keeperd(dir.path()));
    assert!(complaint(&output(&mut keeperd(dir.path())), 1).contains("in use by another keeper"));
    let port = running.address.rsplit(':').next().expect("a port").to_owned();
    let other = tempfile::tempdir().expect("a directory");
    let mut command = keeperd(other.path());
    let busy = complaint(&output(command.args(["--port", &port])), 1);
    assert!(busy.contains("cannot listen on"), "{busy}");
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}
