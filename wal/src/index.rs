//! Where the current entries are: shared by the writer, which moves it on, and the readers.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::format::LogId;
use crate::record::Change;
use crate::segment::Segment;
use crate::tail::Tail;
use crate::verify::Written;

/// The index with its lock. The lock is held for memory work only, never over a disk operation.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) log: LogId,
    /// Whether the next group begins a segment.
    pub(crate) roll: AtomicBool,
    index: RwLock<Index>,
}

impl Shared {
    pub(crate) fn new(log: LogId, index: Index) -> Shared {
        Shared { log, roll: AtomicBool::new(false), index: RwLock::new(index) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A segment and how far it is used.
#[derive(Debug)]
struct Extent {
    segment: Arc<Segment>,
    /// Absolute position after its last record.
    end: u64,
    /// The highest version of any entry in it, also of those that were overwritten since: the overwriting record
    /// may not be durable yet, and after a crash the entry may count again.
    highest: u64,
}

/// A stretch of one segment with entries to read.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) segment: Arc<Segment>,
    /// The version of the first entry; the others follow.
    pub(crate) first: u64,
    /// The entries' absolute positions, ascending.
    pub(crate) positions: Vec<u64>,
    /// Absolute position at which the last entry ends, or later.
    pub(crate) end: u64,
}

/// Everything that was written, in memory: 8 bytes per retained entry.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) tail: Tail,
    /// Absolute positions of the entries from `tail.base.version + 1` to `tail.last.version`: always ascending,
    /// since a current entry is never older on disk than its predecessor.
    positions: VecDeque<u64>,
    /// Oldest first; never empty once the log is open. The last is the one being written.
    extents: VecDeque<Extent>,
}

impl Index {
    pub(crate) fn new(tail: Tail) -> Index {
        Index { tail, positions: VecDeque::new(), extents: VecDeque::new() }
    }

    /// `end` is where its next record goes.
    pub(crate) fn push_segment(&mut self, segment: Arc<Segment>, end: u64) {
        self.extents.push_back(Extent { segment, end, highest: 0 });
    }

    /// The segment being written.
    pub(crate) fn active(&self) -> &Arc<Segment> {
        &self.extents.back().expect("an open log has a segment").segment
    }

    /// The oldest segment.
    pub(crate) fn oldest(&self) -> &Segment {
        &self.extents.front().expect("an open log has a segment").segment
    }

    /// Takes in a record of the active segment that occupies `position..end`.
    pub(crate) fn apply(&mut self, change: Change, position: u64, end: u64) {
        let extent = self.extents.back_mut().expect("an open log has a segment");
        extent.end = end;
        if let Change::Entry(mark) = change {
            extent.highest = extent.highest.max(mark.version);
            self.positions.push_back(position);
        }
        self.tail.apply(change);
        let retained = self.tail.last.version - self.tail.base.version;
        self.positions.truncate(usize::try_from(retained).expect("as many as were pushed"));
        assert_eq!(self.positions.len() as u64, retained, "one position per retained entry");
    }

    /// Forgets the oldest segments that hold only entries below `below`, and returns them, oldest first.
    /// The active segment always stays.
    pub(crate) fn trim(&mut self, below: u64) -> Vec<Arc<Segment>> {
        let mut removed = Vec::new();
        while self.extents.len() > 1 && self.extents[0].highest < below {
            removed.extend(self.extents.pop_front().map(|extent| extent.segment));
        }
        let start = self.extents[0].segment.start;
        let gone = self.positions.partition_point(|position| *position < start);
        if gone > 0 {
            self.positions.drain(..gone);
            let base = self.tail.mark(self.tail.base.version + gone as u64).expect("a retained entry");
            self.tail.trim(base);
        }
        removed
    }

    /// The oldest segment whose number is above `after`.
    pub(crate) fn written_after(&self, after: u64) -> Option<Written> {
        let at = self.extents.iter().position(|extent| extent.segment.sequence > after)?;
        let Extent { segment, end, .. } = &self.extents[at];
        let is_active = at + 1 == self.extents.len();
        Some(Written { segment: Arc::clone(segment), end: *end, is_active })
    }

    /// The highest version of any entry in the segments up to this one; 0 if they hold none.
    pub(crate) fn highest_upto(&self, sequence: u64) -> u64 {
        let upto = self.extents.iter().take_while(|extent| extent.segment.sequence <= sequence);
        upto.map(|extent| extent.highest).max().unwrap_or(0)
    }

    /// The bytes of log that are kept: whole segments, the active one as far as it is used.
    pub(crate) fn bytes(&self) -> u64 {
        let first = self.extents.front().expect("an open log has a segment");
        let last = self.extents.back().expect("an open log has a segment");
        last.end - first.segment.start
    }

    /// Where to read the entries from `from` on, up to `max_bytes` of records but at least one if there is one.
    pub(crate) fn plan(&self, from: u64, max_bytes: u64) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let Some(skip) =
            from.checked_sub(self.tail.base.version + 1).and_then(|skip| usize::try_from(skip).ok())
        else {
            return spans;
        };
        let mut bytes = 0;
        for (at, position) in self.positions.iter().copied().enumerate().skip(skip) {
            let extent =
                &self.extents[self.extents.partition_point(|extent| extent.segment.start <= position) - 1];
            // What lies between two entries, overwritten ones above all, is read along with them.
            let end = self.positions.get(at + 1).map_or(extent.end, |next| extent.end.min(*next));
            bytes += end - position;
            if bytes > max_bytes && !spans.is_empty() {
                break;
            }
            match spans.last_mut().filter(|span| span.segment.start == extent.segment.start) {
                Some(span) => {
                    span.positions.push(position);
                    span.end = end;
                }
                None => spans.push(Span {
                    segment: extent.segment.clone(),
                    first: self.tail.base.version + 1 + at as u64,
                    positions: vec![position],
                    end,
                }),
            }
        }
        spans
    }
}
