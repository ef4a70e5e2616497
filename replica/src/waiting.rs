//! Clients whose writes are in the log and not committed yet.

use std::collections::BTreeMap;
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

/// Waiting clients by the version of their entry. They stay when the leader stands down, because a later leader may
/// yet commit what this one logged.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_version: BTreeMap<Version, Vec<Waiter>>,
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
        self.by_version.entry(entry.version).or_default().push(Waiter { token, entry, request, deadline });
    }

    /// Everything in `log` up to `version` is committed: answers whose fate that decides.
    pub(crate) fn committed(&mut self, version: Version, log: &Log, out: &mut Outbox) {
        while let Some(first) = self.by_version.first_entry()
            && *first.key() <= version
        {
            let entry = log.entry(*first.key()).expect("entries that are not applied are in memory");
            for waiter in first.remove() {
                let reply = if waiter.entry == entry.id { written(entry) } else { SUPERSEDED };
                out.answer(waiter.token, reply);
            }
        }
        // What a lower epoch logged after the entry that is committed now is in no later leader's log.
        let epoch = log.id_at(version).expect("a committed version is in the log").epoch;
        while let Some(last) = self.by_version.last_entry()
            && last.get().iter().all(|waiter| waiter.entry.epoch < epoch)
        {
            for waiter in last.remove() {
                out.answer(waiter.token, SUPERSEDED);
            }
        }
    }

    /// The state jumped to a snapshot: what it knows of requests decides about those that it covers.
    pub(crate) fn jumped(&mut self, snapshot: Version, state: &impl StateView, out: &mut Outbox) {
        let later = self.by_version.split_off(&snapshot.next());
        for waiter in std::mem::replace(&mut self.by_version, later).into_values().flatten() {
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
        for waiter in std::mem::take(&mut self.by_version).into_values().flatten() {
            out.answer(waiter.token, SUPERSEDED);
        }
    }

    /// Answers whose deadline has come: the entry is in the log, and may yet be committed.
    pub(crate) fn expire(&mut self, now: Timestamp, out: &mut Outbox) {
        if now.since(self.scanned) < EXPIRY_SCAN {
            return;
        }
        self.scanned = now;
        self.by_version.retain(|_, waiters| {
            waiters.retain(|waiter| {
                let waits = waiter.deadline > now;
                if !waits {
                    out.answer(waiter.token, UNKNOWN);
                }
                waits
            });
            !waiters.is_empty()
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
