//! keeperd as a process: what it prints, what it logs, and how it ends.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn keeperd(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keeperd"));
    command.env("KEEPERD_DATA_DIR", dir.join("data")).env("KEEPERD_PORT", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One that runs, and the address that it has printed.
struct Running {
    child: Child,
    address: String,
    printed: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("started");
        let mut printed = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = address(&mut printed);
        Self { child, address, printed }
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

/// The address in the next line that it prints.
fn address(printed: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = printed.next().expect("a line").expect("text");
    let address = line.strip_prefix("listening on ").expect("an address");
    address.trim_end_matches(" for TLS").to_owned()
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
        for story in ["recovered", "listening", "started", "stopping", "stopped"] {
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
    command.env("KEEPERD_CONFIG", &file).env("KEEPERD_TICK_TIME", "4000").args(["--max-client-cnxns", "7"]);
    command.env("KEEPERD_HOST", "0.0.0.0").env("KEEPERD_INSECURE", "yes");
    // A path that leads from the working directory is told as a whole one.
    command.current_dir(dir.path()).args(["--data-dir", "here"]);
    let keeperd = Running::start(&mut command);
    let conf = keeperd.ask("conf");
    assert!(conf.contains("tickTime=4000\nmaxClientCnxns=7\n"), "{conf}");
    let here = dir.path().canonicalize().expect("a path").join("here");
    assert!(conf.contains(&format!("\ndataDir={}/snapshots\n", here.display())), "{conf}");
    assert_eq!(keeperd.end(Signal::TERM).0, Some(0));
}

#[test]
fn usage_errors_are_one_line_and_exit_code_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = |arguments: &[&str]| complaint(&output(keeperd(dir.path()).args(arguments)), 2);
    assert!(refused(&["--prot", "1"]).contains("--prot"));
    let soon = refused(&["--tick-time", "soon"]);
    assert!(soon.contains("--tick-time") && soon.contains("it is no time"), "{soon}");
    assert!(refused(&["--host", "0.0.0.0"]).contains("--insecure"));
    assert!(refused(&["--log", "=="]).contains("is no filter"));
    assert!(refused(&["--insecure=perhaps"]).contains("--insecure"));
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
    let busy = output(command.args(["--port", &port]));
    assert!(complaint(&busy, 1).contains("cannot listen on"), "{busy:?}");
    assert_eq!(
        busy.stderr.split(|&byte| byte == b'\n').count(),
        2,
        "a start that has failed is told once: {busy:?}"
    );
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}

#[test]
fn handshakes_that_fail_are_logged_with_a_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, issued.cert.pem()).expect("written");
    std::fs::write(&key, issued.signing_key.serialize_pem()).expect("written");
    let mut command = keeperd(dir.path());
    command
        .args(["--secure-port", "0", "--4lw", "mntr", "--tls-cert"])
        .arg(certificate)
        .arg("--tls-key")
        .arg(key);
    let mut running = Running::start(&mut command);
    let secure = address(&mut running.printed);
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(&secure).expect("connected");
        clients.push(stream.local_addr().expect("an address").to_string());
        stream.write_all(b"this is no TLS at all").expect("written");
        // Until the server has closed it.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let mntr = running.ask("mntr");
    assert!(mntr.contains("\nzk_unsuccessful_handshake\t30\n"), "{mntr}");
    assert!(mntr.contains("\nzk_outstanding_tls_handshake\t0\n"), "{mntr}");
    let (code, log) = running.end(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    let told: Vec<_> = log.lines().filter(|line| line.contains("the TLS handshake failed: ")).collect();
    assert_eq!(told.len(), 10, "{log}");
    assert!(told.iter().all(|line| line.contains("(the client does not speak TLS)")), "{log}");
    // A connection is closed before that is told, so the next may be told of first.
    let is_told = |client: &&String| told.iter().any(|line| line.contains(&format!("address={client} ")));
    assert_eq!(clients.iter().filter(is_told).count(), 10, "{log}");
}
