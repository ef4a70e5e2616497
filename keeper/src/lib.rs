//! A coordination server that speaks ZooKeeper's client protocol.

pub mod acl;
pub mod config;
pub mod core;
#[cfg(test)]
mod fuzz;
pub mod jute;
pub mod path;
pub mod prepare;
pub mod process;
pub mod server;
pub mod storage;
pub mod tree;
pub mod txn;
pub mod wire;
