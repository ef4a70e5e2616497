//! How fast entries are applied to the state, and what that takes: a figure, not a test.
//!
//! `cargo run --release -p kvd --example apply -- [KEYS] [ENTRIES]`

use std::time::{Duration, Instant};

use bytes::Bytes;
use kvd::state::{Options, State};
use quorumkv_protocol::entry::{Body, Effect, Entry, EvaluatedWrite, Outcome};
use quorumkv_protocol::{ClientId, EntryId, Epoch, NodeId, RequestId, Version};

const BATCH: usize = 128;
const VALUE_BYTES: usize = 256;
const CLIENTS: u64 = 256;

fn entry(version: u64, keys: u64, random: &mut fastrand::Rng) -> Entry {
    let key = Bytes::from(format!("key-{:010}", random.u64(..keys)));
    let value = Bytes::from(Vec::from_iter(std::iter::repeat_with(|| random.u8(..)).take(VALUE_BYTES)));
    let sequence = version / CLIENTS + 1;
    Entry {
        id: EntryId::new(Epoch::new(1, NodeId::new(1)), Version::new(version)),
        body: Body::Write(EvaluatedWrite {
            request: RequestId { client: ClientId::new(version % CLIENTS), sequence },
            floor: sequence,
            effects: vec![Effect::Put { key, value }],
            outcome: Outcome::Applied,
        }),
    }
}

/// Resident memory of this process in MiB, now and at its most.
fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? >> 10)
    };
    Some((mib("VmRSS:")?, mib("VmHWM:")?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let keys = arguments.next().transpose()?.unwrap_or(10_000);
    let entries = arguments.next().transpose()?.unwrap_or(1_000_000);
    let dir = tempfile::tempdir()?;
    let state = State::open(dir.path(), Options::default())?;
    println!("empty: {:?} MiB resident (now, most)", memory());

    let mut random = fastrand::Rng::with_seed(1);
    let (mut busy, mut longest) = (Duration::ZERO, Duration::ZERO);
    let mut versions = 1..=entries;
    loop {
        let next = versions.by_ref().take(BATCH);
        let batch = Vec::from_iter(next.map(|version| entry(version, keys, &mut random)));
        if batch.is_empty() {
            break;
        }
        let start = Instant::now();
        state.apply(&batch)?;
        let took = start.elapsed();
        busy += took;
        longest = longest.max(took);
    }
    let applied = state.applied().version.get();
    println!(
        "applied {applied} entries over {keys} keys in {busy:.2?}: {:.0}/s",
        applied as f64 / busy.as_secs_f64()
    );
    println!("longest batch: {longest:.2?}");
    let start = Instant::now();
    state.persist()?;
    println!("persist: {:.2?}", start.elapsed());
    let start = Instant::now();
    for _ in 0..100_000 {
        state.get(format!("key-{:010}", random.u64(..keys)).as_bytes())?;
    }
    println!("get: {:.2?}", start.elapsed() / 100_000);
    println!("loaded: {:?} MiB resident (now, most), {} MiB on disk", memory(), state.disk_bytes()? >> 20);
    drop(state);
    let start = Instant::now();
    let state = State::open(dir.path(), Options::default())?;
    println!(
        "reopened at {} in {:.2?}: {:?} MiB resident",
        state.applied().version,
        start.elapsed(),
        memory()
    );
    Ok(())
}
