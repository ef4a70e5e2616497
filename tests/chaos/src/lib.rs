//! Chaos.
pub mod disk;
