//! The parts of `kvd`, the quorumkv daemon, as a library for its binary and its tests.
//!
//! `config` is what the node was told, `data_dir` who it is. `shell` has the owner of the replica and what is around
//! it; `net` the connections; `storage` the log and the thread that changes the `state`; `coordination` speaks with
//! ZooKeeper; `admin` and `metrics` are for those who operate it. `dev` runs a whole cluster of such nodes on one machine; `recover`
//! makes a new cluster from what is left of an old one.

mod admin;
pub mod config;
pub mod coordination;
pub mod data_dir;
pub mod dev;
mod fatal;
#[cfg(test)]
mod fuzz;
mod metrics;
mod net;
pub mod program;
pub mod recover;
mod shell;
pub mod state;
mod storage;

pub use shell::{RunError, run};
