//! What a replica keeps is bounded, whatever happens (DESIGN 10).

use quorumkv_protocol::NodeId;
use quorumkv_protocol::entry::Body;
use quorumkv_replica::Settings;

use crate::model::disk::Image;
use crate::node::Process;

/// Samples that may wait, and the room that an entry of a simulated client takes at most, and one that opens an epoch.
const PARKED: usize = 4096;
const ENTRY: usize = 4096;
const OPENING: usize = 256;

/// A node has taken in something.
pub(super) fn check(id: NodeId, process: &Process, log: &Image, settings: &Settings) {
    let load = process.replica.load();
    assert!(load.reads <= settings.reads, "{id} has taken in too many reads: {load:?}");
    assert!(load.queued <= settings.reads, "{id} has queued too many writes: {load:?}");
    assert!(load.parked <= PARKED, "{id} has parked too many samples: {load:?}");
    assert!(load.in_flight <= settings.pipeline, "{id} has sent too much without an answer: {load:?}");
    // What other leaders took in before, and what is taken over with a log, comes on top of what this one takes; and what was there
    // when the node started, however seldom its state was saved before.
    let taken = 4 * (settings.backlog_bytes + settings.cache_bytes + settings.append_bytes) + 64 * ENTRY;
    let most = taken + process.recovered_bytes;
    if load.log_bytes > most {
        // Leaders that follow one another faster than they can commit anything leave an entry each.
        let applied = process.replica.status().applied;
        let opens = log.entries.iter().rev().take_while(|entry| entry.id.version > applied);
        let openings = opens.filter(|entry| matches!(entry.body, Body::Open)).count() * OPENING;
        let most = most + openings;
        assert!(load.log_bytes <= most, "{id} keeps too much of its log in memory: {load:?}, at most {most}");
    }
}
