//! Running kvctl.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::fake::FakeNode;

/// What a run of kvctl came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    /// Stdout as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is text")
    }

    /// Code, stdout and stderr, for comparison as a whole.
    pub(crate) fn all(&self) -> String {
        format!("exit {}\n{}{}", self.code, self.text(), self.stderr)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("kvctl exits by itself"),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }
}

/// kvctl with arguments, free of the caller's environment.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    command.args(arguments).env_remove("KVCTL_ENDPOINTS").env("COLUMNS", "100").stdin(Stdio::null());
    command
}

/// Runs kvctl.
pub(crate) fn kvctl(arguments: &[&str]) -> Ran {
    command(arguments).output().expect("kvctl starts").into()
}

/// Runs kvctl against nodes.
pub(crate) fn kvctl_at(nodes: &[&FakeNode], arguments: &[&str]) -> Ran {
    let endpoints = nodes.iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(",");
    command(arguments).env("KVCTL_ENDPOINTS", endpoints).output().expect("kvctl starts").into()
}

/// The same with something on stdin.
pub(crate) fn kvctl_with(node: &FakeNode, arguments: &[&str], stdin: &[u8]) -> Ran {
    let mut command = command(arguments);
    command.env("KVCTL_ENDPOINTS", &node.address).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kvctl starts");
    child.stdin.take().expect("stdin is piped").write_all(stdin).expect("kvctl reads its stdin");
    child.wait_with_output().expect("kvctl ends").into()
}

/// An address at which nobody listens.
pub(crate) fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").to_string()
}
