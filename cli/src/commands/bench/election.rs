//! How long nobody can write when the leader goes, and where that time goes.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use quorumkv_client::{Client, Epoch, NodeRole, Takeover};
use serde::Serialize;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::args::{ElectionArguments, Way};
use crate::commands::cluster::find_leader;
use crate::commands::status::{ask_all, problems};
use crate::exit::{Code, Failure};
use crate::invocation::Invocation;
use crate::output::{Column, Format, Output, number, text};

/// The key that is written all the time.
const KEY: &str = "bench/election";

/// Whoever starts nodes again may hold back with one that has hardly run. So a node is only killed after this, in seconds.
const STEADY_S: u64 = 10;

/// Longest that a cluster may take to be whole again.
const RECOVERY: Duration = Duration::from_secs(90);

/// Longest that it may take until another node leads.
const SUCCESSION: Duration = Duration::from_secs(60);

/// Pause between looks at the nodes.
const LOOK: Duration = Duration::from_millis(20);

/// Writes before and after the end of a leader.
const WRITES: u64 = 20;

pub(crate) async fn run(
    invocation: &Invocation,
    arguments: &ElectionArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let client = invocation.client(1)?;
    client.ready().await?;
    let writer = Writer::start(invocation.client(1)?);
    let bar = progress(arguments);
    let mut reports = Vec::new();
    for &way in &arguments.ways {
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds {
            rounds.push(round(&client, &writer, way, &bar).await?);
            bar.inc(1);
        }
        reports.push(Report::new(way, &rounds));
    }
    bar.finish_and_clear();
    show(&reports, output)
}

/// One leader goes.
async fn round(client: &Client, writer: &Writer, way: Way, bar: &ProgressBar) -> Result<Round, Failure> {
    bar.set_message("waits until all nodes are well");
    let (leader, epoch) = whole(client, way).await?;
    writer.progress().await?;
    writer.gaps().longest = Duration::ZERO;
    let taken = take_over(client, writer, way, &leader, epoch, bar).await;
    if way == Way::Drain {
        client.drain(&leader, true).await.map_err(|error| Failure::status(&error))?;
    }
    taken
}

async fn take_over(
    client: &Client,
    writer: &Writer,
    way: Way,
    leader: &str,
    epoch: Epoch,
    bar: &ProgressBar,
) -> Result<Round, Failure> {
    match way {
        Way::Drain => {
            bar.set_message(format!("drains {leader}"));
            client.drain(leader, false).await.map_err(|error| Failure::status(&error))?;
        }
        Way::Kill => {
            bar.set_message(format!("kills {leader}"));
            client.kill(leader).await.map_err(|error| Failure::stop(&error))?;
        }
    }
    let takeover = successor(client, epoch).await?;
    writer.progress().await?;
    Ok(Round { unavailable: writer.gaps().longest, takeover })
}

/// Waits until every endpoint is well and one leads: where that is, and its epoch.
async fn whole(client: &Client, way: Way) -> Result<(String, Epoch), Failure> {
    let until = Instant::now() + RECOVERY;
    loop {
        let asked = ask_all(client).await;
        let problems = problems(&asked);
        let leads = asked.iter().find_map(|asked| {
            let status = asked.answer.as_ref().ok()?;
            (status.role == NodeRole::Leader).then_some((asked.endpoint.to_string(), status))
        });
        match leads {
            Some((leader, status)) if problems.is_empty() => {
                if way == Way::Drain || status.uptime_s >= STEADY_S {
                    return Ok((leader, status.epoch));
                }
            }
            _ if Instant::now() < until => {}
            found => {
                let leader = || find_leader(&asked).map(|leader| leader.endpoint().to_owned());
                let message = match found {
                    None if problems.is_empty() => {
                        format!("the leader at {} is none of the endpoints", leader().unwrap_or_default())
                    }
                    _ => format!("the cluster is not well after {RECOVERY:?}: {}", problems.join("; ")),
                };
                return Err(Failure::new(Code::Unhealthy, message).advise(
                    "name all nodes with -e, and see that nodes are started again: `kvd dev --restart` does",
                ));
            }
        }
        sleep(LOOK).await;
    }
}

/// Waits until a node leads in a higher epoch: how it came to that.
async fn successor(client: &Client, epoch: Epoch) -> Result<Takeover, Failure> {
    let until = Instant::now() + SUCCESSION;
    while Instant::now() < until {
        let asked = ask_all(client).await;
        let found = asked.iter().filter_map(|asked| asked.answer.as_ref().ok()).find_map(|status| {
            let leads = status.role == NodeRole::Leader && status.epoch > epoch;
            status.takeover.filter(|takeover| leads && takeover.epoch == status.epoch)
        });
        if let Some(takeover) = found {
            return Ok(takeover);
        }
        sleep(LOOK).await;
    }
    Err(Failure::new(Code::Unhealthy, format!("no other node leads after {SUCCESSION:?}"))
        .advise("see `kvctl status`"))
}

/// What was seen of one leader's end.
struct Round {
    /// The longest time between two acknowledged writes.
    unavailable: Duration,
    takeover: Takeover,
}

impl Round {
    /// The whole time, and its phases, in microseconds.
    fn phases(&self) -> [u64; 6] {
        let whole = u64::try_from(self.unavailable.as_micros()).unwrap_or(u64::MAX);
        let Takeover { elected_us, promised_us, caught_up_us, established_us, .. } = self.takeover;
        let elected = elected_us.min(established_us);
        [
            whole,
            whole.saturating_sub(established_us),
            elected,
            promised_us.saturating_sub(elected),
            caught_up_us.saturating_sub(promised_us),
            established_us.saturating_sub(caught_up_us),
        ]
    }
}

/// A client that writes all the time. Dropping it ends it.
struct Writer {
    gaps: Arc<Mutex<Gaps>>,
    task: AbortHandle,
}

/// The times between acknowledged writes.
struct Gaps {
    last: Instant,
    /// The longest since it was set to zero.
    longest: Duration,
    writes: u64,
}

impl Writer {
    fn start(client: Client) -> Self {
        let gaps = Arc::new(Mutex::new(Gaps { last: Instant::now(), longest: Duration::ZERO, writes: 0 }));
        let noted = Arc::clone(&gaps);
        let task = tokio::spawn(async move {
            loop {
                // One that fails shows as a longer gap, and if all do, as no progress.
                if client.put(KEY, "value").await.is_ok() {
                    let (mut gaps, now) = (lock(&noted), Instant::now());
                    gaps.longest = gaps.longest.max(now - gaps.last);
                    gaps.last = now;
                    gaps.writes += 1;
                }
            }
        });
        Self { gaps, task: task.abort_handle() }
    }

    fn gaps(&self) -> MutexGuard<'_, Gaps> {
        lock(&self.gaps)
    }

    /// Waits for some more writes.
    async fn progress(&self) -> Result<(), Failure> {
        let (until, target) = (Instant::now() + SUCCESSION, self.gaps().writes + WRITES);
        while self.gaps().writes < target {
            if Instant::now() >= until {
                return Err(Failure::new(
                    Code::NoQuorum,
                    format!("no write is acknowledged within {SUCCESSION:?}"),
                )
                .advise("see `kvctl status`"));
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nothing panics while this lock is held, so a poisoned one is still sound.
fn lock(gaps: &Mutex<Gaps>) -> MutexGuard<'_, Gaps> {
    gaps.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rounds of one way in which leaders go.
#[derive(Serialize)]
struct Report {
    leader: &'static str,
    rounds: usize,
    unavailable: Figures,
    noticed: Figures,
    elected: Figures,
    promised: Figures,
    caught_up: Figures,
    first_write: Figures,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Figures {
    min_ms: f64,
    median_ms: f64,
    p90_ms: f64,
    max_ms: f64,
}

impl Report {
    fn new(way: Way, rounds: &[Round]) -> Self {
        let phases: Vec<[u64; 6]> = rounds.iter().map(Round::phases).collect();
        let figures = |phase: usize| Figures::new(phases.iter().map(|phases| phases[phase]).collect());
        Self {
            leader: match way {
                Way::Drain => "drained",
                Way::Kill => "killed",
            },
            rounds: rounds.len(),
            unavailable: figures(0),
            noticed: figures(1),
            elected: figures(2),
            promised: figures(3),
            caught_up: figures(4),
            first_write: figures(5),
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let phases = [
            ("no write", self.unavailable),
            ("- noticed", self.noticed),
            ("- elected", self.elected),
            ("- promised", self.promised),
            ("- caught up", self.caught_up),
            ("- first write", self.first_write),
        ];
        let row = |(phase, figures): (&str, Figures)| {
            let Figures { min_ms, median_ms, p90_ms, max_ms } = figures;
            let mut row = vec![self.leader.to_owned(), self.rounds.to_string(), phase.to_owned()];
            row.extend([min_ms, median_ms, p90_ms, max_ms].map(|ms| format!("{ms:.1}")));
            row
        };
        phases.map(row).into()
    }
}

impl Figures {
    /// Of at least one time in microseconds; percentiles are the nearest rank.
    #[expect(clippy::cast_precision_loss, reason = "figures of a benchmark have few digits")]
    fn new(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times[rank - 1] as f64 / 1000.0
        };
        Self { min_ms: rank(0), median_ms: rank(50), p90_ms: rank(90), max_ms: rank(100) }
    }
}

const COLUMNS: [Column; 7] = [
    text("LEADER"),
    number("ROUNDS"),
    text("PHASE"),
    number("MIN MS"),
    number("MEDIAN MS"),
    number("P90 MS"),
    number("MAX MS"),
];

fn show(reports: &[Report], output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return reports.iter().try_for_each(|report| output.json(report));
    }
    let rows: Vec<Vec<String>> = reports.iter().flat_map(Report::rows).collect();
    output.rows(&COLUMNS, &rows)
}

fn progress(arguments: &ElectionArguments) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let rounds = u64::from(arguments.rounds) * arguments.ways.len() as u64;
    let style = ProgressStyle::with_template("{pos}/{len} rounds {bar:30} {msg}");
    ProgressBar::new(rounds).with_style(style.expect("the template is well formed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_add_up_to_the_whole() {
        let epoch = Epoch::ZERO;
        let takeover =
            Takeover { epoch, elected_us: 10, promised_us: 25, caught_up_us: 27, established_us: 40 };
        let round = Round { unavailable: Duration::from_micros(100), takeover };
        let [whole, phases @ ..] = round.phases();
        assert_eq!((whole, phases), (100, [60, 10, 15, 2, 13]));
        assert_eq!(whole, phases.iter().sum::<u64>());
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let figures = Figures::new((1..=20).rev().map(|ms| ms * 1000).collect());
        assert_eq!(figures, Figures { min_ms: 1.0, median_ms: 10.0, p90_ms: 18.0, max_ms: 20.0 });
        assert_eq!(Figures::new(vec![5000]).median_ms, 5.0);
    }
}
