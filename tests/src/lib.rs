//! Integration tests of quorumkv with real processes and a real ZooKeeper.

pub mod cluster;
pub mod keeperd;
pub mod zookeeper;
