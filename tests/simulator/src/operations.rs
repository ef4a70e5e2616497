//! What clients asked and heard, for the checker that knows nothing of the log.

use std::collections::BTreeMap;

use quorumkv_history::{Action, Operation, Outcome};
use quorumkv_protocol::RequestId;
use quorumkv_protocol::client::{Versioned, Write};
use quorumkv_protocol::entry;

/// All operations of a run. A request that is sent again is one operation.
#[derive(Default)]
pub(crate) struct Operations {
    all: Vec<Operation>,
    requests: BTreeMap<RequestId, usize>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Operations {
    /// A client sends a write, perhaps again.
    pub(crate) fn writes(&mut self, now: u64, request: RequestId, write: &Write) -> usize {
        if let Some(&known) = self.requests.get(&request) {
            return known;
        }
        let action = match write {
            Write::Put { value, .. } => Action::Put { value: text(value) },
            Write::Delete { .. } => Action::Delete,
            Write::CompareAndSet { expected, value, .. } => {
                Action::CompareAndSet { expected: expected.get(), value: text(value) }
            }
        };
        let at = self.begins(request.client.get(), now, write.key(), action, Outcome::Unknown);
        self.requests.insert(request, at);
        at
    }

    /// A client sends a read.
    pub(crate) fn reads(&mut self, now: u64, client: u64, key: &[u8]) -> usize {
        self.begins(client, now, key, Action::Get, Outcome::Failed)
    }

    fn begins(&mut self, client: u64, now: u64, key: &[u8], action: Action, outcome: Outcome) -> usize {
        let client = u32::try_from(client).expect("there are few clients");
        self.all.push(Operation {
            client,
            key: text(key),
            called: now * 1000,
            returned: None,
            action,
            outcome,
        });
        self.all.len() - 1
    }

    /// A write was answered.
    pub(crate) fn written(&mut self, at: usize, now: u64, outcome: entry::Outcome, version: u64) {
        self.ends(
            at,
            now,
            match outcome {
                entry::Outcome::Applied => Outcome::Applied { version },
                entry::Outcome::NotFound => Outcome::Absent,
                entry::Outcome::Mismatch { actual } => Outcome::Mismatch { actual: actual.get() },
            },
        );
    }

    /// A read was answered.
    pub(crate) fn read(&mut self, at: usize, now: u64, value: Option<&Versioned>) {
        self.ends(
            at,
            now,
            match value {
                Some(Versioned { version, value }) => {
                    Outcome::Found { value: text(value), version: version.get() }
                }
                None => Outcome::Absent,
            },
        );
    }

    fn ends(&mut self, at: usize, now: u64, outcome: Outcome) {
        let operation = &mut self.all[at];
        // Of a request that was sent more than once only the first answer counts; the others are the same, as is checked.
        if operation.returned.is_none() {
            (operation.returned, operation.outcome) = (Some(now * 1000), outcome);
        }
    }

    /// All of it is linearizable. Says of how many keys that is not known: their history is too long for a search. The invariant
    /// `history` knows of these, too, what was committed.
    pub(crate) fn check(&self) -> u64 {
        match quorumkv_history::check(&self.all) {
            Ok(checked) => checked.undecided,
            Err(violation) => panic!("what clients saw is not linearizable: {violation}"),
        }
    }
}
