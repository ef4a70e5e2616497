//! What a replica keeps is bounded, whatever happens (DESIGN 10).

use quorumkv_protocol::NodeId;
use quorumkv_replica::{Load, Settings};

/// Samples that may wait, and the room that an entry of a simulated client takes at most, and one that opens an epoch.
const PARKED: usize = 4096;
const ENTRY: usize = 4096;
const OPENING: usize = 256;

/// A node has taken in something. `recovered` bytes of its log were there when it started, however seldom its state was saved before.
/// Each of the `epochs` that there have been may have left an opening entry that none after it has committed yet.
pub(super) fn check(id: NodeId, load: &Load, recovered: usize, epochs: u64, settings: &Settings) {
    assert!(load.reads <= settings.reads, "{id} has taken in too many reads: {load:?}");
    assert!(load.queued <= settings.reads, "{id} has queued too many writes: {load:?}");
    assert!(load.parked <= PARKED, "{id} has parked too many samples: {load:?}");
    assert!(load.in_flight <= settings.pipeline, "{id} has sent too much without an answer: {load:?}");
    // What other leaders took in before, and what is taken over with a log, comes on top of what this one takes.
    let most = 4 * (settings.backlog_bytes + settings.cache_bytes + settings.append_bytes) + 64 * ENTRY;
    let openings = usize::try_from(epochs).expect("runs are short") * OPENING;
    assert!(
        load.log_bytes <= most + recovered + openings,
        "{id} keeps too much of its log in memory: {load:?}, at most {most}"
    );
}
