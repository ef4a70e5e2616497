//! What a command line means, checked: nothing later needs to look at flags again.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap_complete::Shell;
use quorumkv_client::{Client, Consistency, Endpoint, GetOptions, Version};

use crate::args::{
    Arguments, BenchArguments, BenchCommand, ChangeArguments, Command, ElectionArguments, Freshness,
    MemberCommand, ValueArguments,
};
use crate::commands::verify::VerifyArguments;
use crate::exit::{Code, Failure};
use crate::output::Format;

/// The deadline of an operation unless it is set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The same for each step of a long transfer, which should outlast an election.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);

/// The same for questions to one node, which answers at once or not at all.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);

/// The most that is read as one value; nodes are far stricter, and say so.
const MAX_VALUE: u64 = 64 << 20;

/// A checked command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) format: Format,
    pub(crate) timeout: Duration,
    pub(crate) task: Task,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Task {
    Put { key: Bytes, value: Source },
    Get { key: Bytes, options: GetOptions },
    Delete { key: Bytes },
    CompareAndSet { key: Bytes, expected: Version, value: Source },
    Scan(Scan),
    Status,
    Leader,
    KillLeader { at_once: bool },
    Kill { node: String, at_once: bool },
    Drain { node: String, undo: bool },
    Member(MemberTask),
    Recover(Recovery),
    Import(Import),
    Export(Export),
    Bench(BenchArguments),
    BenchElection(ElectionArguments),
    Verify(VerifyArguments),
    Completions(Shell),
}

/// What to do about the members.
#[derive(Debug)]
pub(crate) enum MemberTask {
    List,
    Add { address: Endpoint, learner: bool, how: Changing },
    Remove { node: String, how: Changing },
    Replace { old: String, new: Endpoint, how: Changing },
    Promote { node: String, how: Changing },
}

/// How to change the members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changing {
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    /// Longest time for a node to catch up.
    pub(crate) wait: Duration,
    /// Longest time to wait for another change to end.
    pub(crate) patience: Duration,
}

/// What to make a new cluster from, and where.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) to: PathBuf,
    pub(crate) address: Endpoint,
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
}

/// Which keys to list.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) prefix: Bytes,
    pub(crate) after: Option<Bytes>,
    pub(crate) limit: u64,
    pub(crate) consistency: Consistency,
}

/// What to import.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) input: Input,
    /// Where progress is noted; `None` for stdin unless it was asked for.
    pub(crate) checkpoint: Option<PathBuf>,
    /// Most writes in flight, at least one.
    pub(crate) window: usize,
}

/// What to export, and where to.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) prefix: Bytes,
    pub(crate) after: Option<Bytes>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) resume: bool,
}

/// A file, or stdin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    Stdin,
    File(PathBuf),
}

/// Where a value comes from.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Given(Bytes),
    Read(Input),
}

impl Invocation {
    /// The client for all that this command does.
    pub(crate) fn client(&self, connections: usize) -> Result<Client, Failure> {
        self.client_with(connections, false)
    }

    /// The same, which may have writes forwarded by whichever node.
    pub(crate) fn client_with(&self, connections: usize, spread_writes: bool) -> Result<Client, Failure> {
        let client = Client::builder(self.endpoints.iter().map(Endpoint::as_str))
            .name(concat!("kvctl ", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout)
            .connect_timeout(self.timeout.min(Duration::from_secs(5)))
            .connections(connections)
            .spread_writes(spread_writes)
            .connect()?;
        Ok(client)
    }
}

impl TryFrom<Arguments> for Invocation {
    type Error = Failure;

    fn try_from(arguments: Arguments) -> Result<Self, Failure> {
        let endpoints = endpoints(&arguments.endpoints)?;
        let timeout = arguments.timeout.unwrap_or_else(|| default_timeout(&arguments.command));
        let task = task(arguments.command, timeout)?;
        Ok(Self { endpoints, format: format(arguments.output), timeout, task })
    }
}

/// The format that was chosen, or the one that suits stdout.
pub(crate) fn format(chosen: Option<Format>) -> Format {
    chosen.unwrap_or_else(|| if io::stdout().is_terminal() { Format::Table } else { Format::Raw })
}

fn endpoints(texts: &[String]) -> Result<Vec<Endpoint>, Failure> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let endpoint = text.parse().map_err(|error| usage(format!("{error}")))?;
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err(usage("no endpoint is given (-e, KVCTL_ENDPOINTS)"));
    }
    Ok(endpoints)
}

const fn default_timeout(command: &Command) -> Duration {
    match command {
        Command::Import { .. } | Command::Export { .. } => TRANSFER_TIMEOUT,
        Command::Status | Command::Leader | Command::KillLeader { .. } | Command::Kill { .. } => NODE_TIMEOUT,
        Command::Put { .. }
        | Command::Get { .. }
        | Command::Del { .. }
        | Command::Cas { .. }
        | Command::Scan { .. }
        | Command::Member(_)
        | Command::Drain { .. }
        | Command::Recover { .. }
        | Command::Bench { .. }
        | Command::Verify(_)
        | Command::Completions { .. } => TIMEOUT,
    }
}

fn task(command: Command, timeout: Duration) -> Result<Task, Failure> {
    Ok(match command {
        Command::Put { key, value } => Task::Put { key: key_of(key)?, value: source(value) },
        Command::Get { key, consistency, evidence } => {
            if evidence && matches!(consistency, Freshness::Local) {
                return Err(usage("--evidence shows how members agreed, and a local read asks none"));
            }
            let options = GetOptions { consistency: consistency.into(), evidence };
            Task::Get { key: key_of(key)?, options }
        }
        Command::Del { key } => Task::Delete { key: key_of(key)? },
        Command::Cas { key, expect_version, value } => Task::CompareAndSet {
            key: key_of(key)?,
            expected: Version::new(expect_version),
            value: source(value),
        },
        Command::Scan { prefix, limit, after, consistency } => Task::Scan(Scan {
            prefix: bytes_of(prefix),
            after: after.map(bytes_of),
            limit: limit.unwrap_or(u64::MAX),
            consistency: consistency.into(),
        }),
        Command::Status => Task::Status,
        Command::Leader => Task::Leader,
        Command::KillLeader { at_once } => Task::KillLeader { at_once },
        Command::Kill { node, at_once } => Task::Kill { node, at_once },
        Command::Drain { node, undo } => Task::Drain { node, undo },
        Command::Member(command) => Task::Member(member(command, timeout)?),
        Command::Recover { directories, to, address, dry_run, force } => {
            let address = address.parse().map_err(|error| usage(format!("{error}")))?;
            Task::Recover(Recovery { directories, to, address, dry_run, force })
        }
        Command::Import { file, checkpoint, window } => Task::Import(import(file, checkpoint, window)?),
        Command::Export { prefix, file, after, resume } => {
            Task::Export(Export { prefix: bytes_of(prefix), after: after.map(bytes_of), file, resume })
        }
        Command::Bench { command: Some(BenchCommand::Election(arguments)), .. } => {
            Task::BenchElection(arguments)
        }
        Command::Bench { command: None, load } => Task::Bench(check_bench(load)?),
        Command::Verify(arguments) => Task::Verify(arguments.check()?),
        Command::Completions { shell } => Task::Completions(shell),
    })
}

fn member(command: MemberCommand, patience: Duration) -> Result<MemberTask, Failure> {
    let endpoint = |text: String| text.parse().map_err(|error| usage(format!("{error}")));
    let how = |ChangeArguments { dry_run, force, wait }| Changing { dry_run, force, wait, patience };
    Ok(match command {
        MemberCommand::List => MemberTask::List,
        MemberCommand::Add { address, learner, change } => {
            MemberTask::Add { address: endpoint(address)?, learner, how: how(change) }
        }
        MemberCommand::Remove { node, change } => MemberTask::Remove { node, how: how(change) },
        MemberCommand::Replace { old, new, change } => {
            MemberTask::Replace { old, new: endpoint(new)?, how: how(change) }
        }
        MemberCommand::Promote { node, change } => MemberTask::Promote { node, how: how(change) },
    })
}

fn import(file: PathBuf, checkpoint: Option<PathBuf>, window: usize) -> Result<Import, Failure> {
    if window == 0 {
        return Err(usage("--window must be at least 1"));
    }
    let input = input(file);
    let checkpoint = match (&input, checkpoint) {
        (Input::File(path), None) => Some(with_suffix(path, ".progress")),
        (_, chosen) => chosen,
    };
    Ok(Import { input, checkpoint, window })
}

/// The longest value that nodes take, in bytes.
const LONGEST_VALUE: usize = 8 << 20;

fn check_bench(arguments: BenchArguments) -> Result<BenchArguments, Failure> {
    let at_most = [
        ("--clients", arguments.clients, 100_000),
        ("--connections", arguments.connections, 10_000),
        ("--keys", arguments.keys, 1_000_000_000),
        ("--threads", arguments.threads, 1024),
    ];
    if let Some((name, _, most)) = at_most.iter().find(|(_, number, most)| !(1..=*most).contains(number)) {
        return Err(usage(format!("{name} must be from 1 to {most}")));
    }
    if arguments.value_size > LONGEST_VALUE {
        return Err(Failure::new(Code::Limit, format!("a value has at most {LONGEST_VALUE} bytes")));
    }
    if !(0.1..=86_400.0).contains(&arguments.seconds) {
        return Err(usage("--seconds must be from 0.1 to 86400"));
    }
    Ok(arguments)
}

fn key_of(key: OsString) -> Result<Bytes, Failure> {
    if key.is_empty() {
        return Err(usage("a key has at least one byte"));
    }
    Ok(bytes_of(key))
}

fn bytes_of(text: OsString) -> Bytes {
    text.into_encoded_bytes().into()
}

fn source(arguments: ValueArguments) -> Source {
    match (arguments.value, arguments.file) {
        (_, Some(file)) => Source::Read(input(file)),
        (Some(value), None) if value == "-" => Source::Read(Input::Stdin),
        (value, None) => Source::Given(bytes_of(value.unwrap_or_default())),
    }
}

fn input(path: PathBuf) -> Input {
    if path.as_os_str() == "-" { Input::Stdin } else { Input::File(path) }
}

/// The path with something after its whole name, so that it stands beside the file.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Code::Usage, message)
}

impl From<Freshness> for Consistency {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Quorum => Self::Quorum,
            Freshness::Local => Self::Local,
        }
    }
}

impl Input {
    /// Opens it for reading.
    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>, Failure> {
        match self {
            Self::Stdin => Ok(Box::new(io::stdin())),
            Self::File(path) => {
                let file = std::fs::File::open(path).map_err(|error| self.failed("open", &error))?;
                Ok(Box::new(file))
            }
        }
    }

    /// An operation on it failed.
    pub(crate) fn failed(&self, doing: &str, error: &io::Error) -> Failure {
        Failure::io(&format!("{doing} {}", self.name()), error)
    }

    fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl Source {
    /// The value, all of it.
    pub(crate) fn value(self) -> Result<Bytes, Failure> {
        let input = match self {
            Self::Given(value) => return Ok(value),
            Self::Read(input) => input,
        };
        let mut value = Vec::new();
        let reader = input.open()?;
        reader.take(MAX_VALUE + 1).read_to_end(&mut value).map_err(|error| input.failed("read", &error))?;
        if value.len() as u64 > MAX_VALUE {
            let message = format!("the value from {} has more than {MAX_VALUE} bytes", input.name());
            return Err(Failure::new(Code::Limit, message));
        }
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn parse(line: &str) -> Invocation {
        let arguments = Arguments::try_parse_from(line.split(' ')).expect("the command line is well formed");
        Invocation::try_from(arguments).expect("the command line makes sense")
    }

    fn refused(words: &[&str]) -> Option<Code> {
        match Arguments::try_parse_from(words).map(Invocation::try_from) {
            Ok(Err(failure)) => failure.code(),
            Ok(Ok(_)) | Err(_) => None,
        }
    }

    #[test]
    fn values_come_from_the_command_line_a_file_or_stdin() {
        let source = |line| match parse(line).task {
            Task::Put { value, .. } | Task::CompareAndSet { value, .. } => value,
            task => panic!("unexpected {task:?}"),
        };
        assert_eq!(source("kvctl put k v"), Source::Given("v".into()));
        assert_eq!(source("kvctl put k -"), Source::Read(Input::Stdin));
        assert_eq!(source("kvctl put k --file -"), Source::Read(Input::Stdin));
        assert_eq!(source("kvctl cas k --expect-version 0 --file f"), Source::Read(Input::File("f".into())));
        assert_eq!(source("kvctl put k -- -5"), Source::Given("-5".into()));
        for line in ["kvctl put k", "kvctl put k v --file f", "kvctl cas k v"] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn timeouts_suit_the_command_unless_given() {
        assert_eq!(parse("kvctl get k").timeout, TIMEOUT);
        assert_eq!(parse("kvctl status").timeout, NODE_TIMEOUT);
        assert_eq!(parse("kvctl import f").timeout, TRANSFER_TIMEOUT);
        assert_eq!(parse("kvctl import f --timeout 150ms").timeout, Duration::from_millis(150));
        for time in ["0s", "ten", "5000h", "-1s"] {
            assert!(Arguments::try_parse_from(["kvctl", "status", "--timeout", time]).is_err(), "{time}");
        }
    }

    #[test]
    fn endpoints_are_checked_and_told_apart() {
        let invocation = parse("kvctl -e a:1,b:2,a:1 leader");
        assert_eq!(invocation.endpoints.iter().map(Endpoint::as_str).collect::<Vec<_>>(), ["a:1", "b:2"]);
        for endpoints in ["", ",", "a", "a:1,b"] {
            assert_eq!(refused(&["kvctl", "leader", "-e", endpoints]), Some(Code::Usage), "{endpoints:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(refused(&["kvctl", "get", ""]), Some(Code::Usage));
        assert_eq!(
            refused(&["kvctl", "get", "k", "--evidence", "--consistency", "local"]),
            Some(Code::Usage)
        );
        assert_eq!(refused(&["kvctl", "import", "f", "--window", "0"]), Some(Code::Usage));
        assert_eq!(refused(&["kvctl", "bench", "--clients", "0"]), Some(Code::Usage));
        assert_eq!(refused(&["kvctl", "bench", "--keys", "99999999999"]), Some(Code::Usage));
        assert_eq!(LONGEST_VALUE, quorumkv_protocol::hello::Limits::DEFAULT.value as usize);
        let too_long = (LONGEST_VALUE + 1).to_string();
        assert_eq!(refused(&["kvctl", "bench", "--value-size", &too_long]), Some(Code::Limit));
        assert_eq!(refused(&["kvctl", "bench", "--seconds", "nan"]), Some(Code::Usage));
    }

    #[test]
    fn progress_is_noted_beside_the_input() {
        let checkpoint = |line| match parse(line).task {
            Task::Import(import) => import.checkpoint,
            task => panic!("unexpected {task:?}"),
        };
        assert_eq!(checkpoint("kvctl import d/f.jsonl"), Some("d/f.jsonl.progress".into()));
        assert_eq!(checkpoint("kvctl import f --checkpoint c"), Some("c".into()));
        assert_eq!(checkpoint("kvctl import -"), None);
    }
}
