//! Integration tests of quorumkv with real processes and a real ZooKeeper.

pub mod zookeeper;
