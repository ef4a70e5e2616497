//! Chaos.
pub mod disk;
pub mod testbed;
