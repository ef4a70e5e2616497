//! One read, from its first attempt to its answer.

use std::time::Duration;

use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::{Request, Response};

use crate::client::Shared;
use crate::endpoint::Endpoint;
use crate::error::{Cause, NodeError, ReadError, Refusal};
use crate::route::Route;
use crate::session::{ExchangeError, Stay};

/// Asks one node after another until one answers, a refusal is final, or the deadline has passed. Returns who
/// answered, too.
pub(crate) async fn read(
    shared: &Shared,
    request: Request,
    timeout: Duration,
) -> Result<(Endpoint, Response), ReadError> {
    let mut route = Route::new(timeout);
    loop {
        let node = shared.pool.any(&route.tried);
        route.tried.push(node.endpoint.clone());
        let cause = match node.exchange(request.clone(), route.deadline, Stay::WhileHeard).await {
            Ok(Response::Failed(failure)) => {
                let refusal = Refusal::new(node.endpoint.clone(), failure);
                if !refusal.code.is_worth_retrying() {
                    return Err(refused(refusal));
                }
                Cause::Refused(refusal)
            }
            Ok(response) => return Ok((node.endpoint.clone(), response)),
            Err(ExchangeError::TooLarge(error)) => return Err(ReadError::TooLarge(error)),
            Err(ExchangeError::NotSent(error) | ExchangeError::Lost(error)) => {
                route.note(&error);
                Cause::Connection(error)
            }
            Err(ExchangeError::NotSentInTime | ExchangeError::TimedOut) => Cause::TimedOut,
        };
        shared.pool.pass();
        if !route.goes_on(&shared.pool).await {
            return Err(gave_up(cause));
        }
    }
}

fn refused(refusal: Refusal) -> ReadError {
    if refusal.code == ErrorCode::Conflict {
        ReadError::Conflict(refusal)
    } else if refusal.code == ErrorCode::ReadTimedOut {
        ReadError::TimedOut { cause: Cause::Refused(refusal) }
    } else {
        ReadError::Refused(refusal)
    }
}

/// What a read comes to whose last attempt failed with `cause`.
fn gave_up(cause: Cause) -> ReadError {
    match cause {
        Cause::Connection(error) => ReadError::Unreachable(error),
        Cause::Refused(refusal) => ReadError::Refused(refusal),
        Cause::TooLarge(error) => ReadError::TooLarge(error),
        Cause::UnexpectedAnswer(endpoint) => ReadError::UnexpectedAnswer(endpoint),
        Cause::TimedOut => ReadError::TimedOut { cause },
    }
}

/// Asks one particular node, once.
pub(crate) async fn ask(
    shared: &Shared,
    endpoint: &str,
    request: Request,
    timeout: Duration,
) -> Result<(Endpoint, Response), NodeError> {
    let endpoint: Endpoint = endpoint.parse()?;
    let deadline = Route::new(timeout).deadline;
    match shared.pool.node(&endpoint).exchange(request, deadline, Stay::ToTheEnd).await {
        Ok(Response::Failed(failure)) => Err(NodeError::Refused(Refusal::new(endpoint, failure))),
        Ok(response) => Ok((endpoint, response)),
        Err(ExchangeError::NotSent(error)) => Err(NodeError::Unreachable(error)),
        Err(ExchangeError::Lost(error)) => Err(NodeError::Lost(error)),
        Err(ExchangeError::NotSentInTime | ExchangeError::TimedOut) => Err(NodeError::TimedOut(endpoint)),
        Err(ExchangeError::TooLarge(_)) => unreachable!("a request without a key is never too large"),
    }
}
