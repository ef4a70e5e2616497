//! Whether a cluster keeps its promises: clients write down what they asked and heard, and it is checked that all of it fits one order.

mod arguments;
mod chaos;
mod cleanup;
mod dev;
mod report;
mod workload;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use quorumkv_client::{Client, Consistency};
use quorumkv_history::{Checked, Operation, Outcome, Stale, Violation, check, check_local, html};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

pub(crate) use arguments::{EXAMPLES, VerifyArguments};
use chaos::Chaos;
use cleanup::Left;
use dev::DevCluster;
use report::{Measured, Report};
use workload::{Run, Shared, lock};

use crate::commands::transfer;
use crate::exit::{Code, Failure};
use crate::invocation::Invocation;
use crate::output::{Output, to_json};

/// A request in flight at the end ends by its own timeout. Beyond it by this much, its client is given up.
const DRAIN: Duration = Duration::from_secs(2);

/// The same when somebody waits for the end.
const INTERRUPTED_DRAIN: Duration = Duration::from_secs(1);

/// After so long somebody who waits for the keys to be deleted is told so.
const QUIET: Duration = Duration::from_secs(3);

pub(crate) async fn run(
    invocation: &Invocation,
    arguments: &VerifyArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let client = invocation.client(1)?;
    // Before anything is written.
    let mut chaos = match arguments.chaos {
        true => Some(Chaos::new(DevCluster::find(&invocation.endpoints)?, client.clone())),
        false => None,
    };
    can_be_written(&arguments.html)?;
    let history_file = arguments.history.as_deref().map(create).transpose()?;
    client.ready().await?;
    let consistency = Consistency::from(arguments.consistency);
    let run = Arc::new(Run::new(arguments.keys, arguments.clients, arguments.seconds, consistency));
    let recorded = record(invocation, arguments, &run, chaos.as_mut()).await?;
    let restored = match &mut chaos {
        Some(chaos) => tokio::select! {
            restored = chaos.restore() => restored,
            // Nodes are awake by now; those that were killed are started by kvd dev, whether somebody waits or not.
            failure = transfer::interrupted() => Err(failure),
        },
        None => Ok(()),
    };
    let left = clean_up(&client, &run.prefix, &recorded.operations).await;
    if let (Some(path), Some(file)) = (&arguments.history, history_file) {
        write_history(file, &recorded.operations).map_err(|error| failed_with(path, &error))?;
    }
    let verdict = judge(arguments, &run, &recorded, chaos.as_ref(), &left, output);
    output.flush()?;
    // The worst comes first: a violation is told even where something else went wrong, too.
    let undecided = verdict?;
    recorded.ended?;
    restored?;
    undecided.map_or(Ok(()), Err)?;
    match left {
        Left::Nothing => Ok(()),
        Left::Perhaps(failure) => Err(failure.context(&format!("keys may be left below {}", run.prefix))),
    }
}

/// What the clients asked and heard.
struct Recorded {
    /// By the times of their calls.
    operations: Vec<Operation>,
    time: Duration,
    interrupted: bool,
    /// Why it ended before its time, or why it is worth nothing.
    ended: Result<(), Failure>,
}

/// Runs the clients.
async fn record(
    invocation: &Invocation,
    arguments: &VerifyArguments,
    run: &Arc<Run>,
    chaos: Option<&mut Chaos>,
) -> Result<Recorded, Failure> {
    let mut records = Vec::new();
    let mut tasks = JoinSet::new();
    for number in 0..arguments.clients {
        let record = Shared::default();
        records.push(Arc::clone(&record));
        tasks.spawn(workload::client(number, invocation.client(1)?, Arc::clone(run), record));
    }
    let begun = Instant::now();
    let bar = bar(arguments.seconds);
    let (mut interrupted, mut ended) = (false, Ok(()));
    let trouble = async {
        match chaos {
            Some(chaos) => chaos.run(&bar).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = watch(arguments.seconds, &bar, run) => {}
        failure = trouble => ended = Err(failure),
        failure = transfer::interrupted() => {
            interrupted = true;
            ended = Err(failure);
        }
    }
    run.stop();
    let time = begun.elapsed();
    bar.finish_and_clear();
    let patience = if interrupted { INTERRUPTED_DRAIN } else { invocation.timeout + DRAIN };
    let drained = timeout(patience, async {
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a client does not panic");
        }
    });
    // What those are doing that have not ended by then is on record as unknown.
    let _ = drained.await;
    tasks.shutdown().await;
    let mut operations = Vec::new();
    let mut last_error = None;
    for record in &records {
        let mut record = lock(record);
        operations.append(&mut record.operations);
        last_error = record.last_error.take().or(last_error);
    }
    operations.sort_by_key(|operation| operation.called);
    let is_answer = |operation: &Operation| !matches!(operation.outcome, Outcome::Failed | Outcome::Unknown);
    if ended.is_ok() && !operations.iter().any(is_answer) {
        let nothing = || Failure::new(Code::NoQuorum, "there was no time for an answer");
        ended =
            Err(last_error.unwrap_or_else(nothing).context("nothing was answered, so nothing is verified"));
    }
    Ok(Recorded { operations, time, interrupted, ended })
}

/// Lets the time pass, and shows people what happens.
async fn watch(seconds: f64, bar: &ProgressBar, run: &Run) {
    let end = tokio::time::Instant::now() + Duration::from_secs_f64(seconds);
    let mut ticks = interval(Duration::from_millis(100));
    while tokio::time::Instant::now() < end {
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            _ = ticks.tick() => bar.inc(1),
        }
        let (done, unknown) = (run.done.load(Ordering::Relaxed), run.unknown.load(Ordering::Relaxed));
        bar.set_prefix(format!("{done} operations, {unknown} unknown"));
    }
}

/// The progress on stderr, if that is a terminal.
fn bar(seconds: f64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {eta} left  {prefix}  {msg}");
    let steps = u64::try_from(Duration::from_secs_f64(seconds).as_millis() / 100).unwrap_or(u64::MAX);
    ProgressBar::new(steps).with_style(style.expect("the template is well formed"))
}

/// Deletes the keys of the run, unless somebody does not want to wait for it.
async fn clean_up(client: &Client, prefix: &str, operations: &[Operation]) -> Left {
    // Those of clients that were given up are among them.
    let unknown = operations.iter().any(|operation| operation.outcome == Outcome::Unknown);
    let deleting = cleanup::delete_all(client, prefix, unknown);
    let slow = async {
        tokio::time::sleep(QUIET).await;
        // For people; without stderr there is nobody to tell it to.
        let _ = writeln!(
            io::stderr(),
            "kvctl: still deletes what was written below {prefix} (Ctrl-C leaves it there)"
        );
        std::future::pending().await
    };
    tokio::select! {
        left = deleting => left,
        failure = transfer::interrupted() => Left::Perhaps(failure),
        left = slow => left,
    }
}

/// Checks what was recorded, and tells what came of it. Fails if it is wrong; returns why it is not known to be right.
fn judge(
    arguments: &VerifyArguments,
    run: &Run,
    recorded: &Recorded,
    chaos: Option<&Chaos>,
    left: &Left,
    output: &mut Output,
) -> Result<Option<Failure>, Failure> {
    let local = Consistency::from(arguments.consistency) == Consistency::Local;
    let begun = Instant::now();
    let checked = checked(&recorded.operations, local);
    let measured = Measured {
        clients: arguments.clients,
        time: recorded.time,
        check: begun.elapsed(),
        local,
        interrupted: recorded.interrupted,
        undecided_keys: checked.as_ref().map_or(0, |(checked, _)| checked.undecided),
    };
    let mut report = Report::new(run, &recorded.operations, &measured);
    report.chaos = chaos.map(|chaos| chaos.faults);
    report.cleaned_up = matches!(left, Left::Nothing);
    let verdict = match checked {
        Ok((checked, stale)) => {
            report.stale = stale;
            Ok((checked.undecided > 0).then(|| not_decided(checked.undecided)))
        }
        Err(violation) => {
            let page = html(&violation, &recorded.operations);
            let written = std::fs::write(&arguments.html, page);
            let shown = written.is_ok().then(|| arguments.html.display().to_string());
            let reason = violation.reason.trim_end_matches('.');
            let message = format!("the cluster's answers contradict each other: {reason}");
            let advice = match &written {
                Ok(()) => format!("{} shows how", arguments.html.display()),
                Err(error) => format!("the page {} cannot be written: {error}", arguments.html.display()),
            };
            report.violated(*violation, shown);
            Err(Failure::new(Code::Unhealthy, message).advise(advice))
        }
    };
    report.show(output)?;
    verdict
}

/// Neither a contradiction nor a proof that there is none.
fn not_decided(keys: u64) -> Failure {
    let message = format!("it is not known whether all answers fit one order: {}", report::undecided(keys));
    Failure::new(Code::OutcomeUnknown, message).advise(
        "verify again with fewer clients, or with a longer --timeout, so that fewer writes are unknown",
    )
}

fn checked(operations: &[Operation], local: bool) -> Result<(Checked, Option<Stale>), Box<Violation>> {
    if local {
        return check_local(operations).map(|(checked, stale)| (checked, Some(stale)));
    }
    check(operations).map(|checked| (checked, None))
}

/// Whether a page could be written there, if there is something to show.
fn can_be_written(path: &Path) -> Result<(), Failure> {
    // A link that leads nowhere yet is not to be removed.
    let is_new = path.symlink_metadata().is_err();
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|_| if is_new { std::fs::remove_file(path) } else { Ok(()) })
        .map_err(|error| {
            Failure::io(&format!("write {}", path.display()), &error).advise("name another place with --html")
        })
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| Failure::io(&format!("create {}", path.display()), &error))
}

fn failed_with(path: &Path, error: &io::Error) -> Failure {
    Failure::io(&format!("write {}", path.display()), error)
}

fn write_history(file: File, operations: &[Operation]) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    operations.iter().try_for_each(|operation| writeln!(file, "{}", to_json(operation)))?;
    file.flush()
}
