//! What the replica's shell is made of, in memory: a log that loses what is not synced, and a state.

// Each of the two test programs uses a part of it.
#![allow(dead_code, reason = "each test binary uses its own part of the model")]

pub(crate) mod disk;
pub(crate) mod render;
pub(crate) mod store;

use quorumkv_protocol::entry::{Configuration, Member};
use quorumkv_protocol::{EntryId, NodeId};

/// The configuration of nodes 1 to `count`.
pub(crate) fn configuration(count: u64) -> Configuration {
    let member = |node| Member { node: NodeId::new(node), address: format!("node{node}:5000") };
    Configuration { id: EntryId::ZERO, members: (1..=count).map(member).collect() }
}
