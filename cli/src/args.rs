//! The command line as it is typed. [`Invocation`](crate::invocation::Invocation) is what it means.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::commands::bench::peers::Peer;
use crate::commands::verify::{self, VerifyArguments};
use crate::output::Format;

/// The nodes of a cluster on this machine, as the quick start makes it.
const ENDPOINTS: &str = "127.0.0.1:5000,127.0.0.1:5001,127.0.0.1:5002";

/// Where help lists the options that every command has.
const GLOBAL: &str = "Options of all commands";

const EXIT_CODES: &str = "\
Exit codes:
  0 ok             4 precondition failed        8 not permitted
  1 other          5 unreachable                9 over a limit
  2 usage          6 no quorum, not applied    10 unhealthy
  3 not found      7 outcome unknown             (verify: violation)";

/// The command line of quorumkv, a replicated key-value store
#[derive(Parser, Debug)]
#[command(name = "kvctl", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Nodes to talk to, separated by commas; some of the cluster are enough
    #[arg(
        short,
        long,
        global = true,
        env = "KVCTL_ENDPOINTS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "HOST:PORT",
        default_value = ENDPOINTS,
        help_heading = GLOBAL
    )]
    pub(crate) endpoints: Vec<String>,

    /// How long an operation may take with all its retries, such as 500ms, 10s or 2min
    /// [default: 10s; import and export 1min for each step; status, leader and kill 3s]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_timeout, help_heading = GLOBAL)]
    pub(crate) timeout: Option<Duration>,

    /// How results are written: table, json or raw [default: table on a terminal, raw otherwise]
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = GLOBAL
    )]
    pub(crate) output: Option<Format>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Set a key
    #[command(
        override_usage = "kvctl put [OPTIONS] <KEY> <VALUE|->\n       kvctl put [OPTIONS] <KEY> --file <FILE>",
        after_help = "Examples:\n  kvctl put greeting hello\n  kvctl put photo --file cat.jpg\n  date | kvctl put now -"
    )]
    Put {
        /// The key
        key: OsString,
        #[command(flatten)]
        value: ValueArguments,
    },
    /// Read a key
    #[command(
        after_help = "Examples:\n  kvctl get greeting\n  kvctl get photo >cat.jpg\n  kvctl get greeting --evidence"
    )]
    Get {
        /// The key
        key: OsString,
        /// How fresh the answer must be
        #[arg(long, value_enum, default_value = "quorum", value_name = "HOW")]
        consistency: Freshness,
        /// Show which members were asked and what they said
        #[arg(long)]
        evidence: bool,
    },
    /// Remove a key
    #[command(after_help = "Example:\n  kvctl del greeting")]
    Del {
        /// The key
        key: OsString,
    },
    /// Set a key if it is at a version (compare and set)
    #[command(
        override_usage = "kvctl cas [OPTIONS] --expect-version <VERSION> <KEY> <VALUE|->\n       \
            kvctl cas [OPTIONS] --expect-version <VERSION> <KEY> --file <FILE>",
        after_help = "Examples:\n  kvctl cas lock --expect-version 0 mine\n  kvctl cas config --expect-version 42 --file new.toml"
    )]
    Cas {
        /// The key
        key: OsString,
        /// The version that the key must have; 0: it must be absent
        #[arg(long, value_name = "VERSION")]
        expect_version: u64,
        #[command(flatten)]
        value: ValueArguments,
    },
    /// List the keys that begin with a prefix, in order
    #[command(after_help = "Examples:\n  kvctl scan user/\n  kvctl scan '' --limit 10 -o json")]
    Scan {
        /// What the keys begin with; empty for all
        prefix: OsString,
        /// Most keys to list
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Only keys after this one
        #[arg(long, value_name = "KEY")]
        after: Option<OsString>,
        /// How fresh the answer must be
        #[arg(long, value_enum, default_value = "quorum", value_name = "HOW")]
        consistency: Freshness,
    },
    /// Ask every endpoint how it is
    #[command(
        after_help = "Example:\n  kvctl status\n\nEnds with 10 unless every endpoint answers, is ready, and one leads."
    )]
    Status,
    /// Say who leads
    #[command(after_help = "Example:\n  kvctl leader")]
    Leader,
    /// Stop the daemon that leads; another takes over
    #[command(after_help = "Example:\n  kvctl kill-leader")]
    KillLeader {
        /// As SIGKILL does: nothing is handed over or finished
        #[arg(short = '9', long)]
        at_once: bool,
    },
    /// Stop a daemon
    #[command(after_help = "Examples:\n  kvctl kill 127.0.0.1:5001\n  kvctl kill 3fa2")]
    Kill {
        /// An endpoint, or the beginning of a node's id
        node: String,
        /// As SIGKILL does: nothing is handed over or finished
        #[arg(short = '9', long)]
        at_once: bool,
    },
    /// Have a node serve no clients and not lead, as before its machine is worked on; it goes on voting
    #[command(
        after_help = "Examples:\n  kvctl drain 127.0.0.1:5001 && kvctl kill 127.0.0.1:5001\n  kvctl drain --undo 127.0.0.1:5001\n\n\
        A node that starts serves."
    )]
    Drain {
        /// An endpoint, or the beginning of a node's id
        node: String,
        /// Have it serve and lead again
        #[arg(long)]
        undo: bool,
    },
    /// Show and change who belongs to the cluster
    #[command(subcommand)]
    Member(MemberCommand),
    /// Make a new cluster from what is left of one that has lost its quorum for good; the nodes must be stopped
    #[command(after_help = "Example, of three nodes of which two are gone:\n  \
        kvctl recover /var/lib/kvd-5002 --to /var/lib/kvd-new --address 10.0.0.7:5000 --dry-run\n  \
        kvctl recover /var/lib/kvd-5002 --to /var/lib/kvd-new --address 10.0.0.7:5000\n  \
        kvd --data-dir /var/lib/kvd-new --port 5000 --advertise 10.0.0.7:5000 --zookeeper 10.0.0.1:2181/kv-2 …\n\n\
        Name the data directories of all nodes that are left: the best is taken, and none is changed. Runs kvd, which must be beside\n\
        kvctl or in PATH. See docs/members.md.")]
    Recover {
        /// Data directories of the nodes that are left
        #[arg(required = true, value_name = "DIR")]
        directories: Vec<PathBuf>,
        /// Where the first node of the new cluster is to keep its data; it must not be there, or be empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Where that node will be reached
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
        /// Only say what would be kept, and what lost
        #[arg(long)]
        dry_run: bool,
        /// Make a new cluster even if the nodes that are left could go on as the old one, or from a damaged state
        #[arg(long)]
        force: bool,
    },
    /// Set all keys of a file of JSON lines
    #[command(
        after_help = "Examples:\n  kvctl import backup.jsonl\n  zcat backup.jsonl.gz | kvctl import -\n\n\
        A line is {\"key\": …, \"value\": …}, or key_base64 and value_base64 for what is not UTF-8.\n\
        After an interruption the same command goes on where it stopped."
    )]
    Import {
        /// The file; - is stdin
        file: PathBuf,
        /// Where to note how far it came [default: FILE.progress; none for stdin]
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// Most writes in flight
        #[arg(long, value_name = "N", default_value_t = 256)]
        window: usize,
    },
    /// Write all keys that begin with a prefix as JSON lines
    #[command(
        after_help = "Examples:\n  kvctl export --file backup.jsonl\n  kvctl export user/ | gzip >users.jsonl.gz\n\n\
        Each page of 1000 keys is one snapshot; keys changed meanwhile may or may not show it."
    )]
    Export {
        /// What the keys begin with
        #[arg(default_value = "", hide_default_value = true)]
        prefix: OsString,
        /// Write to this file, which appears when it is complete
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only keys after this one
        #[arg(long, value_name = "KEY")]
        after: Option<OsString>,
        /// Go on with the file that an interrupted export left (FILE.partial)
        #[arg(long, requires = "file", conflicts_with = "after")]
        resume: bool,
    },
    /// Measure how fast the cluster is
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  kvctl bench --op mixed --clients 256 --seconds 10 -o json\n  kvctl bench election --rounds 20\n  \
        kvctl bench --op put --compare etcd=10.0.0.1:2379,10.0.0.2:2379 --compare redis=10.0.0.1:6379\n\n\
        Writes keys under bench/ and leaves them, also in what it is compared with (znodes under /bench).\n\
        Clients are closed loops: each waits for its answer before it asks again."
    )]
    Bench {
        #[command(subcommand)]
        command: Option<BenchCommand>,
        #[command(flatten)]
        load: BenchArguments,
    },
    /// Check that the cluster's answers are linearizable, while clients read and write
    #[command(after_help = verify::EXAMPLES)]
    Verify(VerifyArguments),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  kvctl completions bash >/etc/bash_completion.d/kvctl")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What to do about the members
#[derive(Subcommand, Debug)]
pub(crate) enum MemberCommand {
    /// List the members and how far they are, as the leader knows it
    #[command(after_help = "Example:\n  kvctl member list")]
    List,
    /// Add a node: it is brought up to date first, and votes then
    #[command(
        after_help = "Example:\n  kvd --port 5003 --data-dir /var/lib/kvd-5003 --zookeeper 127.0.0.1:2181 &\n  \
        kvctl member add 127.0.0.1:5003\n\nThe node must run, with an empty data directory and the ZooKeeper of this cluster."
    )]
    Add {
        /// Where the other nodes reach it
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// Leave it a learner: it holds everything and does not vote
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        change: ChangeArguments,
    },
    /// Remove a member; its process ends
    #[command(
        after_help = "Examples:\n  kvctl member remove 127.0.0.1:5003\n  kvctl member remove 3fa2 --dry-run"
    )]
    Remove {
        /// Its address, or the beginning of its id
        node: String,
        #[command(flatten)]
        change: ChangeArguments,
    },
    /// Put a new node in the place of a member, which may be dead
    #[command(
        after_help = "Example:\n  kvctl member replace 3fa2 127.0.0.1:5003\n\nThe old member goes when the new one is up to date. \
        A node that lost its disk and starts again at its old address does this by itself."
    )]
    Replace {
        /// The address of the member that goes, or the beginning of its id
        old: String,
        /// Where the other nodes reach the node that comes
        #[arg(value_name = "HOST:PORT")]
        new: String,
        #[command(flatten)]
        change: ChangeArguments,
    },
    /// Let a learner vote, as soon as it is up to date
    #[command(after_help = "Example:\n  kvctl member promote 127.0.0.1:5003")]
    Promote {
        /// Its address, or the beginning of its id
        node: String,
        #[command(flatten)]
        change: ChangeArguments,
    },
}

/// How to change the members
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ChangeArguments {
    /// Only say whether it would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it although fewer members than a quorum may be left that answer: writes may then wait for ever
    #[arg(long)]
    pub(crate) force: bool,
    /// How long to wait for a node to be brought up to date
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, default_value = "1h")]
    pub(crate) wait: Duration,
}

/// Where a value comes from: one of the two
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct ValueArguments {
    /// The value; - reads it from stdin
    pub(crate) value: Option<OsString>,
    /// Read the value from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// How fresh an answer must be
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Freshness {
    /// Linearizable: a read quorum agrees
    Quorum,
    /// What the asked node has applied: fast, and possibly old
    Local,
}

/// What to measure
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArguments {
    /// What the clients do; mixed is 90 % get and 10 % put
    #[arg(long, value_enum, default_value = "mixed")]
    pub(crate) op: Op,
    /// Closed loops at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) clients: usize,
    /// Connections that they share in all, spread evenly over the endpoints
    #[arg(long, value_name = "K", default_value_t = 12)]
    pub(crate) connections: usize,
    /// How long to measure, after one second of warm-up
    #[arg(long, value_name = "S", default_value_t = 8.0)]
    pub(crate) seconds: f64,
    /// Bytes in a value
    #[arg(long, value_name = "B", default_value_t = 256)]
    pub(crate) value_size: usize,
    /// Different keys, chosen evenly at random
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) keys: usize,
    /// Threads of this process
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
    /// Load another system that runs already in the same way afterwards: etcd, zookeeper or redis, with addresses for
    /// clients separated by commas. Can be repeated
    #[arg(long, value_name = "SYSTEM=HOST:PORT,…", value_parser = Peer::parse)]
    pub(crate) compare: Vec<Peer>,
    /// Do not load kvd, which need not run: so that one system is up at a time
    #[arg(long, requires = "compare")]
    pub(crate) only_compared: bool,
    /// The keys are there already: do not write each of them once before
    #[arg(long)]
    pub(crate) filled: bool,
    /// Send writes to all endpoints of kvd, which forward them, and not to the leader
    #[arg(long)]
    pub(crate) spread_writes: bool,
}

/// Something else to measure
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum BenchCommand {
    /// Measure how long nobody can write when the leader goes
    #[command(after_help = "Example:\n  kvd dev --restart &\n  kvctl bench election --rounds 20\n\n\
        Drains and kills the leader, so it is for clusters that nobody else uses, and with `--how kill` for nodes that are\n\
        started again when they end. One client writes all the time. The phases, in order: until another node noticed (and the\n\
        client had found it), it was elected by ZooKeeper, a quorum had promised to follow it, it had all that was committed,\n\
        and its first write was committed.")]
    Election(ElectionArguments),
}

/// How to measure elections
#[derive(Args, Clone, Debug)]
pub(crate) struct ElectionArguments {
    /// How often the leader goes in each way
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rounds: u32,
    /// In which ways
    #[arg(long = "how", value_enum, value_delimiter = ',', default_values = ["drain", "kill"], value_name = "HOW,…")]
    pub(crate) ways: Vec<Way>,
}

/// How a leader goes
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Way {
    /// It hands over
    Drain,
    /// As by SIGKILL
    Kill,
}

/// An operation to measure
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Op {
    /// Replace values
    Put,
    /// Linearizable reads
    Get,
    /// Reads of what the asked node has applied
    GetLocal,
    /// 90 % get, 10 % put
    Mixed,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err("it must be longer than zero".to_owned()),
        Ok(time) if time > Duration::from_secs(24 * 3600) => Err("more than a day is no timeout".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(format!("{error} (expected something like 500ms, 10s or 2min)")),
    }
}
