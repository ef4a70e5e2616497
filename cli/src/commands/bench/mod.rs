//! A closed-loop benchmark, comparable with peerbench's.

pub(crate) mod election;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use quorumkv_client::{Client, Consistency, GetOptions};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::args::{BenchArguments, Op};
use crate::commands::transfer;
use crate::exit::{Code, Failure};
use crate::invocation::Invocation;
use crate::output::{Column, Format, Output, number, text};

const WARM_UP: Duration = Duration::from_secs(1);

/// A request in flight at the end ends by its own timeout. Beyond it by this much, it is given up as an error.
const DRAIN: Duration = Duration::from_secs(2);

/// Writes at once while the keys are filled.
const FILLERS: usize = 256;

/// Latencies are counted in microseconds, up to a minute, to three digits.
const LONGEST_US: u64 = 60_000_000;

/// What a client does after an error, so that a cluster that is down is not flooded.
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) async fn run(
    invocation: &Invocation,
    arguments: &BenchArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let clients = connect(invocation, arguments)?;
    clients[0].ready().await?;
    let work = Arc::new(Work::new(arguments));
    if arguments.op != Op::Put {
        fill(&clients, &work, invocation.timeout).await?;
    }
    let measured = measure(&clients, &work, arguments, invocation.timeout).await;
    let result = Measurement::new(arguments, &measured);
    show(&result, output)?;
    output.flush()?;
    match measured.last_error {
        Some(failure) => {
            let message = format!("{} operations failed, the last", measured.errors);
            Err(failure.context(&message).detail("errors", measured.errors))
        }
        None => Ok(()),
    }
}

/// Several clients, each with one connection to each endpoint, so that `connections` come together. They share
/// nothing, so tasks of different clients never wait for each other.
fn connect(invocation: &Invocation, arguments: &BenchArguments) -> Result<Vec<Client>, Failure> {
    let wanted = arguments.connections.min(arguments.clients);
    let clients = wanted.div_ceil(invocation.endpoints.len());
    (0..clients).map(|_| invocation.client(1)).collect()
}

/// Keys and the value. They live until the process ends: as static data, a copy costs nothing, not even a counter
/// that all threads would fight for.
struct Work {
    op: Op,
    keys: Vec<Bytes>,
    value: Bytes,
}

impl Work {
    fn new(arguments: &BenchArguments) -> Self {
        let forever = |bytes: Vec<u8>| Bytes::from_static(Vec::leak(bytes));
        let key = |number| forever(format!("bench/{number:08}").into_bytes());
        Self {
            op: arguments.op,
            keys: (0..arguments.keys).map(key).collect(),
            value: forever(vec![b'v'; arguments.value_size]),
        }
    }

    /// One operation on a random key.
    async fn call(&self, client: &Client, random: &mut Random) -> Result<(), Failure> {
        let key = self.keys[random.below(self.keys.len())].clone();
        match self.op {
            Op::Put => self.put(client, key).await,
            Op::Get => get(client, key, Consistency::Quorum).await,
            Op::GetLocal => get(client, key, Consistency::Local).await,
            Op::Mixed if random.below(10) == 0 => self.put(client, key).await,
            Op::Mixed => get(client, key, Consistency::Quorum).await,
        }
    }

    async fn put(&self, client: &Client, key: Bytes) -> Result<(), Failure> {
        client.put(key, self.value.clone()).await?;
        Ok(())
    }
}

async fn get(client: &Client, key: Bytes, consistency: Consistency) -> Result<(), Failure> {
    let got = client.get_with(key, GetOptions { consistency, evidence: false }).await?;
    match got.value {
        Some(_) => Ok(()),
        None => Err(Failure::new(Code::NotFound, "a key that was filled is missing")),
    }
}

/// Writes every key once.
async fn fill(clients: &[Client], work: &Work, timeout: Duration) -> Result<(), Failure> {
    let puts = work.keys.iter().zip(clients.iter().cycle()).map(|(key, client)| async move {
        transfer::put(client, key.clone(), work.value.clone(), timeout).await.map_err(Failure::from)
    });
    stream::iter(puts).buffer_unordered(FILLERS).try_for_each(|()| async { Ok(()) }).await
}

/// What all clients do now.
struct Phase(AtomicU8);

impl Phase {
    const WARM_UP: u8 = 0;
    const MEASURE: u8 = 1;
    const STOP: u8 = 2;

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was measured, by one client or by all.
struct Measured {
    latencies: Histogram<u64>,
    errors: u64,
    last_error: Option<Failure>,
    time: Duration,
}

impl Measured {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are valid");
        Self { latencies, errors: 0, last_error: None, time: Duration::ZERO }
    }

    fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies).expect("all histograms have the same bounds");
        self.errors += other.errors;
        self.last_error = other.last_error.or(self.last_error.take());
    }
}

async fn measure(
    clients: &[Client],
    work: &Arc<Work>,
    arguments: &BenchArguments,
    timeout: Duration,
) -> Measured {
    let phase = Arc::new(Phase(AtomicU8::new(Phase::WARM_UP)));
    let mut tasks = JoinSet::new();
    for task in 0..arguments.clients {
        let client = clients[task % clients.len()].clone();
        tasks.spawn(closed_loop(client, Arc::clone(work), Arc::clone(&phase), Random::new(task)));
    }
    sleep(WARM_UP).await;
    phase.set(Phase::MEASURE);
    let begun = Instant::now();
    watch(Duration::from_secs_f64(arguments.seconds)).await;
    phase.set(Phase::STOP);
    let mut total = Measured::new();
    total.time = begun.elapsed();
    let drained = tokio::time::timeout(timeout + DRAIN, async {
        while let Some(ended) = tasks.join_next().await {
            total.add(ended.expect("a client does not panic"));
        }
    });
    if drained.await.is_err() {
        total.errors += tasks.len() as u64;
        total.last_error = Some(Failure::new(Code::Other, "a request had no end"));
    }
    total
}

/// One client: asks, waits for the answer, and asks again. What succeeds after the measurement does not count; what
/// fails only then does, or a cluster that dies while it is measured would look well.
async fn closed_loop(client: Client, work: Arc<Work>, phase: Arc<Phase>, mut random: Random) -> Measured {
    let mut measured = Measured::new();
    loop {
        let (begun, began_in) = (Instant::now(), phase.get());
        if began_in == Phase::STOP {
            return measured;
        }
        let result = work.call(&client, &mut random).await;
        let (measuring, over) = (phase.get() == Phase::MEASURE, phase.get() == Phase::STOP);
        match result {
            Ok(()) if measuring => {
                let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                measured.latencies.saturating_record(us.max(1));
            }
            Ok(()) => {}
            Err(failure) => {
                if measuring || over {
                    measured.errors += 1;
                    measured.last_error = Some(failure);
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Lets the time pass, and shows it to people.
async fn watch(time: Duration) {
    if !std::io::stderr().is_terminal() {
        return sleep(time).await;
    }
    let style = ProgressStyle::with_template("{wide_bar} {eta} left").expect("the template is well formed");
    let steps = u64::try_from(time.as_millis() / 100).unwrap_or(u64::MAX);
    let bar = ProgressBar::new(steps).with_style(style);
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + Duration::from_millis(100))).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
}

/// A small generator of random numbers (xorshift), with the same sequence in every run.
struct Random(u64);

impl Random {
    const fn new(seed: usize) -> Self {
        Self(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed as u64 + 1) | 1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below a usize")]
    const fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// The result, as it is printed.
#[derive(Serialize)]
struct Measurement {
    op: &'static str,
    clients: usize,
    ops_per_s: f64,
    mean_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    errors: u64,
}

impl Measurement {
    #[expect(clippy::cast_precision_loss, reason = "figures of a benchmark have few digits")]
    fn new(arguments: &BenchArguments, measured: &Measured) -> Self {
        let latencies = &measured.latencies;
        let milliseconds = |us: f64| us.round() / 1000.0;
        let quantile = |quantile| milliseconds(latencies.value_at_quantile(quantile) as f64);
        Self {
            op: match arguments.op {
                Op::Put => "put",
                Op::Get => "get",
                Op::GetLocal => "get-local",
                Op::Mixed => "mixed",
            },
            clients: arguments.clients,
            ops_per_s: (latencies.len() as f64 / measured.time.as_secs_f64()).round(),
            mean_ms: milliseconds(latencies.mean()),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: milliseconds(latencies.max() as f64),
            errors: measured.errors,
        }
    }
}

const COLUMNS: [Column; 9] = [
    text("OP"),
    number("CLIENTS"),
    number("OPS/S"),
    number("MEAN MS"),
    number("P50 MS"),
    number("P99 MS"),
    number("P99.9 MS"),
    number("MAX MS"),
    number("ERRORS"),
];

fn show(result: &Measurement, output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return output.json(result);
    }
    let Measurement { op, clients, ops_per_s, mean_ms, p50_ms, p99_ms, p999_ms, max_ms, errors } = result;
    let figures = [ops_per_s, mean_ms, p50_ms, p99_ms, p999_ms, max_ms].map(ToString::to_string);
    let mut row = vec![(*op).to_owned(), clients.to_string()];
    row.extend(figures);
    row.push(errors.to_string());
    output.rows(&COLUMNS, &[row])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_keys_cover_the_whole_range_evenly_enough() {
        let (mut random, mut counts) = (Random::new(3), [0_u32; 10]);
        (0..10_000).for_each(|_| counts[random.below(10)] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_result_has_the_percentiles_in_milliseconds() {
        let arguments = BenchArguments {
            op: Op::GetLocal,
            clients: 2,
            connections: 1,
            seconds: 2.0,
            value_size: 1,
            keys: 1,
            threads: 1,
        };
        let mut measured = Measured::new();
        (1..=1000).for_each(|us| measured.latencies.record(us).unwrap());
        measured.time = Duration::from_secs(2);
        expect_test::expect![[r#"{"op":"get-local","clients":2,"ops_per_s":500.0,"mean_ms":0.501,"p50_ms":0.5,"p99_ms":0.99,"p999_ms":0.999,"max_ms":1.0,"errors":0}"#]]
            .assert_eq(&crate::output::to_json(&Measurement::new(&arguments, &measured)));
    }
}
