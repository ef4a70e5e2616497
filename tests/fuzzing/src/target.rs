//! A fuzz target: from the bytes of an engine to a case, and what became of all of them.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bolero::TargetLocation;

use crate::damage::damage;

/// The environment names a directory: every input is written there in its plain form, and so are the samples.
pub(crate) const EXPORT: &str = "QUORUMKV_FUZZ_EXPORT";

/// The environment names a file: every input is written there before it is tried, for those that end the process.
pub(crate) const TRACE: &str = "QUORUMKV_FUZZ_TRACE";

/// What a target says at its end begins with this.
pub(crate) const RESULT: &str = "fuzz-result";

/// How long new inputs are tried in an ordinary test run.
pub const TIME: Duration = Duration::from_secs(2);

/// The longest input that the random engine makes.
pub const LONGEST: usize = 64;

/// Bits of an input's first byte that say how many edits follow; none: what follows is the case itself.
const EDITS: u8 = 7;

/// What a check is to look at.
#[derive(Debug)]
pub struct Case {
    /// To be decoded. The check may change them.
    pub bytes: Vec<u8>,
    /// From 0 to 31, to choose between ways of checking.
    pub flavour: u8,
}

/// A check, and how often it was run.
pub struct Target<F> {
    name: String,
    /// Where its corpus and its crashes are.
    directory: PathBuf,
    samples: Vec<Vec<u8>>,
    check: F,
    case: Case,
    executions: u64,
    started: Instant,
    export: Option<PathBuf>,
    trace: Option<PathBuf>,
    /// The last input that failed: the smallest, after the engine has made it smaller.
    failed: Option<Vec<u8>>,
}

impl<F> RefUnwindSafe for Target<F> {}

impl<F: FnMut(&mut Case)> Target<F> {
    /// A target at this place in the code.
    ///
    /// # Panics
    /// If there is no source code around.
    pub fn new(location: &TargetLocation, samples: Vec<Vec<u8>>, check: F) -> Self {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let target = Self {
            name: format!("{}::{}", location.package_name, location.item_path()),
            directory: location.work_dir().expect("tests run where their code is"),
            samples,
            check,
            case: Case { bytes: Vec::new(), flavour: 0 },
            executions: 0,
            started: Instant::now(),
            export: path(EXPORT),
            trace: path(TRACE),
            failed: None,
        };
        if let Some(export) = &target.export {
            for sample in &target.samples {
                let case = Case { bytes: sample.clone(), flavour: 0 };
                keep(export, &plain(&case)).expect("inputs can be kept");
            }
        }
        target
    }

    /// Runs the check on what these bytes stand for.
    pub fn run(&mut self, input: &[u8]) {
        expand(&self.samples, input, &mut self.case);
        if let Some(trace) = &self.trace {
            fs::write(trace, plain(&self.case)).expect("the trace can be written");
        }
        if let Some(export) = &self.export {
            keep(export, &plain(&self.case)).expect("inputs can be kept");
        }
        self.executions += 1;
        let Self { case, check, .. } = self;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(case))) {
            self.failed = Some(input.to_vec());
            resume_unwind(panic);
        }
    }
}

impl<F> Drop for Target<F> {
    /// Says what became of it, whether or not the test's output is shown.
    fn drop(&mut self) {
        let failed = self.failed.take().map(|input| {
            expand(&self.samples, &input, &mut self.case);
            let kept = keep(&self.directory.join("crashes"), &plain(&self.case));
            kept.map_or_else(|error| error.to_string(), |path| path.display().to_string())
        });
        let (name, executions, seconds) = (&self.name, self.executions, self.started.elapsed().as_secs_f64());
        let failed = failed.as_deref().unwrap_or("-");
        // The test has failed already if something was wrong, and nobody may be reading.
        let _ = writeln!(
            io::stderr(),
            "\n{RESULT} {name} executions={executions} seconds={seconds:.2} failed={failed}"
        );
    }
}

impl<F> std::fmt::Debug for Target<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The case that an input stands for.
fn expand(samples: &[Vec<u8>], input: &[u8], case: &mut Case) {
    let (how, rest) = input.split_first().map_or((0, input), |(how, rest)| (*how, rest));
    case.flavour = how >> EDITS.count_ones();
    match how & EDITS {
        0 => {
            case.bytes.clear();
            case.bytes.extend_from_slice(rest);
        }
        edits => damage(samples, rest, usize::from(edits) - 1, &mut case.bytes),
    }
}

/// The input that stands for a case whatever the samples are.
fn plain(case: &Case) -> Vec<u8> {
    [&[case.flavour << EDITS.count_ones()], &case.bytes[..]].concat()
}

/// Writes an input to a file that is named after its content.
fn keep(directory: &Path, input: &[u8]) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = directory.join(format!("{:016x}", hasher.finish()));
    fs::create_dir_all(directory)?;
    fs::write(&path, input)?;
    Ok(path)
}
