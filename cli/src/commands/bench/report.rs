//! What was measured, for people and for programs.

use serde::Serialize;
use serde_json::{Map, Value};

use super::closed_loop::Measured;
use super::histogram::{self, Bucket};
use super::system::{Facts, Load, System};
use crate::args::Op;
use crate::exit::Failure;
use crate::output::{Column, Format, Output, number, text};

/// The result of one system, as it is printed.
#[derive(Serialize)]
pub(super) struct Measurement {
    system: &'static str,
    op: &'static str,
    /// What that means there.
    operation: String,
    clients: usize,
    ops_per_s: f64,
    mean_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    errors: u64,
    /// Upper bounds in milliseconds, and how many operations took at most that long and longer than the one before.
    histogram: Vec<(f64, u64)>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
    #[serde(skip)]
    buckets: Vec<Bucket>,
}

/// What belongs to a comparison only.
#[derive(Serialize)]
struct Compared {
    version: Option<String>,
    endpoints: Vec<String>,
    /// How many times its operations a second kvd has; null for kvd.
    kvd_ratio: Option<f64>,
    /// What the operation does not promise.
    caveat: Option<&'static str>,
    durability: Map<String, Value>,
    #[serde(skip)]
    lines: Vec<String>,
}

impl Measurement {
    #[expect(clippy::cast_precision_loss, reason = "figures of a benchmark have few digits")]
    pub(super) fn new<S: System>(system: &S, load: &Load, measured: &Measured) -> Self {
        let latencies = &measured.latencies;
        let milliseconds = |us: f64| us.round() / 1000.0;
        let quantile = |quantile| milliseconds(latencies.value_at_quantile(quantile) as f64);
        let op = load.work.op;
        let buckets = histogram::buckets(latencies);
        Self {
            system: S::NAME,
            op: name(op),
            operation: system.operation(op),
            clients: load.clients,
            ops_per_s: (latencies.len() as f64 / measured.time.as_secs_f64()).round(),
            mean_ms: milliseconds(latencies.mean()),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: milliseconds(latencies.max() as f64),
            errors: measured.errors,
            histogram: buckets.iter().map(|bucket| (bucket.upper_ms(), bucket.count)).collect(),
            compared: None,
            buckets,
        }
    }

    /// As one of several, with what it says of itself; `caveat` is what the operation does not promise.
    pub(super) fn compared(
        mut self,
        facts: &Facts,
        caveat: Option<&'static str>,
        endpoints: Vec<String>,
    ) -> Self {
        self.compared = Some(Compared {
            version: facts.versions(),
            endpoints,
            kvd_ratio: None,
            caveat,
            durability: facts.json().clone(),
            lines: facts.lines().to_vec(),
        });
        self
    }

    /// Operations a second.
    pub(super) const fn ops_per_s(&self) -> f64 {
        self.ops_per_s
    }

    /// With how much faster kvd was, if it was measured.
    pub(super) fn beside(mut self, kvd: Option<f64>) -> Self {
        if let (Some(compared), Some(kvd)) = (&mut self.compared, kvd)
            && self.ops_per_s > 0.0
            && kvd > 0.0
        {
            compared.kvd_ratio = Some((kvd / self.ops_per_s * 100.0).round() / 100.0);
        }
        self
    }

    fn figures(&self) -> impl Iterator<Item = String> {
        let Self { ops_per_s, mean_ms, p50_ms, p99_ms, p999_ms, max_ms, .. } = self;
        let figures = [ops_per_s, mean_ms, p50_ms, p99_ms, p999_ms, max_ms].map(ToString::to_string);
        figures.into_iter().chain([self.errors.to_string()])
    }

    fn row(&self) -> Vec<String> {
        [self.op.to_owned(), self.clients.to_string()].into_iter().chain(self.figures()).collect()
    }

    fn compared_row(&self) -> Vec<String> {
        let compared = self.compared.as_ref();
        let version = compared.and_then(|compared| compared.version.clone());
        let ratio = compared.and_then(|compared| compared.kvd_ratio);
        let head =
            [self.system.to_owned(), version.unwrap_or_else(|| "unknown".to_owned()), self.operation.clone()];
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.to_string());
        head.into_iter().chain(self.figures()).chain([ratio]).collect()
    }

    /// Its name, and where it is if that matters.
    fn title(&self) -> String {
        match &self.compared {
            Some(compared) => format!("{} at {}", self.system, compared.endpoints.join(", ")),
            None => self.system.to_owned(),
        }
    }
}

const fn name(op: Op) -> &'static str {
    match op {
        Op::Put => "put",
        Op::Get => "get",
        Op::GetLocal => "get-local",
        Op::Mixed => "mixed",
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

const COMPARED: [Column; 11] = [
    text("SYSTEM"),
    text("VERSION"),
    text("OPERATION"),
    number("OPS/S"),
    number("MEAN MS"),
    number("P50 MS"),
    number("P99 MS"),
    number("P99.9 MS"),
    number("MAX MS"),
    number("ERRORS"),
    number("KVD/IT"),
];

const HISTOGRAM: [Column; 4] = [number("UP TO MS"), number("COUNT"), number("% SO FAR"), text("")];

/// Prints all of them: kvd's alone, or in comparison.
pub(super) fn show(results: &[Measurement], output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return results.iter().try_for_each(|result| output.json(result));
    }
    let is_comparison = results.iter().any(|result| result.compared.is_some());
    if is_comparison {
        output.rows(&COMPARED, &results.iter().map(Measurement::compared_row).collect::<Vec<_>>())?;
    } else {
        output.rows(&COLUMNS, &results.iter().map(Measurement::row).collect::<Vec<_>>())?;
    }
    // Programs count on the columns, so raw output has nothing else.
    if output.format != Format::Table {
        return Ok(());
    }
    if is_comparison {
        let clients = results.first().map_or(0, |result| result.clients);
        output.line(&format!(
            "\nClients of each: {clients}. KVD/IT is how many times its operations a second kvd had. Durability, as each tells it:"
        ))?;
        results.iter().try_for_each(|result| show_facts(result, output))?;
    }
    results.iter().try_for_each(|result| show_histogram(result, is_comparison, output))
}

fn show_facts(result: &Measurement, output: &mut Output) -> Result<(), Failure> {
    let Some(compared) = &result.compared else { return Ok(()) };
    output.line(&format!("\n{}", result.title()))?;
    if let Some(caveat) = compared.caveat {
        output.line(&format!("  {}: {caveat}", result.operation))?;
    }
    compared.lines.iter().try_for_each(|line| output.line(&format!("  {line}")))
}

fn show_histogram(result: &Measurement, with_title: bool, output: &mut Output) -> Result<(), Failure> {
    if result.buckets.is_empty() {
        return Ok(());
    }
    let title = if with_title { format!("\n{}", result.title()) } else { String::new() };
    output.line(&title)?;
    let rows: Vec<Vec<String>> = histogram::rows(&result.buckets).into_iter().map(Vec::from).collect();
    output.rows(&HISTOGRAM, &rows)
}
