//! One request that only the leader can carry out, from its first attempt to its result: a write, or a change of the members.

use std::time::Duration;

use quorumkv_protocol::client::{Failure, Request, Response, Write, WriteRequest, Written};
use quorumkv_protocol::membership::{self, Change, ChangeRequest};
use quorumkv_protocol::{ErrorCode, Version};

use crate::attempts::Attempts;
use crate::client::Shared;
use crate::error::{Cause, Refusal, WriteError};
use crate::pool::Node;
use crate::route::Route;
use crate::sequences::Ticket;
use crate::session::{ExchangeError, Stay};

/// What is asked of the leader.
pub(crate) enum Wish {
    Write(Write),
    Change { change: Change, force: bool, dry_run: bool },
}

/// What came of it.
pub(crate) enum Fulfilled {
    Written(Written),
    /// The members are not changed.
    Refused(membership::Refusal),
    /// The members would be changed.
    Permitted,
}

/// A wish on its way.
pub(crate) struct Operation<'a> {
    shared: &'a Shared,
    wish: Wish,
    route: Route,
    attempts: Attempts,
    ticket: Ticket,
    /// What was known to be committed before the first attempt was sent.
    since: Option<Version>,
    /// Whether it has been given a new request id.
    renewed: bool,
}

/// What follows an attempt.
enum Next {
    Done(Fulfilled),
    TryAgain,
    GiveUp,
}

impl<'a> Operation<'a> {
    pub(crate) fn new(shared: &'a Shared, wish: Wish, timeout: Duration) -> Self {
        Self {
            shared,
            wish,
            route: Route::new(timeout),
            attempts: Attempts::default(),
            ticket: shared.sequences.begin(),
            since: None,
            renewed: false,
        }
    }

    /// Tries until there is a result, no further attempt can help, or the deadline has passed.
    pub(crate) async fn run(mut self) -> Result<Fulfilled, WriteError> {
        loop {
            let node = self.shared.pool.leader_or_any(&self.route.tried);
            self.route.tried.push(node.endpoint.clone());
            let next = match self.attempt(&node).await {
                Ok(response) => self.judge(&node, response).await,
                Err(error) => self.note(&node, error),
            };
            match next {
                Next::Done(result) => return Ok(result),
                Next::TryAgain => {
                    self.shared.pool.pass();
                    if !self.route.goes_on(&self.shared.pool).await {
                        return Err(self.attempts.into_error());
                    }
                }
                Next::GiveUp => return Err(self.attempts.into_error()),
            }
        }
    }

    async fn attempt(&mut self, node: &Node) -> Result<Response, ExchangeError> {
        let session = node.session(self.route.deadline).await?;
        // The handshake tells what is committed, so this is as fresh as it can be; later attempts keep it.
        let since = *self.since.get_or_insert_with(|| self.shared.context.committed());
        let (request, floor) = (self.ticket.id(), self.shared.sequences.floor());
        let body = match &self.wish {
            Wish::Write(write) => {
                Request::Write(WriteRequest { request, floor, since, write: write.clone() })
            }
            Wish::Change { change, force, dry_run } => Request::Change {
                request: ChangeRequest { request, floor, since, change: change.clone(), force: *force },
                dry_run: *dry_run,
            },
        };
        session.exchange(body, self.route.deadline, Stay::WhileHeard).await
    }

    /// Draws the conclusions of an attempt that was answered.
    async fn judge(&mut self, node: &Node, response: Response) -> Next {
        match response {
            Response::Written(written) => {
                let leader = written.leader.as_deref().unwrap_or(node.endpoint.as_str());
                self.shared.pool.learn_leader(leader);
                Next::Done(Fulfilled::Written(written))
            }
            Response::Failed(failure) => self.refused(node, failure).await,
            // What an attempt in doubt came to, this does not say.
            Response::Refused(refusal) if self.is_change() && !self.attempts.is_in_doubt() => {
                Next::Done(Fulfilled::Refused(refusal))
            }
            Response::Permitted if self.is_change() => Next::Done(Fulfilled::Permitted),
            Response::Got(_)
            | Response::Scanned(_)
            | Response::Status(_)
            | Response::Stopping
            | Response::Members(_)
            | Response::Refused(_)
            | Response::Permitted
            | Response::Draining => {
                self.attempts.in_doubt(Cause::UnexpectedAnswer(node.endpoint.clone()));
                Next::GiveUp
            }
        }
    }

    const fn is_change(&self) -> bool {
        matches!(self.wish, Wish::Change { .. })
    }

    async fn refused(&mut self, node: &Node, failure: Failure) -> Next {
        self.shared.pool.forget_leader(&node.endpoint);
        if let Some(leader) = &failure.leader {
            self.shared.pool.learn_leader(leader);
        }
        let starts_over =
            failure.code == ErrorCode::RequestExpired && self.attempts.is_untouched() && !self.renewed;
        if starts_over && self.renew(node).await {
            return Next::TryAgain;
        }
        let refusal = Refusal::new(node.endpoint.clone(), failure);
        if self.attempts.refused(refusal) { Next::TryAgain } else { Next::GiveUp }
    }

    /// Starts over under a new request id, after the only attempt was found to be too old: the client had not heard
    /// what is committed for so long that its first try looked like a late retry.
    async fn renew(&mut self, node: &Node) -> bool {
        let status = node.exchange(Request::Status, self.route.deadline, Stay::ToTheEnd).await;
        if !matches!(status, Ok(Response::Status(_))) {
            return false;
        }
        self.ticket = self.shared.sequences.begin();
        self.since = None;
        self.renewed = true;
        true
    }

    /// Draws the conclusions of an attempt that brought no answer.
    fn note(&mut self, node: &Node, error: ExchangeError) -> Next {
        match error {
            ExchangeError::NotSent(error) => {
                self.shared.pool.forget_leader(&node.endpoint);
                self.route.note(&error);
                self.attempts.not_sent(error);
                Next::TryAgain
            }
            ExchangeError::TooLarge(error) => {
                self.attempts.too_large(error);
                Next::GiveUp
            }
            ExchangeError::NotSentInTime => Next::GiveUp,
            ExchangeError::Lost(error) => {
                self.shared.pool.forget_leader(&node.endpoint);
                self.route.note(&error);
                self.attempts.in_doubt(Cause::Connection(error));
                Next::TryAgain
            }
            ExchangeError::TimedOut => {
                self.shared.pool.forget_leader(&node.endpoint);
                self.attempts.in_doubt(Cause::TimedOut);
                Next::GiveUp
            }
        }
    }
}
