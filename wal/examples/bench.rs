//! How fast the log is next to a bare `fdatasync` loop on the same disk, in one run:
//! `cargo run --release -p quorumkv-wal --example bench -- [DIRECTORY] [SECONDS]`.
//!
//! A group is 128 entries of 270 bytes. The bare loop writes as many bytes to a zero-filled file and syncs them.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use quorumkv_wal::{Batch, DurableGroup, Epoch, Log, Mark, Options, Record};

const ENTRIES: u64 = 128;
const PAYLOAD: usize = 270;
/// What a group takes on disk.
const GROUP_BYTES: usize = 128 * 320;
const BARE_FILE: usize = 32 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let duration = Duration::from_secs(seconds);
    let directory = tempfile::tempdir_in(parent)?;
    println!("{ENTRIES} entries of {PAYLOAD} bytes a group, {seconds} s each");
    let bare = bare(directory.path(), duration)?;
    for in_flight in [1, 2, 8] {
        let rate = log(&directory.path().join(in_flight.to_string()), duration, in_flight)?;
        println!("{:42} {:>8.2}", "  ratio to the bare loop", rate / bare);
    }
    Ok(())
}

/// Entries per second of writing and syncing alone.
fn bare(directory: &Path, duration: Duration) -> Result<f64, Box<dyn Error>> {
    let file = File::create(directory.join("bare"))?;
    file.write_all_at(&vec![0; BARE_FILE], 0)?;
    file.sync_all()?;
    let group = vec![0x5a; GROUP_BYTES];
    let mut syncs = Vec::new();
    let started = Instant::now();
    for at in (0..BARE_FILE - GROUP_BYTES).step_by(GROUP_BYTES).cycle() {
        file.write_all_at(&group, at as u64)?;
        let written = Instant::now();
        file.sync_data()?;
        syncs.push(written.elapsed());
        if started.elapsed() > duration {
            break;
        }
    }
    Ok(report("bare write and fdatasync", started.elapsed(), syncs.len() as u64 * ENTRIES, syncs))
}

/// Entries per second of the log with so many batches in flight.
fn log(directory: &Path, duration: Duration, in_flight: u64) -> Result<f64, Box<dyn Error>> {
    let (log, _) = Log::open(directory, Options::default(), 0)?;
    let (on_group, groups) = mpsc::sync_channel::<DurableGroup<()>>(16);
    let failed = |error| panic!("the log has failed: {error}");
    let mut writer = log.spawn(move |group| drop(on_group.send(group)), failed)?;
    let payload = bytes::Bytes::from(vec![0x5a; PAYLOAD]);
    let (mut version, mut done, mut syncs) = (0, 0, Vec::new());
    let started = Instant::now();
    while started.elapsed() < duration {
        while (version - done) / ENTRIES < in_flight {
            let records = (version + 1..=version + ENTRIES).map(|version| Record::Entry {
                mark: Mark { epoch: Epoch { counter: 1, node: 1 }, version },
                payload: payload.clone(),
            });
            writer.submit(Batch { records: records.collect(), ticket: () })?;
            version += ENTRIES;
        }
        let group = groups.recv()?;
        done += group.tickets.len() as u64 * ENTRIES;
        syncs.push(group.sync_time);
        writer.trim(done.saturating_sub(1_000_000));
    }
    Ok(report(&format!("log, {in_flight} batches in flight"), started.elapsed(), done, syncs))
}

/// Prints a line and returns the entries per second.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
fn report(what: &str, elapsed: Duration, entries: u64, mut syncs: Vec<Duration>) -> f64 {
    let rate = entries as f64 / elapsed.as_secs_f64();
    syncs.sort_unstable();
    let percentile = |percent| syncs[(syncs.len() - 1) * percent / 100];
    println!("{what:30} {rate:>10.0} entries/s; sync p50 {:?}, p99 {:?}", percentile(50), percentile(99));
    rate
}
