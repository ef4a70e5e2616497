//! A log of at most six entries in one word.

use std::fmt;

/// Number of an epoch, from 1; 0 before the first.
pub type Epoch = u8;

/// Position in a log, from 1; 0 before the first.
pub type Version = u8;

/// Most entries of a log.
pub const MAX_ENTRIES: usize = 6;

/// Most writes that entries can tell apart.
pub const MAX_WRITES: u8 = 3;

/// Bits of an entry: three for its epoch, two for its write.
const BITS: u32 = 5;

/// An entry: the epoch in which it was proposed, and the client's write in it, from 1. Write 0 opens the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The epoch in which it was proposed.
    pub epoch: Epoch,
    /// The client's write, or 0 for an opening entry.
    pub write: u8,
}

/// The entries of a log, the first in the lowest bits. All are about one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Log(u32);

impl Log {
    /// The log without entries.
    pub const EMPTY: Self = Self(0);

    /// The word that stands for it.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Version of the last entry.
    #[expect(clippy::cast_possible_truncation, reason = "there are six entries at most")]
    pub const fn last(self) -> Version {
        (u32::BITS - self.0.leading_zeros()).div_ceil(BITS) as Version
    }

    /// The entry at a version that the log has.
    pub const fn entry(self, version: Version) -> Entry {
        let [code, ..] = (self.0 >> (BITS * (version as u32 - 1))).to_le_bytes();
        Entry { epoch: (code >> 2) & 7, write: code & 3 }
    }

    /// Epoch of the entry at a version; 0 before the first.
    pub const fn epoch_at(self, version: Version) -> Epoch {
        if version == 0 { 0 } else { self.entry(version).epoch }
    }

    /// Epoch of the last entry: the accepted epoch of whoever holds this log.
    pub const fn last_epoch(self) -> Epoch {
        self.epoch_at(self.last())
    }

    /// The id of the last entry, by which logs are compared.
    pub const fn last_id(self) -> (Epoch, Version) {
        (self.last_epoch(), self.last())
    }

    /// This log with one more entry.
    #[must_use]
    pub const fn with(self, entry: Entry) -> Self {
        let code = (entry.epoch << 2 | entry.write) as u32;
        Self(self.0 | code << (BITS * self.last() as u32))
    }

    /// The entries up to `version`, or all if there are not so many.
    #[must_use]
    pub const fn upto(self, version: Version) -> Self {
        Self(self.0 & ((1 << (BITS * version as u32)) - 1))
    }

    /// The entries of earlier epochs.
    #[must_use]
    pub fn before(self, epoch: Epoch) -> Self {
        let earlier = (1..=self.last()).rev().find(|&version| self.entry(version).epoch < epoch);
        self.upto(earlier.unwrap_or(0))
    }

    /// Up to which version two logs are equal.
    #[expect(clippy::cast_possible_truncation, reason = "there are six entries at most")]
    pub fn common(self, other: Self) -> Version {
        let shorter = self.last().min(other.last());
        shorter.min(((self.0 ^ other.0).trailing_zeros() / BITS) as Version)
    }

    /// Whether this log begins with all of the other.
    pub fn holds(self, other: Self) -> bool {
        self.upto(other.last()) == other
    }

    /// Whether one of the two begins with the other.
    pub fn agrees_with(self, other: Self) -> bool {
        self.holds(other) || other.holds(self)
    }

    /// Version of the first entry of an epoch; 0 if there is none.
    pub fn opening(self, epoch: Epoch) -> Version {
        (1..=self.last()).find(|&version| self.entry(version).epoch == epoch).unwrap_or(0)
    }

    /// Version of the last entry that touched the key; 0 if none did.
    pub fn touched(self) -> Version {
        (1..=self.last()).rev().find(|&version| self.entry(version).write > 0).unwrap_or(0)
    }
}

/// As `[1 1a 2]`: each entry by its epoch, and a letter for its write.
impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for version in 1..=self.last() {
            let Entry { epoch, write } = self.entry(version);
            let gap = if version > 1 { " " } else { "" };
            write!(f, "{gap}{epoch}")?;
            if write > 0 {
                write!(f, "{}", char::from(b'a' + write - 1))?;
            }
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: &[(Epoch, u8)]) -> Log {
        entries.iter().fold(Log::EMPTY, |log, &(epoch, write)| log.with(Entry { epoch, write }))
    }

    #[test]
    fn entries_are_where_they_were_put() {
        let full = log(&[(1, 0), (1, 1), (2, 0), (3, 0), (4, 0), (4, 3)]);
        assert_eq!((full.last(), full.last_id(), full.touched()), (6, (4, 6), 6));
        assert_eq!(full.entry(2), Entry { epoch: 1, write: 1 });
        assert_eq!((full.opening(2), full.opening(4), full.opening(5)), (3, 5, 0));
        assert_eq!(full.upto(3), log(&[(1, 0), (1, 1), (2, 0)]));
        assert_eq!((full.upto(0), full.upto(6)), (Log::EMPTY, full));
        assert_eq!((full.before(4), full.before(1)), (full.upto(4), Log::EMPTY));
        assert_eq!(format!("{full:?}"), "[1 1a 2 3 4 4c]");
    }

    #[test]
    fn logs_are_compared_entry_by_entry() {
        let (short, long, other) = (log(&[(1, 0)]), log(&[(1, 0), (1, 1)]), log(&[(1, 0), (2, 0), (2, 1)]));
        assert_eq!((short.common(long), long.common(other), long.common(long)), (1, 1, 2));
        assert!(long.holds(short) && !short.holds(long) && short.agrees_with(other));
        assert!(!long.agrees_with(other));
        assert_eq!((Log::EMPTY.common(long), Log::EMPTY.last_id(), short.touched()), (0, (0, 0), 0));
    }
}
