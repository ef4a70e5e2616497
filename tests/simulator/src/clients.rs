//! Clients that write, delete, compare, read and scan, retry elsewhere what was not answered, and note all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorumkv_protocol::client::{Evidence, Write, WriteRequest};
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{Certainty, ClientId, ErrorCode, NodeId, RequestId, Version};
use quorumkv_replica::{Input, Reply, Token};

use crate::invariants::history::{History, Seen};
use crate::model::render;
use crate::model::store::DAMAGED;
use crate::node::Process;
use crate::operations::Operations;
use crate::world::{Event, World};

/// Sends of one request before a client gives it up.
const PATIENCE: u32 = 8;

/// All clients, and everything that they have asked and heard.
pub(crate) struct Clients {
    clients: Vec<Client>,
    tokens: BTreeMap<Token, Sent>,
    issued: u64,
    /// Values are never repeated.
    values: u64,
    pub(crate) history: History,
    pub(crate) operations: Operations,
}

struct Client {
    /// How many things it has thought of.
    asked: u64,
    sequence: u64,
    floor: u64,
    /// The highest version that it knows to be committed.
    since: Version,
    /// A version that it saw a key at, to compare with.
    seen: Version,
    /// What it waits for.
    current: Option<Token>,
    /// What that is, and how often it was sent.
    request: Option<(What, u32)>,
}

/// Something that was sent to a node.
struct Sent {
    client: u64,
    node: NodeId,
    what: What,
    tries: u32,
    deadline: u64,
    arrived: bool,
    /// Which operation of its client it belongs to, unless that is a scan.
    operation: Option<usize>,
}

#[derive(Clone)]
enum What {
    Write(WriteRequest),
    Read(Bytes),
    Scan,
}

impl Clients {
    pub(crate) fn new(count: u64) -> Self {
        let client = |_| Client {
            asked: 0,
            sequence: 0,
            floor: 1,
            since: Version::ZERO,
            seen: Version::ZERO,
            current: None,
            request: None,
        };
        Self {
            clients: (0..count.max(1)).map(client).collect(),
            tokens: BTreeMap::new(),
            issued: 0,
            values: 0,
            history: History::default(),
            operations: Operations::default(),
        }
    }

    /// Whatever was in a node that died is never answered.
    pub(crate) fn node_died(&mut self, node: NodeId) {
        self.tokens.retain(|_, sent| !(sent.arrived && sent.node == node));
    }

    /// Requests that a node has and has not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.tokens.values().filter(|sent| sent.arrived).count()
    }

    fn client(&mut self, client: u64) -> &mut Client {
        &mut self.clients[usize::try_from(client).expect("there are few clients")]
    }
}

impl World {
    /// The client thinks of something new to ask.
    pub(crate) fn client_step(&mut self, client: u64) {
        if self.clients_rest
            || self.reduction.requests.is_some_and(|most| self.clients.client(client).asked >= most)
        {
            return;
        }
        self.clients.client(client).asked += 1;
        let key = Bytes::from(format!("k{}", self.rng.u64(0..self.plan.keys)));
        let what = if !self.chance(self.plan.reads, 100) {
            self.compose_write(client, key)
        } else if self.chance(1, 8) {
            What::Scan
        } else {
            What::Read(key)
        };
        self.send_request(client, what, 1);
    }

    fn compose_write(&mut self, client: u64, key: Bytes) -> What {
        let kind = self.rng.u8(0..6);
        let keeps_floor = self.rng.bool();
        self.clients.values += 1;
        let value = Bytes::from(self.clients.values.to_string());
        let asker = self.clients.client(client);
        asker.sequence += 1;
        if !keeps_floor {
            asker.floor = asker.sequence;
        }
        let write = match kind {
            0 => Write::Delete { key },
            1 | 2 => Write::CompareAndSet { key, expected: asker.seen, value },
            _ => Write::Put { key, value },
        };
        let request = RequestId { client: ClientId::new(client), sequence: asker.sequence };
        let what = WriteRequest { request, floor: asker.floor, since: asker.since, write };
        self.clients.history.asks(request, what.write.clone());
        What::Write(what)
    }

    fn send_request(&mut self, client: u64, what: What, tries: u32) {
        let nodes = self.all();
        let leader = self.nodes.iter().find(|(_, node)| {
            node.process.as_ref().is_some_and(|process| {
                process.replica.status().role == quorumkv_protocol::client::NodeRole::Leader
            })
        });
        let leader = leader.map(|(&id, _)| id);
        // Mostly a client knows who leads, or thinks so; a read goes anywhere.
        let knows = matches!(what, What::Write(_)) && self.chance(3, 4);
        let Some(node) = leader.filter(|_| knows).or_else(|| self.pick(&nodes)) else { return };
        let timeout = self.rng.u64(50_000..1_500_000);
        let transit = if self.chance(1, 30) { self.rng.u64(0..1_000_000) } else { self.rng.u64(100..3_000) };
        let token = self.issue(client, node, what.clone(), tries, timeout);
        let asker = self.clients.client(client);
        (asker.current, asker.request) = (Some(token), Some((what, tries)));
        self.schedule(transit, Event::ClientArrives(token));
        self.schedule(timeout + 60_000, Event::ClientTimeout(token));
    }

    fn issue(&mut self, client: u64, node: NodeId, what: What, tries: u32, timeout: u64) -> Token {
        self.clients.issued += 1;
        let token = Token(self.clients.issued);
        if let What::Write(write) = &what {
            self.clients.history.sends(write.request);
        }
        self.clients.history.begins(token);
        let deadline = self.now + timeout;
        let operations = &mut self.clients.operations;
        let operation = match &what {
            What::Write(write) => Some(operations.writes(self.now, write.request, &write.write)),
            What::Read(key) => Some(operations.reads(self.now, client, key)),
            What::Scan => None,
        };
        let sent = Sent { client, node, what, tries, deadline, arrived: false, operation };
        self.clients.tokens.insert(token, sent);
        token
    }

    /// Asks a node to write, or else to read, and lets nobody retry it: it must be answered.
    pub(crate) fn demand(&mut self, node: NodeId, write: bool) -> Token {
        let key = Bytes::from_static(b"k0");
        let committed = self.invariants.committed_entries();
        self.clients.client(0).since = Version::new(committed);
        let what = if write { self.compose_write(0, key) } else { What::Read(key) };
        let token = self.issue(0, node, what, 1, 2_000_000);
        self.schedule(0, Event::ClientArrives(token));
        token
    }

    pub(crate) fn client_arrives(&mut self, token: Token) {
        let Some(sent) = self.clients.tokens.get_mut(&token) else { return };
        if self.nodes[&sent.node].process.is_none() {
            // The connection is refused. To the client it could also have been lost later.
            self.clients.tokens.remove(&token);
            return;
        }
        sent.arrived = true;
        let left = sent.deadline.saturating_sub(self.now).max(20_000);
        let (node, what) = (sent.node, sent.what.clone());
        let deadline = self.time_at(node) + Duration::from_micros(left);
        let input = match what {
            What::Write(request) => Input::Write { token, request, deadline },
            What::Read(key) => Input::Read { token, key, evidence: token.0.is_multiple_of(2), deadline },
            What::Scan => Input::Barrier { token, deadline },
        };
        self.input(node, input);
    }

    /// The client has waited long enough: it asks elsewhere or gives up.
    pub(crate) fn client_timeout(&mut self, token: Token) {
        let waiting =
            (0..self.plan.clients).find(|&client| self.clients.client(client).current == Some(token));
        if let Some(client) = waiting {
            let retry = self.clients.client(client).request.take();
            self.go_on(client, retry);
        }
    }

    fn go_on(&mut self, client: u64, retry: Option<(What, u32)>) {
        self.clients.client(client).current = None;
        let again = self.chance(self.plan.retries, 100) && !self.clients_rest;
        match retry {
            Some((what, tries)) if again && tries < PATIENCE => self.send_request(client, what, tries + 1),
            Some(_) | None => {
                let pause = self.rng.u64(0..self.plan.pause);
                self.schedule(pause, Event::ClientStep(client));
            }
        }
    }

    /// A node answered.
    pub(crate) fn client_answered(&mut self, token: Token, reply: Reply) {
        if self.change_answered(token, &reply) {
            return;
        }
        let sent = self.clients.tokens.remove(&token).expect("a request is answered once");
        // Of what is demanded in the end, nothing is lost.
        if !self.clients_rest && self.chance(1, 20) {
            return self.note(|_| format!("the answer to t{} is lost: {}", token.0, render::reply(&reply)));
        }
        self.note(|_| format!("client {} hears of t{}: {}", sent.client, token.0, render::reply(&reply)));
        let waits = self.clients.client(sent.client).current == Some(token);
        let answered = self.hear(token, &sent, reply);
        if waits {
            let retry = (!answered).then_some((sent.what, sent.tries));
            self.go_on(sent.client, retry);
        }
    }

    /// Notes the answer. True if it settles the request.
    fn hear(&mut self, token: Token, sent: &Sent, reply: Reply) -> bool {
        let history = &mut self.clients.history;
        let known = match (&sent.what, reply) {
            (What::Write(write), Reply::Written { outcome, version }) => {
                self.summary.writes += 1;
                self.summary.retries += u64::from(sent.tries > 1);
                let committed = self.invariants.committed_entries();
                assert!(
                    version.get() <= committed,
                    "{} is acknowledged before it is committed",
                    write.request
                );
                self.summary.mismatches +=
                    u64::from(matches!(outcome, quorumkv_protocol::entry::Outcome::Mismatch { .. }));
                history.ends(token, Seen::Written { request: write.request, outcome, version });
                if let Some(at) = sent.operation {
                    self.clients.operations.written(at, self.now, outcome, version.get());
                }
                version
            }
            (What::Write(write), Reply::NotLeader { .. }) => {
                history.not_applied(write.request);
                return false;
            }
            (What::Write(write), Reply::Failed { code, .. }) => {
                self.summary.superseded += u64::from(code == ErrorCode::Superseded);
                self.summary.expired += u64::from(code == ErrorCode::RequestExpired);
                if code.certainty() == Certainty::NotApplied {
                    history.not_applied(write.request);
                }
                return code == ErrorCode::RequestExpired;
            }
            // Nobody knows yet that the value was changed on the disk of whoever decided.
            (What::Read(_), Reply::Read { value: Some(value), .. }) if value.value.starts_with(DAMAGED) => {
                return false;
            }
            (What::Read(key), Reply::Read { value, evidence }) => {
                if let Some(evidence) = &evidence {
                    let process = self.nodes[&sent.node].process.as_ref().expect("it just answered");
                    check_evidence(evidence, process);
                    self.invariants.read(evidence, value.as_ref());
                }
                self.summary.reads += 1;
                let version = value.as_ref().map_or(Version::ZERO, |value| value.version);
                let asker = self.clients.client(sent.client);
                asker.seen = version;
                if let Some(at) = sent.operation {
                    self.clients.operations.read(at, self.now, value.as_ref());
                }
                self.clients.history.ends(token, Seen::Read { key: key.clone(), value });
                version
            }
            (What::Scan, Reply::Ready) => {
                self.summary.scans += 1;
                let process = self.nodes[&sent.node].process.as_ref().expect("it just answered");
                let at = process.store.borrow().applied;
                history.ends(token, Seen::Scanned { at: at.version });
                at.version
            }
            (What::Read(_) | What::Scan, Reply::Failed { .. }) => return false,
            (_, reply) => panic!("{token:?} was answered with something else than it asked: {reply:?}"),
        };
        let client = self.clients.client(sent.client);
        client.since = client.since.max(known);
        true
    }
}

/// A read is decided by what voters said, at least a quorum of them, all of a configuration that counted just now.
fn check_evidence(evidence: &Evidence, process: &Process) {
    let fits = |configuration: &Configuration| {
        evidence.witnesses.iter().all(|witness| configuration.is_voter(witness.node))
            && evidence.quorum as usize == configuration.quorum()
            && evidence.witnesses.len() >= configuration.quorum()
    };
    let mut counted = process.counted.iter().chain([process.replica.configuration()]);
    assert!(
        counted.any(fits),
        "a read counts others than the voters of {:?}: {evidence:?}",
        process.replica.configuration()
    );
}
