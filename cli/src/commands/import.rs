//! Import: many puts at once, and a checkpoint of how far they surely got.

use std::collections::{HashSet, VecDeque};
use std::io::{self, BufReader};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::ProgressBar;
use quorumkv_client::{Client, WriteError};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::checkpoint::{Checkpoint, Mark};
use crate::commands::transfer;
use crate::exit::{Code, Failure};
use crate::invocation::{self, Input};
use crate::output::{Format, Output};
use crate::records::{Line, Lines, Record};

/// Most bytes of keys and values in flight, unless a single record has more.
const MAX_IN_FLIGHT: usize = 32 << 20;

/// A batch from the reader has at most so many lines …
const BATCH_LINES: usize = 256;

/// … and ends once it has so many bytes.
const BATCH_BYTES: u64 = 1 << 20;

/// Batches that wait to be written. When they are, the reader waits.
const BATCHES: usize = 4;

/// How often the checkpoint is written.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    client: &Client,
    import: invocation::Import,
    timeout: Duration,
    output: &mut Output,
) -> Result<(), Failure> {
    let invocation::Import { input, checkpoint, window } = import;
    // The input and the checkpoint are looked at first: a mistake there needs no cluster to be told.
    let mut lines = Lines::new(BufReader::with_capacity(256 << 10, input.open()?));
    let cluster = transfer::cluster_id(client, timeout).await?;
    let checkpoint = checkpoint.map(Checkpoint::new);
    let mark = match &checkpoint {
        Some(checkpoint) => checkpoint.load(&cluster)?,
        None => None,
    };
    let mark = mark.unwrap_or(Mark { cluster, lines: 0, crc32c: 0 });
    if !lines.skip(mark.lines, mark.crc32c).map_err(|error| input.failed("read", &error))? {
        let why = format!("is of another input, of which {} lines were written", mark.lines);
        return Err(checkpoint.map_or_else(|| Failure::new(Code::Other, why.clone()), |c| c.unfit(&why)));
    }
    let resumed_after = mark.lines;
    let mut transfer =
        Transfer::new(client.clone(), mark, checkpoint, Limits { window, timeout }, bar(&input));
    let ended = transfer.run(read(lines, input)).await;
    transfer.finish(ended)?;
    show(&transfer, resumed_after, output)
}

fn bar(input: &Input) -> ProgressBar {
    let size = match input {
        Input::File(path) => std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file),
        Input::Stdin => None,
    };
    transfer::bar(size.map(|metadata| metadata.len()))
}

/// What an import did.
#[derive(Serialize)]
struct ImportedJson {
    /// Records written by this run.
    records: String,
    /// Lines of the input.
    lines: String,
    /// Lines that an earlier run had written.
    resumed_after: String,
}

fn show(transfer: &Transfer, resumed_after: u64, output: &mut Output) -> Result<(), Failure> {
    let (records, lines) = (transfer.records, transfer.ledger.mark.lines);
    match output.format {
        Format::Table if resumed_after > 0 => output.line(&format!(
            "imported {records} records of {lines} lines, going on after line {resumed_after}"
        )),
        Format::Table => output.line(&format!("imported {records} records of {lines} lines")),
        Format::Raw => output.line(&records.to_string()),
        Format::Json => output.json(&ImportedJson {
            records: records.to_string(),
            lines: lines.to_string(),
            resumed_after: resumed_after.to_string(),
        }),
    }
}

/// Reads and parses in a thread of its own, since reading stdin may block for long. It ends with the input, when
/// nobody takes its batches, or with the process.
fn read(
    mut lines: Lines<BufReader<Box<dyn io::Read + Send>>>,
    input: Input,
) -> mpsc::Receiver<Result<Vec<Line>, Failure>> {
    let (sender, receiver) = mpsc::channel(BATCHES);
    std::thread::spawn(move || {
        loop {
            let batch = batch(&mut lines).map_err(|error| input.failed("read", &error));
            let goes_on = match &batch {
                Ok(batch) if batch.is_empty() => return,
                Ok(_) => true,
                Err(_) => false,
            };
            if sender.blocking_send(batch).is_err() || !goes_on {
                return;
            }
        }
    });
    receiver
}

fn batch<R: io::BufRead>(lines: &mut Lines<R>) -> io::Result<Vec<Line>> {
    let mut batch = Vec::new();
    let mut begun = None;
    while batch.len() < BATCH_LINES {
        let Some(line) = lines.next()? else { break };
        let (begun, end) = (*begun.get_or_insert(line.end), line.end);
        batch.push(line);
        if end - begun >= BATCH_BYTES {
            break;
        }
    }
    Ok(batch)
}

/// How much is done at once, and for how long it is tried.
struct Limits {
    window: usize,
    timeout: Duration,
}

/// An import on its way.
struct Transfer {
    client: Client,
    limits: Limits,
    checkpoint: Option<Checkpoint>,
    ledger: Ledger,
    writes: JoinSet<Finished>,
    /// Keys being written. A later line with the same key waits, so that the last line wins.
    keys: HashSet<Bytes>,
    /// Bytes of keys and values being written.
    in_flight: usize,
    /// Records surely written.
    records: u64,
    bar: ProgressBar,
    saved: Instant,
}

/// A write that has ended.
struct Finished {
    line: u64,
    key: Bytes,
    size: usize,
    result: Result<(), WriteError>,
}

impl Transfer {
    fn new(
        client: Client,
        mark: Mark,
        checkpoint: Option<Checkpoint>,
        limits: Limits,
        bar: ProgressBar,
    ) -> Self {
        Self {
            client,
            limits,
            checkpoint,
            ledger: Ledger { mark, open: VecDeque::new() },
            writes: JoinSet::new(),
            keys: HashSet::new(),
            in_flight: 0,
            records: 0,
            bar,
            saved: Instant::now(),
        }
    }

    /// Writes everything that comes. After a failure, what is in flight is still waited for, since it may be done.
    async fn run(&mut self, mut batches: mpsc::Receiver<Result<Vec<Line>, Failure>>) -> Result<(), Failure> {
        let writing = async {
            let started = self.start_all(&mut batches).await;
            let finished = self.wait_until(Self::is_idle).await;
            worse(started, finished)
        };
        tokio::select! {
            ended = writing => ended,
            failure = transfer::interrupted() => Err(failure),
        }
    }

    async fn start_all(
        &mut self,
        batches: &mut mpsc::Receiver<Result<Vec<Line>, Failure>>,
    ) -> Result<(), Failure> {
        while let Some(batch) = self.next_batch(batches).await? {
            for line in batch? {
                self.bar.set_position(line.end);
                self.ledger.open(&line);
                let number = line.number;
                match line.record {
                    Err(problem) => {
                        let message = format!("line {number} of the input is malformed: {problem}");
                        return Err(Failure::new(Code::Other, message).detail("line", number.to_string()));
                    }
                    Ok(None) => self.ledger.close(number),
                    Ok(Some(record)) => self.start(number, record).await?,
                }
            }
            self.save_sometimes().await?;
        }
        Ok(())
    }

    /// The next batch; writes that end meanwhile are taken note of, since stdin may be silent for long.
    async fn next_batch(
        &mut self,
        batches: &mut mpsc::Receiver<Result<Vec<Line>, Failure>>,
    ) -> Result<Option<Result<Vec<Line>, Failure>>, Failure> {
        loop {
            tokio::select! {
                biased;
                batch = batches.recv() => return Ok(batch),
                Some(finished) = self.writes.join_next() => self.note(finished.expect("a write does not panic"))?,
            }
        }
    }

    async fn start(&mut self, line: u64, record: Record) -> Result<(), Failure> {
        let Record { key, value } = record;
        let size = key.len() + value.len();
        self.wait_until(|transfer| {
            let room = transfer.in_flight + size <= MAX_IN_FLIGHT || transfer.is_idle();
            room && transfer.writes.len() < transfer.limits.window && !transfer.keys.contains(&key)
        })
        .await?;
        self.keys.insert(key.clone());
        self.in_flight += size;
        let (client, timeout) = (self.client.clone(), self.limits.timeout);
        self.writes.spawn(async move {
            let result = transfer::put(&client, key.clone(), value, timeout).await;
            Finished { line, key, size, result }
        });
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.writes.is_empty()
    }

    /// Waits for writes to end until the condition holds, or none is left.
    async fn wait_until(&mut self, condition: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let mut ended = Ok(());
        while !condition(self) {
            let Some(finished) = self.writes.join_next().await else { break };
            ended = worse(ended, self.note(finished.expect("a write does not panic")));
        }
        ended
    }

    fn note(&mut self, finished: Finished) -> Result<(), Failure> {
        let Finished { line, key, size, result } = finished;
        self.keys.remove(&key);
        self.in_flight -= size;
        match result {
            Ok(()) => {
                self.records += 1;
                self.ledger.close(line);
                Ok(())
            }
            Err(error) => Err(Failure::from(error).detail("line", line.to_string())),
        }
    }

    async fn save_sometimes(&mut self) -> Result<(), Failure> {
        if self.saved.elapsed() < CHECKPOINT_INTERVAL {
            return Ok(());
        }
        self.bar.set_message(format!("{} records", self.records));
        self.saved = Instant::now();
        let (Some(checkpoint), mark) = (self.checkpoint.take(), self.ledger.mark.clone()) else {
            return Ok(());
        };
        // The connections are served meanwhile, however slow the disk is.
        let saving = tokio::task::spawn_blocking(move || (checkpoint.save(&mark), checkpoint));
        let (saved, checkpoint) = saving.await.expect("saving does not panic");
        self.checkpoint = Some(checkpoint);
        saved
    }

    /// Tidies up: after success there is nothing to go on with, after a failure all is noted that is surely done.
    fn finish(&self, ended: Result<(), Failure>) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        let (failure, lines) = match (ended, self.ledger.mark.lines) {
            (Ok(()), _) => return self.checkpoint.as_ref().map_or(Ok(()), Checkpoint::remove),
            (Err(failure), lines) => (failure.detail("lines_written", lines.to_string()), lines),
        };
        let Some(checkpoint) = &self.checkpoint else {
            let advice =
                format!("the first {lines} lines are written; with --checkpoint FILE it could go on there");
            return Err(failure.advise(advice));
        };
        checkpoint.save(&self.ledger.mark)?;
        Err(failure.advise(format!(
            "the first {lines} lines are written; to go on after them: {}",
            transfer::command_line()
        )))
    }
}

/// Of two ends, the one to report: an unknown outcome must not be hidden by a harmless failure.
fn worse(first: Result<(), Failure>, second: Result<(), Failure>) -> Result<(), Failure> {
    let is_unknown = |failure: &Failure| failure.code() == Some(Code::OutcomeUnknown);
    match (first, second) {
        (Err(first), Err(second)) if is_unknown(&second) && !is_unknown(&first) => Err(second),
        (first, second) => first.and(second),
    }
}

/// Which lines are surely written.
struct Ledger {
    /// The leading ones that are.
    mark: Mark,
    /// The lines after these that were begun: the checksum up to the end of each, and whether it is written.
    open: VecDeque<(u32, bool)>,
}

impl Ledger {
    /// The next line has been begun.
    fn open(&mut self, line: &Line) {
        self.open.push_back((line.checksum, false));
        debug_assert_eq!(line.number, self.mark.lines + self.open.len() as u64, "lines come in order");
    }

    /// This line is surely written, or there was nothing to write.
    fn close(&mut self, line: u64) {
        let index = usize::try_from(line - self.mark.lines - 1).expect("the window fits into memory");
        self.open[index].1 = true;
        while let Some(&(crc32c, true)) = self.open.front() {
            self.open.pop_front();
            self.mark.lines += 1;
            self.mark.crc32c = crc32c;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> Line {
        let checksum = u32::try_from(number).unwrap() * 10;
        Line { number, end: number, checksum, complete: true, record: Ok(None) }
    }

    #[test]
    fn the_mark_passes_only_what_has_no_gap_before_it() {
        let mark = Mark { cluster: String::new(), lines: 7, crc32c: 70 };
        let mut ledger = Ledger { mark, open: VecDeque::new() };
        (8..=11).for_each(|number| ledger.open(&line(number)));
        ledger.close(9);
        ledger.close(11);
        assert_eq!((ledger.mark.lines, ledger.mark.crc32c), (7, 70));
        ledger.close(8);
        assert_eq!((ledger.mark.lines, ledger.mark.crc32c), (9, 90));
        ledger.close(10);
        assert_eq!((ledger.mark.lines, ledger.mark.crc32c), (11, 110));
        assert!(ledger.open.is_empty());
    }

    #[test]
    fn batches_end_by_lines_and_by_bytes() {
        let mut many = Lines::new(io::Cursor::new("\n".repeat(BATCH_LINES + 1)));
        assert_eq!(batch(&mut many).unwrap().len(), BATCH_LINES);
        assert_eq!(batch(&mut many).unwrap().len(), 1);
        assert!(batch(&mut many).unwrap().is_empty());
        let long = format!("{}\n", "x".repeat(1 << 20)).repeat(3);
        assert_eq!(batch(&mut Lines::new(long.as_bytes())).unwrap().len(), 2);
    }
}
