//! Histories of what clients asked and heard, and whether they are linearizable.
//!
//! A history is a set of [`Operation`]s, each on one key. Values that are put are never repeated within a history, so a
//! value names the operation that wrote it, and every answer carries the version that it speaks of.

mod operation;

pub use operation::{Action, Operation, Outcome};
