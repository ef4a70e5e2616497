//! The parts of `kvd`, the quorumkv daemon, as a library for its binary and its tests.

pub mod coordination;
pub mod state;
