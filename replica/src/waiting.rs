//! Clients whose writes are in the log and not committed yet.

use std::collections::VecDeque;
use std::time::Duration;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::entry::{Entry, Outcome};
use quorumkv_protocol::{EntryId, ErrorCode, RequestId, Version};

use crate::effects::Reply;
use crate::input::Token;
use crate::log::Log;
use crate::outbox::Outbox;
use crate::requests::{Done, Known};
use crate::state::StateView;
use crate::time::Timestamp;

/// How often deadlines are looked at: a client's answer may come this much late.
const EXPIRY_SCAN: Duration = Duration::from_millis(25);

/// Waiting clients, in the order of their entries' versions. They stay when the leader stands down, because a later leader
/// may yet commit what this one logged.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_version: VecDeque<Waiter>,
    scanned: Timestamp,
}

#[derive(Debug)]
struct Waiter {
    token: Token,
    entry: EntryId,
    request: RequestId,
    deadline: Timestamp,
}

impl Waiting {
    pub(crate) fn add(&mut self, token: Token, entry: EntryId, request: RequestId, deadline: Timestamp) {
        // Nearly always the last; not so for the retry of a request that is under way.
        let at = self.after(entry.version);
        self.by_version.insert(at, Waiter { token, entry, request, deadline });
    }

    /// Where those begin that wait for later entries.
    fn after(&self, version: Version) -> usize {
        match self.by_version.back() {
            Some(last) if last.entry.version > version => {
                self.by_version.partition_point(|waiter| waiter.entry.version <= version)
            }
            Some(_) | None => self.by_version.len(),
        }
    }

    /// Everything in `log` up to `version` is committed: answers whose fate that decides.
    pub(crate) fn committed(&mut self, version: Version, log: &Log, out: &mut Outbox) {
        while let Some(waiter) = self.by_version.pop_front_if(|waiter| waiter.entry.version <= version) {
            let entry = log.entry(waiter.entry.version).expect("entries that are not applied are in memory");
            let reply = if waiter.entry == entry.id { written(entry) } else { SUPERSEDED };
            out.answer(waiter.token, reply);
        }
        // What a lower epoch logged after the entry that is committed now is in no later leader's log.
        let epoch = log.id_at(version).expect("a committed version is in the log").epoch;
        while let Some(waiter) = self.by_version.pop_back_if(|waiter| waiter.entry.epoch < epoch) {
            out.answer(waiter.token, SUPERSEDED);
        }
    }

    /// The state jumped to a snapshot: what it knows of requests decides about those that it covers.
    pub(crate) fn jumped(&mut self, snapshot: Version, state: &impl StateView, out: &mut Outbox) {
        let covered = self.after(snapshot);
        for waiter in self.by_version.drain(..covered) {
            let reply = match state.lookup(waiter.request, Version::ZERO) {
                _ if Mutant::SupersededBySnapshot.on() => SUPERSEDED,
                Known::Done(Done { version, outcome }) => Reply::Written { outcome, version },
                Known::Fresh | Known::Expired => UNKNOWN,
            };
            out.answer(waiter.token, reply);
        }
    }

    /// Calls everything superseded, which it need not be.
    pub(crate) fn give_up(&mut self, out: &mut Outbox) {
        for waiter in self.by_version.drain(..) {
            out.answer(waiter.token, SUPERSEDED);
        }
    }

    /// Answers whose deadline has come: the entry is in the log, and may yet be committed.
    pub(crate) fn expire(&mut self, now: Timestamp, out: &mut Outbox) {
        if now.since(self.scanned) < EXPIRY_SCAN {
            return;
        }
        self.scanned = now;
        self.by_version.retain(|waiter| {
            let waits = waiter.deadline > now;
            if !waits {
                out.answer(waiter.token, UNKNOWN);
            }
            waits
        });
    }
}

const SUPERSEDED: Reply = Reply::Failed { code: ErrorCode::Superseded, differing: None, evidence: None };
const UNKNOWN: Reply = Reply::Failed { code: ErrorCode::OutcomeUnknown, differing: None, evidence: None };

/// The answer to the client whose request became this entry.
pub(crate) fn written(entry: &Entry) -> Reply {
    let outcome = entry.answered().map_or(Outcome::Applied, |answered| answered.outcome);
    Reply::Written { outcome, version: entry.id.version }
}
