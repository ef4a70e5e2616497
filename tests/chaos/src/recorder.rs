//! Everything that clients asked and heard.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quorumkv_history::{Action, Operation, Outcome};

/// The history so far, and when writes were last acknowledged.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    operations: Vec<Operation>,
    file: Option<BufWriter<File>>,
    /// Moments at which a write was acknowledged, as gaps longer than this between two of them.
    last_write: Instant,
    gaps: Vec<(Instant, Duration)>,
}

/// Only pauses in writing from this length on are kept: shorter ones tell nothing.
const GAP: Duration = Duration::from_millis(50);

impl Recorder {
    /// Begins a history, which is written to a file as well, an operation a line in JSON.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(file: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| {
            Ok(BufWriter::new(File::create(path).with_context(|| format!("make {}", path.display()))?))
        };
        let file = file.map(create).transpose().map_err(|error: anyhow::Error| error)?;
        let begun = Instant::now();
        let inner = Inner { operations: Vec::new(), file, last_write: begun, gaps: Vec::new() };
        Ok(Self { begun, inner: Mutex::new(inner) })
    }

    /// Nanoseconds since the history began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("no run takes centuries")
    }

    /// Adds an operation that has ended.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&self, operation: Operation) -> Result<()> {
        let mut inner = self.inner();
        if matches!(operation.outcome, Outcome::Applied { .. }) {
            let now = Instant::now();
            let gap = now - inner.last_write;
            if gap > GAP {
                inner.gaps.push((now, gap));
            }
            inner.last_write = now;
        }
        if let Some(file) = &mut inner.file {
            serde_json::to_writer(&mut *file, &operation)?;
            file.write_all(b"\n")?;
        }
        inner.operations.push(operation);
        Ok(())
    }

    /// The longest time without an acknowledged write of which a part lies after `since`.
    #[must_use]
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let inner = self.inner();
        let over = inner.gaps.iter().rev().take_while(|(end, _)| *end >= since).map(|(_, gap)| *gap);
        over.max().unwrap_or_default().max(inner.last_write.elapsed())
    }

    /// How many operations there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner().operations.len()
    }

    /// All operations, when the last client has ended.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn take(&self) -> Result<Vec<Operation>> {
        let mut inner = self.inner();
        if let Some(file) = &mut inner.file {
            file.flush()?;
        }
        Ok(std::mem::take(&mut inner.operations))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of what an operation asked for.
#[must_use]
pub const fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Get => "get",
        Action::Put { .. } => "put",
        Action::Delete => "delete",
        Action::CompareAndSet { .. } => "compare-and-set",
    }
}

/// The name of what came of it.
#[must_use]
pub const fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Found { .. } | Outcome::Absent | Outcome::Applied { .. } => "ok",
        Outcome::Mismatch { .. } => "mismatch",
        Outcome::Failed => "failed",
        Outcome::Unknown => "unknown",
    }
}

/// Operations by what they asked for and what came of them.
#[must_use]
pub fn tally(operations: &[Operation]) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
    let mut tally: BTreeMap<_, BTreeMap<_, u64>> = BTreeMap::new();
    for operation in operations {
        let outcomes = tally.entry(action_name(&operation.action)).or_default();
        *outcomes.entry(outcome_name(&operation.outcome)).or_default() += 1;
    }
    tally
}
