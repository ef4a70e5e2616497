//! Deliberate bugs, each of which a test of the real code must find (docs/testing.md).
//!
//! Where the code does something that safety or progress depends on, it asks whether a [`Mutant`] is on that leaves it out.
//! Without the feature `switch`, which no build for users has, the answer is a constant and the question leaves no trace.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A promise is answered before it is durable.
    PromiseNotDurable,
}
