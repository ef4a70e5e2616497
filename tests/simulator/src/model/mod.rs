//! What the replica's shell is made of, in memory: a log that loses what is not synced, and a state.

// Each of the two test programs uses a part of it.
#![allow(dead_code, reason = "each test binary uses its own part of the model")]

pub(crate) mod disk;
pub(crate) mod render;
pub(crate) mod store;

use quorumkv_protocol::NodeId;
use quorumkv_protocol::membership::{Configuration, Member};

/// A node with an address that no other has.
pub(crate) fn member(node: NodeId) -> Member {
    Member { node, address: format!("node{}:5000", node.get()) }
}

/// The first configuration of nodes 1 to `count`.
pub(crate) fn configuration(count: u64) -> Configuration {
    Configuration::first((1..=count).map(|node| member(NodeId::new(node))).collect())
}
