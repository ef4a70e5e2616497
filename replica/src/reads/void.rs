//! Samples that count for nothing, because they were taken in a configuration that no longer counts.
//!
//! A quorum of one configuration need not meet a quorum of the one after the next. What keeps reads right is that a
//! sample meets the *next*: if that is committed, some member of the sample has it and says so (see
//! [`rule::is_void`](super::rule::is_void)). The read then samples again: at once when this node's log brings another
//! configuration, and else after a pause, because the newer one may be dropped again, or be known to a few only. A node
//! that is so far behind that all its samples are void says so when the client's deadline comes.

use quorumkv_protocol::{EntryId, ErrorCode};

use super::contested::{LONGEST_ROUND, SHORTEST_ROUND};
use super::{Barrier, Read};
use crate::effects::{Notice, Reply};
use crate::replica::Replica;
use crate::state::StateView;
use crate::time::Timestamp;

/// Requests that are to be sampled for again.
#[derive(Debug, Default)]
pub(super) struct Again {
    due: Timestamp,
    pub(super) reads: Vec<Read>,
    pub(super) barriers: Vec<Barrier>,
}

impl<S: StateView> Replica<S> {
    /// What was asked under this correlation counts for nothing: a replica with that configuration answered.
    pub(super) fn void(&mut self, correlation: u64, configuration: EntryId) {
        self.out.notice(Notice::SampleVoid { configuration });
        let mut again = self.take_back(correlation);
        let reads = again.reads.iter_mut().map(|read| &mut read.voids);
        let barriers = again.barriers.iter_mut().map(|barrier| &mut barrier.voids);
        let mut voids = 0;
        for count in reads.chain(barriers) {
            *count += 1;
            voids = voids.max(*count);
        }
        let pause = SHORTEST_ROUND * (1 << voids.saturating_sub(1).min(10));
        again.due = self.now + pause.min(LONGEST_ROUND);
        self.reader.void.push(again);
    }

    /// Another configuration counts: everything that was asked in the one before is asked again.
    pub(crate) fn restart_reads(&mut self) {
        let asked = self.reader.samples.keys().chain(self.reader.contested.keys());
        for correlation in asked.copied().collect::<Vec<u64>>() {
            let again = self.take_back(correlation);
            self.reader.void.push(again);
        }
        self.release_void(Timestamp::MAX);
        if !self.is_member() {
            self.fail_reads();
        }
    }

    /// Lets requests sample again whose pause is over at `now`.
    pub(super) fn release_void(&mut self, now: Timestamp) {
        for again in self.reader.void.extract_if(.., |again| again.due <= now) {
            self.reader.waiting.extend(again.reads);
            self.reader.barriers_waiting.extend(again.barriers);
        }
    }

    /// This node does not belong to the cluster, so it does not know whom to ask.
    fn fail_reads(&mut self) {
        for read in std::mem::take(&mut self.reader.waiting) {
            self.finish(read.token, failed(ErrorCode::NotMember));
        }
        self.fail_barriers(ErrorCode::NotMember);
    }

    /// This node has no state to scan.
    pub(crate) fn fail_barriers(&mut self, code: ErrorCode) {
        let ready = std::mem::take(&mut self.reader.barriers).into_iter().map(|(_, barrier)| barrier);
        for barrier in std::mem::take(&mut self.reader.barriers_waiting).into_iter().chain(ready) {
            self.out.answer(barrier.token, failed(code));
        }
    }

    /// Ends a sample, or a contested read.
    fn take_back(&mut self, correlation: u64) -> Again {
        if let Some(contested) = self.take_contested(correlation) {
            return Again { reads: vec![contested.into_read()], ..Again::default() };
        }
        let Some(sample) = self.reader.samples.remove(&correlation) else { return Again::default() };
        self.reader.held -= sample.held;
        let reads = sample.reads.into_iter().flatten().collect();
        Again { reads, barriers: sample.barriers, ..Again::default() }
    }
}

fn failed(code: ErrorCode) -> Reply {
    Reply::Failed { code, differing: None, evidence: None }
}
