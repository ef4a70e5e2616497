//! What `kvctl verify` is told.

use std::path::PathBuf;

use clap::Args;

use crate::args::Freshness;
use crate::exit::{Code, Failure};

/// Example of the command, and what it ends with.
pub(crate) const EXAMPLES: &str = "Examples:\n  kvctl verify\n  kvctl verify --seconds 60 --clients 32 --history history.jsonl\n  \
    kvd dev &\n  kvctl verify --chaos\n\n\
    Reads, writes, deletes and compares-and-sets keys under a prefix of its own, records what each client asked and heard, and\n\
    checks that all of it fits one order. Name all nodes with -e: reads go to all of them. Other keys are not touched, and its own\n\
    are deleted at the end. Ends with 10 if the answers contradict each other; the page of --html shows how. Ends with 7 if too many\n\
    writes were not answered to find out.";

/// How to verify
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArguments {
    /// How long the clients go on
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Clients at once; each does one thing after the other
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) clients: u32,
    /// How fresh reads must be; old answers to local ones are counted and are no violation
    #[arg(long, value_enum, default_value = "quorum", value_name = "HOW")]
    pub(crate) consistency: Freshness,
    /// Keys in use at a time; a few of them get most of the operations, and others take their place after a while
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) keys: usize,
    /// Pause and kill nodes meanwhile, a minority at a time; only for a cluster that `kvd dev` runs on this machine
    #[arg(long)]
    pub(crate) chaos: bool,
    /// Where to write a page that shows a violation
    #[arg(long, value_name = "PATH", default_value = "kvctl-verify.html")]
    pub(crate) html: PathBuf,
    /// Write down what was asked and heard, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
}

impl VerifyArguments {
    /// The arguments, if they make sense.
    pub(crate) fn check(self) -> Result<Self, Failure> {
        let usage = |message: &str| Err(Failure::new(Code::Usage, message));
        if !(0.1..=86_400.0).contains(&self.seconds) {
            return usage("--seconds must be from 0.1 to 86400");
        }
        if !(1..=10_000).contains(&self.clients) {
            return usage("--clients must be from 1 to 10000");
        }
        if !(1..=100_000).contains(&self.keys) {
            return usage("--keys must be from 1 to 100000");
        }
        Ok(self)
    }
}
