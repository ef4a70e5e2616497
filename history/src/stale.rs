//! Reads of one node's state, which may be old.

use serde::{Deserialize, Serialize};

/// How old reads were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// Reads that were answered.
    pub reads: u64,
    /// Those that showed what a newer version, acknowledged or seen by somebody before the read began, had replaced.
    pub stale: u64,
    /// How many versions lie between what the most stale read showed and the newest that was known of its key. At least: an
    /// absent key has no version, so the latest absence before counts.
    pub furthest_behind: u64,
    /// The sum over all stale reads.
    pub behind: u64,
}

impl Stale {
    pub(crate) fn note(&mut self, behind: u64) {
        self.stale += 1;
        self.behind += behind;
        self.furthest_behind = self.furthest_behind.max(behind);
    }
}
