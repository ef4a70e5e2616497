//! What clients saw is linearizable, and true of what was committed (DESIGN 1, 5, 6).
//!
//! Versions are positions of the one log, so the order is known and only needs to be checked: nobody who asks after
//! something was seen may see what was before it. That is linear in the history, where a search would explode.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorumkv_protocol::client::{Versioned, Write};
use quorumkv_protocol::entry::{Body, Entry, Outcome};
use quorumkv_protocol::{RequestId, Version};
use quorumkv_replica::Token;

/// Everything that clients asked and heard, in order.
#[derive(Default)]
pub(crate) struct History {
    events: Vec<Event>,
    requests: BTreeMap<RequestId, Asked>,
}

enum Event {
    /// A request was sent.
    Begins(Token),
    /// It was answered.
    Ends(Token, Seen),
    /// A write was sent for the first time.
    Asks(RequestId),
}

/// What a client learned.
#[derive(Debug)]
pub(crate) enum Seen {
    Written { request: RequestId, outcome: Outcome, version: Version },
    Read { key: Bytes, value: Option<Versioned> },
    Scanned { at: Version },
}

struct Asked {
    write: Write,
    sends: u32,
    /// Answers that say that nothing came of one of the sends.
    not_applied: u32,
}

/// A key's committed past: each version that touched it, and the value it left.
type Timeline<'a> = BTreeMap<&'a Bytes, Vec<(Version, Option<&'a Bytes>)>>;

impl History {
    pub(crate) fn asks(&mut self, request: RequestId, write: Write) {
        self.events.push(Event::Asks(request));
        self.requests.insert(request, Asked { write, sends: 0, not_applied: 0 });
    }

    pub(crate) fn sends(&mut self, request: RequestId) {
        self.asked(request).sends += 1;
    }

    pub(crate) fn not_applied(&mut self, request: RequestId) {
        self.asked(request).not_applied += 1;
    }

    pub(crate) fn begins(&mut self, token: Token) {
        self.events.push(Event::Begins(token));
    }

    pub(crate) fn ends(&mut self, token: Token, seen: Seen) {
        self.events.push(Event::Ends(token, seen));
    }

    fn asked(&mut self, request: RequestId) -> &mut Asked {
        self.requests.get_mut(&request).expect("it was asked")
    }

    /// Checks all of it against what was committed.
    pub(super) fn check(&self, log: &[Arc<Entry>]) {
        let timeline = self.check_log(log);
        // Who asks now must see at least the log up to here.
        let mut bound = Version::ZERO;
        let mut begun: BTreeMap<Token, Version> = BTreeMap::new();
        let mut asked: BTreeMap<RequestId, Version> = BTreeMap::new();
        for event in &self.events {
            match event {
                Event::Asks(request) => {
                    asked.insert(*request, bound);
                }
                Event::Begins(token) => {
                    begun.insert(*token, bound);
                }
                Event::Ends(token, seen) => {
                    let at = match seen {
                        Seen::Written { request, outcome, version } => {
                            self.check_written(*request, *outcome, *version, log);
                            assert!(
                                *version > asked[request],
                                "{request} came before what was seen before it"
                            );
                            *version
                        }
                        Seen::Read { key, value: Some(value) } => {
                            check_value(&timeline, key, value, begun[token]);
                            value.version
                        }
                        Seen::Read { key, value: None } => {
                            let exists = |version: Version| match &entry_at(log, version).body {
                                Body::Write(write) => asked.contains_key(&write.request),
                                Body::Open | Body::Configure(_) => true,
                            };
                            absence(&timeline, key, begun[token])
                                .filter(|&at| at == begun[token] || exists(at))
                                .unwrap_or_else(|| {
                                    panic!("{token:?} found {key:?} absent, after {} was seen", begun[token])
                                })
                        }
                        Seen::Scanned { at } => {
                            assert!(
                                *at >= begun[token],
                                "a scan at {at} came after {} was seen",
                                begun[token]
                            );
                            *at
                        }
                    };
                    bound = bound.max(at);
                }
            }
        }
    }

    /// Every entry does what its request asked for in the state that it met; none was reported as not applied.
    fn check_log<'a>(&self, log: &'a [Arc<Entry>]) -> Timeline<'a> {
        let mut timeline: Timeline<'a> = BTreeMap::new();
        for entry in log {
            let Body::Write(write) = &entry.body else { continue };
            let asked = &self.requests[&write.request];
            assert!(
                asked.not_applied < asked.sends,
                "request {} is committed as {}, and all its answers said that it was not",
                write.request,
                entry.id
            );
            let past = timeline.get(asked.write.key()).and_then(|past| past.last());
            let actual = past.filter(|(_, value)| value.is_some()).map_or(Version::ZERO, |past| past.0);
            let outcome = match &asked.write {
                Write::Put { .. } => Outcome::Applied,
                Write::Delete { .. } if actual == Version::ZERO => Outcome::NotFound,
                Write::Delete { .. } => Outcome::Applied,
                Write::CompareAndSet { expected, .. } if *expected != actual => Outcome::Mismatch { actual },
                Write::CompareAndSet { .. } => Outcome::Applied,
            };
            assert_eq!(write.outcome, outcome, "request {} came to something else", write.request);
            assert_eq!(write.effects.len(), usize::from(outcome == Outcome::Applied), "{}", write.request);
            for effect in &write.effects {
                assert_eq!((effect.key(), effect.value()), (asked.write.key(), asked.write.value()));
                timeline.entry(effect.key()).or_default().push((entry.id.version, effect.value()));
            }
        }
        timeline
    }

    /// A write that was acknowledged is there.
    fn check_written(&self, request: RequestId, outcome: Outcome, version: Version, log: &[Arc<Entry>]) {
        assert!(version.get() <= log.len() as u64, "{request} was acknowledged at {version}, and is lost");
        let entry = entry_at(log, version);
        let Body::Write(write) = &entry.body else { panic!("{request}, acknowledged as {entry:?}, is lost") };
        assert_eq!((write.request, write.outcome), (request, outcome), "what was acknowledged at {version}");
    }

    /// Whether the request that this token names was answered as asked.
    pub(crate) fn has_ended(&self, token: Token) -> bool {
        self.events.iter().rev().any(|event| matches!(event, Event::Ends(ended, _) if *ended == token))
    }
}

fn entry_at(log: &[Arc<Entry>], version: Version) -> &Entry {
    &log[usize::try_from(version.get() - 1).expect("runs are short")]
}

/// Who begins when `bound` was seen may be shown this value.
fn check_value(timeline: &Timeline<'_>, key: &Bytes, value: &Versioned, bound: Version) {
    let past = timeline.get(key).map_or(&[][..], Vec::as_slice);
    let committed =
        past.binary_search_by_key(&value.version, |(version, _)| *version).ok().map(|at| past[at]);
    assert_eq!(
        committed,
        Some((value.version, Some(&value.value))),
        "a value of {key:?} was read that is not committed"
    );
    let before = past.partition_point(|(version, _)| *version <= bound);
    let newest = before.checked_sub(1).map(|at| past[at].0);
    assert!(
        newest.is_none_or(|newest| newest <= value.version),
        "{key:?} was read at {}, after {newest:?} was seen",
        value.version
    );
}

/// The first moment of the log, not before `bound`, at which the key was absent.
fn absence(timeline: &Timeline<'_>, key: &Bytes, bound: Version) -> Option<Version> {
    let past = timeline.get(key).map_or(&[][..], Vec::as_slice);
    let before = past.partition_point(|(version, _)| *version <= bound);
    if before.checked_sub(1).is_none_or(|last| past[last].1.is_none()) {
        return Some(bound);
    }
    past[before..].iter().find(|(_, value)| value.is_none()).map(|(version, _)| *version)
}
