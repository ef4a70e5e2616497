//! The state that records add up to: the promise, the base, the last entry, and the epochs between.

use std::collections::VecDeque;

use crate::record::{Change, Epoch, Mark};

/// Why a record cannot follow what the log holds. A mistake of the caller, or damage when it is found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// The entry would leave a gap.
    #[error("entry {mark} does not follow version {last}")]
    Gap {
        /// The entry.
        mark: Mark,
        /// The last version in the log.
        last: u64,
    },
    /// The entry or truncation is at or below the base, where nothing is retained.
    #[error("{mark} is below the base of the log, version {base}")]
    BelowBase {
        /// The entry, or the target of the truncation.
        mark: Mark,
        /// The base's version.
        base: u64,
    },
    /// The entry's epoch is lower than that of the entry before it.
    #[error("entry {mark} follows an entry of the higher epoch {before}")]
    EpochGoesBack {
        /// The entry.
        mark: Mark,
        /// The epoch of the entry before it.
        before: Epoch,
    },
    /// The promise is lower than the one in force.
    #[error("promise {epoch} is lower than {promised}, which is in force")]
    PromiseGoesBack {
        /// The refused promise.
        epoch: Epoch,
        /// The promise in force.
        promised: Epoch,
    },
    /// The truncation names an entry that the log does not hold.
    #[error("the log holds no entry {to} to truncate to")]
    NoSuchEntry {
        /// The target.
        to: Mark,
    },
    /// The version is the last number there is: nothing could follow it.
    #[error("version {} is out of range", mark.version)]
    OutOfRange {
        /// The entry or base.
        mark: Mark,
    },
    /// The record does not fit a segment.
    #[error("a record of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// The record's size on disk.
        bytes: usize,
        /// The largest size that fits a segment.
        limit: usize,
    },
}

/// What the records so far add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) promise: Option<Epoch>,
    /// The mark before the first retained entry.
    pub(crate) base: Mark,
    pub(crate) last: Mark,
    /// Each epoch among the retained entries with its first version, ascending.
    runs: VecDeque<(Epoch, u64)>,
}

impl Tail {
    /// The state at the start of a log that begins after `base`.
    pub(crate) fn starting_at(promise: Option<Epoch>, base: Mark) -> Tail {
        Tail { promise, base, last: base, runs: VecDeque::new() }
    }

    /// The mark of a retained entry, or of the base.
    pub(crate) fn mark(&self, version: u64) -> Option<Mark> {
        if version == self.base.version {
            return Some(self.base);
        }
        if version < self.base.version || version > self.last.version {
            return None;
        }
        let after = self.runs.partition_point(|(_, first)| *first <= version);
        Some(Mark { epoch: self.runs[after - 1].0, version })
    }

    pub(crate) fn runs(&self) -> Vec<(Epoch, u64)> {
        self.runs.iter().copied().collect()
    }

    /// The truncation that makes room for an entry which overwrites others, if it does.
    pub(crate) fn truncation_before(&self, entry: Mark) -> Result<Option<Mark>, InvalidRecord> {
        if entry.version > self.last.version {
            return Ok(None);
        }
        let before = entry.version.checked_sub(1).and_then(|version| self.mark(version));
        before.map(Some).ok_or(InvalidRecord::BelowBase { mark: entry, base: self.base.version })
    }

    /// Whether a record may come next. Entries must follow the last one: [`Tail::truncation_before`] comes first.
    pub(crate) fn check(&self, change: Change) -> Result<(), InvalidRecord> {
        match change {
            Change::Entry(mark) | Change::Base(mark) if mark.version == u64::MAX => {
                Err(InvalidRecord::OutOfRange { mark })
            }
            Change::Entry(mark) if mark.version != self.last.version + 1 => {
                Err(InvalidRecord::Gap { mark, last: self.last.version })
            }
            Change::Entry(mark) if mark.epoch < self.last.epoch => {
                Err(InvalidRecord::EpochGoesBack { mark, before: self.last.epoch })
            }
            Change::Promise(epoch) => match self.promise {
                Some(promised) if promised > epoch => Err(InvalidRecord::PromiseGoesBack { epoch, promised }),
                _ => Ok(()),
            },
            // Below the base the entry was trimmed since, so there is nothing to compare with.
            Change::Truncate(to) if to.version >= self.base.version && self.mark(to.version) != Some(to) => {
                Err(InvalidRecord::NoSuchEntry { to })
            }
            Change::Entry(_) | Change::Base(_) | Change::Truncate(_) => Ok(()),
        }
    }

    /// Takes in a record that [`Tail::check`] has let through.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Entry(mark) => {
                if self.runs.back().is_none_or(|(epoch, _)| *epoch != mark.epoch) {
                    self.runs.push_back((mark.epoch, mark.version));
                }
                self.last = mark;
            }
            Change::Promise(epoch) => self.promise = Some(epoch),
            Change::Base(mark) => *self = Tail::starting_at(self.promise, mark),
            Change::Truncate(to) if to.version <= self.base.version => {
                *self = Tail::starting_at(self.promise, to);
            }
            Change::Truncate(to) => {
                while self.runs.back().is_some_and(|(_, first)| *first > to.version) {
                    self.runs.pop_back();
                }
                self.last = to;
            }
        }
    }

    /// Moves the base up to a retained entry: what is at or below it is gone.
    pub(crate) fn trim(&mut self, base: Mark) {
        self.base = base;
        let first = base.version + 1;
        while self.runs.len() > 1 && self.runs[1].1 <= first {
            self.runs.pop_front();
        }
        if base == self.last {
            self.runs.clear();
        } else if let Some(run) = self.runs.front_mut() {
            run.1 = run.1.max(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(counter: u64) -> Epoch {
        Epoch { counter, node: 1 }
    }

    fn mark(counter: u64, version: u64) -> Mark {
        Mark { epoch: epoch(counter), version }
    }

    fn tail(marks: &[Mark]) -> Tail {
        let mut tail = Tail::default();
        for mark in marks {
            tail.check(Change::Entry(*mark)).expect("follows");
            tail.apply(Change::Entry(*mark));
        }
        tail
    }

    #[test]
    fn marks_are_found_through_runs_of_epochs() {
        let tail = tail(&[mark(1, 1), mark(1, 2), mark(3, 3), mark(3, 4), mark(4, 5)]);
        assert_eq!(tail.runs(), [(epoch(1), 1), (epoch(3), 3), (epoch(4), 5)]);
        assert_eq!(tail.mark(0), Some(Mark::ZERO));
        assert_eq!(tail.mark(2), Some(mark(1, 2)));
        assert_eq!(tail.mark(4), Some(mark(3, 4)));
        assert_eq!(tail.mark(6), None);
    }

    #[test]
    fn truncation_takes_epochs_back() {
        let mut tail = tail(&[mark(1, 1), mark(1, 2), mark(2, 3), mark(3, 4)]);
        assert_eq!(tail.truncation_before(mark(5, 3)), Ok(Some(mark(1, 2))));
        tail.apply(Change::Truncate(mark(1, 2)));
        assert_eq!((tail.last, tail.runs()), (mark(1, 2), vec![(epoch(1), 1)]));
        tail.apply(Change::Truncate(Mark::ZERO));
        assert_eq!(tail, Tail::default());
    }

    #[test]
    fn trimming_drops_and_clips_runs() {
        let mut tail = tail(&[mark(1, 1), mark(1, 2), mark(2, 3), mark(2, 4)]);
        tail.trim(mark(2, 3));
        assert_eq!((tail.base, tail.runs()), (mark(2, 3), vec![(epoch(2), 4)]));
        tail.trim(mark(2, 4));
        assert_eq!((tail.last, tail.runs()), (mark(2, 4), vec![]));
    }

    #[test]
    fn what_cannot_follow_is_refused() {
        let mut tail = tail(&[mark(2, 1), mark(2, 2)]);
        tail.apply(Change::Promise(epoch(5)));
        assert_eq!(
            tail.check(Change::Entry(mark(2, 4))),
            Err(InvalidRecord::Gap { mark: mark(2, 4), last: 2 })
        );
        let back = InvalidRecord::EpochGoesBack { mark: mark(1, 3), before: epoch(2) };
        assert_eq!(tail.check(Change::Entry(mark(1, 3))), Err(back));
        let back = InvalidRecord::PromiseGoesBack { epoch: epoch(4), promised: epoch(5) };
        assert_eq!(tail.check(Change::Promise(epoch(4))), Err(back));
        let to = mark(1, 2);
        assert_eq!(tail.check(Change::Truncate(to)), Err(InvalidRecord::NoSuchEntry { to }));
        let zero = mark(3, 0);
        assert_eq!(tail.truncation_before(zero), Err(InvalidRecord::BelowBase { mark: zero, base: 0 }));
    }

    #[test]
    fn the_highest_number_is_no_version() {
        let mark = mark(1, u64::MAX);
        let tail = Tail::starting_at(None, Mark { version: u64::MAX - 1, ..mark });
        assert_eq!(tail.check(Change::Entry(mark)), Err(InvalidRecord::OutOfRange { mark }));
        assert_eq!(tail.check(Change::Base(mark)), Err(InvalidRecord::OutOfRange { mark }));
    }
}
