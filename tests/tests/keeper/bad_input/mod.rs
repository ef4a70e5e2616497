//! What nobody should send to a coordination server: ZooKeeper's error or a close, and nobody else notices.

mod bystander;
mod many;
mod packets;
mod slow;

use anyhow::{Result, ensure};
use quorumkv_tests::keeperd::Keeperd;

/// Memory that keeperd may have in use while and after it is sent bad things, in MiB.
const MOST_MIB: u64 = 256;

/// Checks that keeperd lives, and that its memory is bounded.
fn check(keeperd: &mut Keeperd) -> Result<()> {
    keeperd.check_runs()?;
    let mib = keeperd.resident_bytes()? >> 20;
    ensure!(mib <= MOST_MIB, "keeperd has {mib} MiB in use");
    Ok(())
}
