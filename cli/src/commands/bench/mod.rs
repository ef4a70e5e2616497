//! A closed-loop benchmark of kvd, and of its peers with the same load.

mod closed_loop;
pub(crate) mod election;
mod histogram;
mod kvd;
pub(crate) mod peers;
mod progress;
mod report;
mod system;
mod work;

use std::sync::Arc;
use std::time::Duration;

use quorumkv_client::Endpoint;

use crate::args::{BenchArguments, Op};
use crate::exit::Failure;
use crate::invocation::Invocation;
use crate::output::Output;

use kvd::Kvd;
use progress::Progress;
use report::Measurement;
use system::{Load, System};
use work::Work;

/// Keys that are made and written together before a measurement.
const CHUNK: usize = 10_000;

pub(crate) async fn run(
    invocation: &Invocation,
    arguments: &BenchArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let load = Load {
        work: Arc::new(Work::new(arguments)),
        clients: arguments.clients,
        connections: arguments.connections,
        time: Duration::from_secs_f64(arguments.seconds),
        timeout: invocation.timeout,
        filled: arguments.filled,
    };
    let kvd = match arguments.only_compared {
        true => None,
        false => Some(Kvd::connect(invocation, &load, arguments.spread_writes).await?),
    };
    let mut progress = Progress::new(usize::from(kvd.is_some()) + arguments.compare.len());
    // What is wrong with a peer is better known before anything has taken its time.
    for peer in &arguments.compare {
        progress.does(peer.name(), "is tried");
        peer.check(&load).await?;
    }
    let (mut ours, mut results, mut failures) = (None, Vec::new(), Vec::new());
    if let Some(kvd) = kvd {
        progress.next();
        let compared = (!arguments.compare.is_empty()).then_some(invocation.endpoints.as_slice());
        let (result, failure) = turn(kvd, compared, &load, &progress).await?;
        ours = Some(result.ops_per_s());
        results.push(result);
        failures.extend(failure);
    }
    for peer in &arguments.compare {
        progress.next();
        match peer.measure(&load, &progress).await {
            Ok((result, failure)) => {
                failures.extend(failure);
                results.push(result.beside(ours));
            }
            // What the others did is shown all the same.
            Err(failure) => failures.push(failure),
        }
    }
    progress.end();
    report::show(&results, output)?;
    output.flush()?;
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Measures one system: what it did, and why that is not to be relied on if any operation failed. In a comparison, with
/// where it is, it also says what it does for durability.
async fn turn<S: System>(
    mut system: S,
    compared: Option<&[Endpoint]>,
    load: &Load,
    progress: &Progress,
) -> Result<(Measurement, Option<Failure>), Failure> {
    let op = load.work.op;
    if compared.is_some() {
        system.begin(load).await;
    }
    if (S::NEEDS_KEYS || op != Op::Put) && !load.filled {
        progress.does(S::NAME, "gets its keys");
        let mut keys = load.work.keys();
        loop {
            let some: Vec<_> = keys.by_ref().take(CHUNK).collect();
            if some.is_empty() {
                break;
            }
            system.fill(load, &some).await?;
        }
    }
    let mut measured = closed_loop::measure(&system, load, progress).await;
    let mut result = Measurement::new(&system, load, &measured);
    if let Some(endpoints) = compared {
        progress.does(S::NAME, "says what it does");
        let facts = system.facts(load).await;
        let endpoints = endpoints.iter().map(ToString::to_string).collect();
        result = result.compared(&facts, system.caveat(op), endpoints);
    }
    system.close().await;
    Ok((result, measured.failure()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use closed_loop::Measured;

    #[tokio::test]
    async fn the_result_has_the_percentiles_in_milliseconds() {
        let arguments = BenchArguments {
            op: Op::GetLocal,
            clients: 2,
            connections: 1,
            seconds: 2.0,
            value_size: 1,
            keys: 1,
            threads: 1,
            compare: Vec::new(),
            only_compared: false,
            filled: false,
            spread_writes: false,
        };
        let load = Load {
            work: Arc::new(Work::new(&arguments)),
            clients: 2,
            connections: 1,
            time: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            filled: false,
        };
        let mut measured = Measured::new();
        (1..=1000).for_each(|us| measured.latencies.record(us).expect("it is within bounds"));
        measured.time = Duration::from_secs(2);
        let kvd = Kvd::of(Vec::new());
        expect_test::expect![[r#"{"system":"kvd","op":"get-local","operation":"local get","clients":2,"ops_per_s":500.0,"mean_ms":0.501,"p50_ms":0.5,"p99_ms":0.99,"p999_ms":0.999,"max_ms":1.0,"errors":0,"histogram":[[0.001,1],[0.002,1],[0.005,3],[0.01,5],[0.02,10],[0.05,30],[0.1,50],[0.2,100],[0.5,300],[1.0,500]]}"#]]
            .assert_eq(&crate::output::to_json(&Measurement::new(&kvd, &load, &measured)));
    }
}
