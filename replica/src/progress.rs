//! What a leader knows of one replica's log, and what it sends there next.

use std::collections::VecDeque;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::{EntryId, Version};

use crate::time::Timestamp;

/// How far one replica is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Everything up to here is durable there and equal to the leader's log.
    pub(crate) matched: Version,
    /// The next version to send.
    pub(crate) next: Version,
    pub(crate) phase: Phase,
    /// The last versions of appends without an answer.
    in_flight: VecDeque<Version>,
    /// When the last answer that moved `matched` came, or the first append after a pause went.
    advanced: Timestamp,
    /// The commit that it was last told.
    pub(crate) told: Version,
    /// When it last answered anything.
    pub(crate) heard: Timestamp,
    /// Whether entries for it are being read from the disk.
    pub(crate) reading: bool,
    /// Whether its disk is nearly full, as it last said.
    pub(crate) disk_full: bool,
    /// Whether its state is damaged, as it last said.
    pub(crate) damaged: bool,
    /// The configuration that no longer has it. It is told of that until it is committed, then no more.
    pub(crate) leaving: Option<Version>,
}

/// How the leader treats a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// It is not known where the logs meet: one append at a time until one is accepted.
    Probing {
        /// When the last probe was sent; `None` if the next may go at once.
        sent: Option<Timestamp>,
    },
    /// Appends follow one another without waiting.
    Streaming,
    /// It needs a snapshot.
    Restoring {
        /// When it was last told so.
        told: Timestamp,
    },
}

impl Progress {
    pub(crate) const fn new(next: Version, now: Timestamp) -> Self {
        Self {
            matched: Version::ZERO,
            next,
            phase: Phase::Probing { sent: None },
            in_flight: VecDeque::new(),
            advanced: now,
            told: Version::ZERO,
            heard: now,
            reading: false,
            disk_full: false,
            damaged: false,
            leaving: None,
        }
    }

    /// Appends without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The logs may meet at `here`.
    pub(crate) fn probe_after(&mut self, here: EntryId) {
        self.next = here.version.next();
        self.phase = Phase::Probing { sent: None };
        self.in_flight.clear();
    }

    /// Whether another append may be sent now.
    pub(crate) fn may_send(
        &self,
        last: Version,
        pipeline: usize,
        now: Timestamp,
        resend: std::time::Duration,
    ) -> bool {
        match self.phase {
            Phase::Probing { sent } => sent.is_none_or(|sent| now.since(sent) >= resend),
            Phase::Streaming => self.next <= last && self.in_flight.len() < pipeline,
            Phase::Restoring { .. } => false,
        }
    }

    /// An append with entries up to `upto` goes out.
    pub(crate) fn sent(&mut self, upto: Version, committed: Version, now: Timestamp) {
        self.told = committed;
        match &mut self.phase {
            Phase::Probing { sent } => *sent = Some(now),
            Phase::Streaming => {
                if self.in_flight.is_empty() {
                    self.advanced = now;
                }
                self.in_flight.push_back(upto);
                self.next = upto.next();
            }
            Phase::Restoring { .. } => {}
        }
    }

    /// It holds everything up to `durable`.
    pub(crate) fn accepted(&mut self, durable: Version, now: Timestamp) {
        self.matched = self.matched.max(durable);
        self.next = self.next.max(self.matched.next());
        self.phase = Phase::Streaming;
        self.advanced = now;
        while self.in_flight.front().is_some_and(|&upto| upto <= durable) {
            self.in_flight.pop_front();
        }
    }

    /// Its log differs at `at`, and may meet the leader's at `hint`. False if this answers an append that is no longer
    /// of interest.
    pub(crate) fn diverged(&mut self, at: Version, hint: EntryId) -> bool {
        let current = match self.phase {
            // Appends that were sent after the one that did not fit are refused one by one.
            Phase::Probing { .. } => at == self.next.previous(),
            Phase::Streaming => at >= self.matched,
            Phase::Restoring { .. } => false,
        };
        if current {
            self.probe_after(hint);
        }
        current
    }

    /// What was sent and not answered may be lost.
    pub(crate) fn disconnected(&mut self) {
        match &mut self.phase {
            Phase::Streaming if Mutant::LostAppendsNotResent.on() => {}
            Phase::Streaming => {
                self.next = self.matched.next();
                self.phase = Phase::Probing { sent: None };
            }
            Phase::Probing { sent } => *sent = None,
            Phase::Restoring { .. } => {}
        }
        self.in_flight.clear();
    }

    /// Whether appends have gone unanswered for so long that they are taken for lost.
    pub(crate) fn is_stuck(&self, now: Timestamp, resend: std::time::Duration) -> bool {
        !Mutant::LostAppendsNotResent.on()
            && self.phase == Phase::Streaming
            && !self.in_flight.is_empty()
            && now.since(self.advanced) >= resend
    }
}
