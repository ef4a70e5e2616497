//! The command line of `kvd recover`.

use std::path::PathBuf;

use clap::Args;

/// What to recover, and where to.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example, of three nodes of which two are gone for good:\n  \
    kvd recover /var/lib/kvd-5002 --to /var/lib/kvd-new --address 10.0.0.7:5000 --dry-run\n  \
    kvd recover /var/lib/kvd-5002 --to /var/lib/kvd-new --address 10.0.0.7:5000\n  \
    kvd --data-dir /var/lib/kvd-new --port 5000 --advertise 10.0.0.7:5000 --zookeeper 10.0.0.1:2181/kv-2 …\n\n\
    Name the directories of all nodes that are left, stopped: the best of them is taken. Nodes of the old cluster that turn up later \
    are no part of the new one: do not start them.")]
pub struct RecoverFlags {
    /// Data directories of the nodes that are left; none of them is changed
    #[arg(required = true, value_name = "DIR")]
    pub directories: Vec<PathBuf>,
    /// Where the first node of the new cluster is to keep its data; it must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Where that node will be reached: its --advertise, or --host and --port
    #[arg(long, value_name = "HOST:PORT")]
    pub address: String,
    /// Only say what would be kept, and what lost
    #[arg(long)]
    pub dry_run: bool,
    /// Make a new cluster even if the nodes that are left could go on as the old one, or from a damaged state
    #[arg(long)]
    pub force: bool,
    /// Write the report as JSON
    #[arg(long)]
    pub json: bool,
}
