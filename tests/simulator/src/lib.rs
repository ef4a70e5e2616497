//! Whole clusters under random faults, in one thread, from one seed each (docs/testing.md).
//!
//! A run has two phases. First chaos: crashes that lose what was not synced, links that break, partitions, slow disks,
//! snapshots, an election that names two leaders at once, or none, or the worst, members that come and go, and disks that
//! are lost. Then everything heals, and the cluster must come to agree, answer everybody and serve. The `invariants` hold
//! all the while.

mod clients;
mod clock;
mod disk;
mod faults;
mod healing;
mod invariants;
mod journal;
mod links;
mod members;
mod model;
mod network;
mod node;
mod operations;
mod plan;
mod queue;
mod run;
mod shrink;
mod summary;
mod tasks;
mod world;

pub use run::{Failure, nodes, run, trace_hash};
pub use shrink::{Reduction, Shrunk, shrink};
pub use summary::Summary;
pub use world::Trace;
