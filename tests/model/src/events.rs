//! What must happen somewhere for a model to say anything.

/// Something worth to be counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The first epoch was established.
    Established,
    /// A later epoch was established.
    EstablishedAgain,
    /// A write was committed.
    WriteCommitted,
    /// A read returned what it saw to be chosen.
    ReadChosen,
    /// A read returned what an answer knew to be committed.
    ReadKnownCommitted,
    /// A read met a conflict.
    Conflict,
    /// Entries that differed from the leader's were dropped.
    Truncated,
    /// A new leader took entries from another's log.
    Adopted,
    /// A leader heard of a higher epoch.
    Fenced,
    /// A crash lost entries.
    UnsyncedLost,
}

/// How many events there are.
const COUNT: usize = 10;

impl Event {
    /// All of them.
    pub const ALL: [Self; COUNT] = [
        Self::Established,
        Self::EstablishedAgain,
        Self::WriteCommitted,
        Self::ReadChosen,
        Self::ReadKnownCommitted,
        Self::Conflict,
        Self::Truncated,
        Self::Adopted,
        Self::Fenced,
        Self::UnsyncedLost,
    ];
}

/// How many steps came to each event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Events([u64; COUNT]);

impl Events {
    pub(crate) fn note(&mut self, event: Event) {
        self.0[event as usize] += 1;
    }

    /// How many steps came to it.
    pub const fn count(&self, event: Event) -> u64 {
        self.0[event as usize]
    }
}
