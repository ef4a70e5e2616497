//! What kvctl does, one file per group of commands.

pub(crate) mod bench;
mod cluster;
mod evidence;
mod export;
mod import;
mod member;
mod recover;
mod scan;
mod status;
mod transfer;
mod values;
pub(crate) mod verify;

use clap::CommandFactory;
use tokio::runtime::{Builder, Runtime};

use crate::args::Arguments;
use crate::exit::Failure;
use crate::invocation::{Invocation, Task};
use crate::output::Output;

/// Carries out a command.
pub(crate) fn run(invocation: Invocation) -> Result<(), Failure> {
    let mut output = Output::new(invocation.format);
    let ended = dispatch(invocation, &mut output);
    // What is already there is shown even when the command ends with a failure.
    output.flush().and(ended)
}

fn dispatch(invocation: Invocation, output: &mut Output) -> Result<(), Failure> {
    if let Task::Completions(shell) = invocation.task {
        return completions(shell, output);
    }
    if let Task::Bench(arguments) = &invocation.task {
        return runtime(arguments.threads)?.block_on(bench::run(&invocation, arguments, output));
    }
    if let Task::BenchElection(arguments) = &invocation.task {
        return runtime(1)?.block_on(bench::election::run(&invocation, arguments, output));
    }
    if let Task::Verify(arguments) = &invocation.task {
        return runtime(1)?.block_on(verify::run(&invocation, arguments, output));
    }
    if let Task::Recover(recovery) = &invocation.task {
        return recover::run(recovery, output);
    }
    runtime(1)?.block_on(online(invocation, output))
}

/// The commands that need the cluster.
async fn online(invocation: Invocation, output: &mut Output) -> Result<(), Failure> {
    let client = &invocation.client(1)?;
    match invocation.task {
        Task::Put { key, value } => values::put(client, key, value, output).await,
        Task::Get { key, options } => values::get(client, key, options, output).await,
        Task::Delete { key } => values::delete(client, key, output).await,
        Task::CompareAndSet { key, expected, value } => {
            values::compare_and_set(client, key, expected, value, output).await
        }
        Task::Scan(scan) => scan::run(client, scan, output).await,
        Task::Status => status::run(client, output).await,
        Task::Leader => cluster::leader(client, output).await,
        Task::KillLeader { at_once } => cluster::kill_leader(client, at_once, output).await,
        Task::Kill { node, at_once } => cluster::kill(client, &node, at_once, output).await,
        Task::Drain { node, undo } => cluster::drain(client, &node, undo, output).await,
        Task::Member(task) => member::run(client, task, output).await,
        Task::Import(import) => import::run(client, import, invocation.timeout, output).await,
        Task::Export(export) => export::run(client, export, invocation.timeout, output).await,
        Task::Bench(_)
        | Task::BenchElection(_)
        | Task::Verify(_)
        | Task::Completions(_)
        | Task::Recover(_) => {
            unreachable!("they are carried out elsewhere")
        }
    }
}

fn completions(shell: clap_complete::Shell, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kvctl", &mut script);
    output.bytes(&script)
}

/// One thread is the quickest for one request at a time.
fn runtime(threads: usize) -> Result<Runtime, Failure> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().map_err(|error| Failure::io("start the runtime", &error))
}
