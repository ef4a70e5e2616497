//! Clients that the replica will answer, and what its answers mean to them.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use quorumkv_protocol::client::{Failure, Got, Response, Written};
use quorumkv_protocol::{ErrorCode, NodeId};
use quorumkv_replica::{Reply, Token};

use super::Node;
use crate::net::{ReplyTo, Scan, doubt};

/// Requests that the replica is working on.
#[derive(Debug)]
pub(super) struct Pending {
    node: Arc<Node>,
    requests: HashMap<Token, Waiting, RandomState>,
    next: u64,
}

/// A request that waits for the replica.
#[derive(Debug)]
struct Waiting {
    reply: ReplyTo,
    kind: Kind,
}

/// What has to be known of a request to understand the replica's answer to it.
#[derive(Debug)]
enum Kind {
    /// A write, or a change of the members; `retried` if another leader may have got it before.
    Write { retried: bool },
    /// A read of one key.
    Read,
    /// A page to read when the replica says that the state is fresh enough.
    Scan(Scan),
}

impl Pending {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, requests: HashMap::default(), next: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Notes who wants to write; returns the name of the request for the replica.
    pub(super) fn add_write(&mut self, reply: ReplyTo, retried: bool) -> Token {
        self.add(reply, Kind::Write { retried })
    }

    /// Notes who wants to read; returns the name of the request for the replica.
    pub(super) fn add_read(&mut self, reply: ReplyTo) -> Token {
        self.add(reply, Kind::Read)
    }

    /// Notes who wants a page; returns the name of the request for the replica.
    pub(super) fn add_scan(&mut self, reply: ReplyTo, scan: Scan) -> Token {
        self.add(reply, Kind::Scan(scan))
    }

    fn add(&mut self, reply: ReplyTo, kind: Kind) -> Token {
        self.next += 1;
        let token = Token(self.next);
        self.requests.insert(token, Waiting { reply, kind });
        token
    }

    /// The replica answered.
    pub(super) fn answer(&mut self, token: Token, reply: Reply) {
        let Some(Waiting { reply: to, kind }) = self.requests.remove(&token) else { return };
        match (reply, kind) {
            (Reply::Ready, Kind::Scan(scan)) => scan.start(&self.node, to),
            (reply, kind) => {
                let mut response = self.response(reply);
                if let Kind::Write { retried: true } = kind {
                    doubt(&mut response);
                }
                if let Response::Failed(failure) = &response {
                    self.node.metrics.failed(failure.code);
                }
                to.send(response);
            }
        }
    }

    fn response(&self, reply: Reply) -> Response {
        match reply {
            Reply::Written { outcome, version } => {
                Response::Written(Written { outcome, version, leader: None })
            }
            Reply::Read { value, evidence } => Response::Got(Got { value, age_ms: None, evidence }),
            Reply::Ready => unreachable!("only scans wait for a snapshot"),
            Reply::NotLeader { leader } => Response::Failed(Failure {
                code: ErrorCode::NotLeader,
                message: "this node no longer leads; nothing was written".to_owned(),
                leader: leader.and_then(|leader| self.node.address_of(leader)),
                evidence: None,
            }),
            Reply::Refused(refusal) => Response::Refused(refusal),
            Reply::Permitted => Response::Permitted,
            Reply::Failed { code, differing, evidence } => {
                let message = self.message(code, differing);
                Response::Failed(Failure { code, message, leader: None, evidence })
            }
        }
    }

    /// What happened and what to do, in one line.
    fn message(&self, code: ErrorCode, differing: Option<(NodeId, NodeId)>) -> String {
        match code {
            ErrorCode::Overloaded => "this node has as much to do as it takes; nothing was done: try again".to_owned(),
            ErrorCode::NoQuorum => "no leader with a quorum was found in time; nothing was written".to_owned(),
            ErrorCode::OutcomeUnknown => {
                "no quorum has confirmed the write in time: it may yet be applied (read the key, or retry with the same \
                 request id)"
                    .to_owned()
            }
            ErrorCode::Superseded => "a new leader came before the write was committed; it was not applied".to_owned(),
            ErrorCode::RequestExpired => {
                "the request is too old: whether it was applied can no longer be told".to_owned()
            }
            ErrorCode::Conflict => {
                "the members did not come to agree in time: a write is stuck, or there is no leader".to_owned()
            }
            ErrorCode::NotReady => {
                "this node is too far behind to know the members of its cluster, or its state is damaged and about to be replaced: \
                 ask another"
                    .to_owned()
            }
            ErrorCode::NotMember => {
                "this node does not belong to the cluster: it was removed, or has not been added yet; ask another".to_owned()
            }
            ErrorCode::ReadTimedOut => "too few members answered in time: is a majority of the nodes up?".to_owned(),
            ErrorCode::DiskFull => {
                "the disk of a node is nearly full (kvctl status tells which): free some space there, or delete keys \
                 (deletes and reads go on); nothing was written"
                    .to_owned()
            }
            ErrorCode::Corruption => {
                let name = |node: NodeId| self.node.address_of(node).unwrap_or_else(|| node.to_string());
                match differing {
                    Some((one, other)) if one == other => {
                        format!("{} holds a value that is not what was written: its disk or its memory is damaged", name(one))
                    }
                    Some((one, other)) => format!(
                        "{} and {} hold different data under one version: one of them has a damaged disk",
                        name(one),
                        name(other)
                    ),
                    None => "a replica holds damaged data".to_owned(),
                }
            }
            other => other.to_string(),
        }
    }
}
