//! Writes: who is asked, what a retry carries, and which of the three outcomes comes of it.

mod fake;

use std::time::Duration;

use fake::{Action, FakeNode, answer, client, failed, silence, status, written};
use futures::future::join_all;
use quorumkv_client::{Cause, Certainty, Client, ConnectionFailure, ErrorCode, Version, WriteError};
use quorumkv_protocol::client::Request;

/// A deadline for tests in which it is to pass.
const SHORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_write_goes_to_the_leader_that_an_answer_named() {
    let leader = FakeNode::start(|request| answer(request, written(2, None))).await;
    let address = leader.address.clone();
    let follower = FakeNode::start(move |request| answer(request, written(1, Some(&address)))).await;
    let client = client(&[&follower, &leader]);
    for _ in 0..10 {
        client.put("key", "value").await.unwrap();
    }
    assert!(follower.writes().len() <= 1, "only a first write may go to a node that does not lead");
    assert!(leader.writes().len() >= 9);
}

#[tokio::test]
async fn a_write_follows_the_leader_when_it_moves() {
    let new = FakeNode::start(|request| answer(request, written(3, None))).await;
    let address = new.address.clone();
    let mut writes = 0;
    let old = FakeNode::start(move |request| {
        writes += 1;
        let moved = failed(ErrorCode::NotLeader, Some(&address));
        answer(request, if writes == 1 { written(2, None) } else { moved })
    })
    .await;
    // The new leader is not among the endpoints, so it is used once it is connected.
    let client = client(&[&old]);
    client.put("key", "1").await.unwrap();
    client.put("key", "2").await.unwrap();
    client.put("key", "3").await.unwrap();
    let (before, after) = (old.writes(), new.writes());
    assert_eq!(before[1].request, after[0].request, "the retry carries the same id");
    assert_eq!(after.len(), 2);
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_left_to_the_given_endpoints() {
    let hidden = fake::nowhere().await;
    let follower = FakeNode::start(move |request| answer(request, written(1, Some(&hidden)))).await;
    let client = client(&[&follower]);
    for _ in 0..5 {
        client.put("key", "value").await.unwrap();
    }
    assert_eq!(follower.writes().len(), 5);
}

#[tokio::test]
async fn a_write_whose_connection_died_is_sent_again_with_the_same_id() {
    let mut requests = 0;
    let node = FakeNode::start(move |request| {
        requests += 1;
        if requests == 1 { Action::Close } else { answer(request, written(9, None)) }
    })
    .await;
    let result = client(&[&node]).put("key", "value").await.unwrap();
    assert_eq!(result.version, Version::new(9));
    let writes = node.writes();
    assert_eq!(writes.len(), 2);
    assert_eq!(writes[0], writes[1]);
}

#[tokio::test]
async fn refusals_after_a_lost_answer_leave_the_outcome_unknown() {
    for code in [ErrorCode::NoQuorum, ErrorCode::Superseded, ErrorCode::NotLeader, ErrorCode::DiskFull] {
        let mut requests = 0;
        let node = FakeNode::start(move |request| {
            requests += 1;
            if requests == 1 { Action::Close } else { answer(request, failed(code, None)) }
        })
        .await;
        let error = client(&[&node]).with_timeout(SHORT).put("key", "value").await.unwrap_err();
        assert_eq!(error.certainty(), Certainty::Unknown, "{code}: {error}");
        assert!(node.writes().len() > 1);
    }
}

#[tokio::test]
async fn a_refusal_of_the_only_attempt_is_not_applied() {
    for code in [ErrorCode::NoQuorum, ErrorCode::DiskFull, ErrorCode::NotPermitted] {
        let node = FakeNode::start(move |request| answer(request, failed(code, None))).await;
        let error = client(&[&node]).put("key", "value").await.unwrap_err();
        assert!(matches!(error, WriteError::NotApplied { .. }), "{error:?}");
        assert_eq!(error.code(), Some(code));
        assert_eq!(node.writes().len(), 1);
    }
}

#[tokio::test]
async fn a_write_without_an_answer_is_unknown_at_the_deadline() {
    let node = FakeNode::start(|_| silence()).await;
    let error = client(&[&node]).with_timeout(SHORT).put("key", "value").await.unwrap_err();
    let WriteError::Unknown { cause: Cause::Connection(cause) } = &error else { panic!("{error:?}") };
    assert!(matches!(cause.failure, ConnectionFailure::Silent(_)), "{cause:?}");
    let timeout = node.seen()[0].timeout_ms;
    assert!(timeout > 0 && timeout <= 1000, "the node is told what is left: {timeout} ms");
}

#[tokio::test]
async fn an_outcome_that_the_leader_does_not_know_is_asked_for_again() {
    let mut requests = 0;
    let node = FakeNode::start(move |request| {
        requests += 1;
        let unknown = failed(ErrorCode::OutcomeUnknown, None);
        answer(request, if requests < 3 { unknown } else { written(5, None) })
    })
    .await;
    client(&[&node]).put("key", "value").await.unwrap();
    let writes = node.writes();
    assert_eq!(writes.len(), 3);
    assert!(writes.iter().all(|write| write.request == writes[0].request));
}

#[tokio::test]
async fn with_nobody_there_a_write_is_unreachable_and_not_applied() {
    let client =
        Client::builder([fake::nowhere().await, fake::nowhere().await]).timeout(SHORT).connect().unwrap();
    let error = client.put("key", "value").await.unwrap_err();
    assert!(matches!(error, WriteError::Unreachable(_)), "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotApplied);
}

#[tokio::test]
async fn a_node_that_takes_connections_and_never_greets_leaves_a_write_not_applied() {
    let node = FakeNode::start_with(None, |_| silence()).await;
    let error = client(&[&node]).with_timeout(SHORT).put("key", "value").await.unwrap_err();
    assert!(matches!(error, WriteError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn since_is_what_was_committed_before_the_first_attempt_and_stays() {
    let mut requests = 0;
    let node = FakeNode::start(move |request| {
        requests += 1;
        match requests {
            1 => answer(request, written(250, None)),
            2 => Action::Close,
            _ => answer(request, written(260, None)),
        }
    })
    .await;
    let client = client(&[&node]);
    client.put("key", "1").await.unwrap();
    client.put("key", "2").await.unwrap();
    let since: Vec<_> = node.writes().iter().map(|write| write.since.get()).collect();
    assert_eq!(since, [100, 250, 250], "first what Welcome said, then what the first write showed");
}

#[tokio::test]
async fn a_first_attempt_that_is_too_old_starts_over_under_a_new_id() {
    let mut writes = 0;
    let node = FakeNode::start(move |request| {
        if request.body == Request::Status {
            return answer(request, status(5_000));
        }
        writes += 1;
        let expired = failed(ErrorCode::RequestExpired, None);
        answer(request, if writes == 1 { expired } else { written(5_001, None) })
    })
    .await;
    client(&[&node]).put("key", "value").await.unwrap();
    let writes = node.writes();
    assert_eq!(writes.len(), 2);
    assert_ne!(writes[0].request, writes[1].request);
    assert_eq!((writes[0].since.get(), writes[1].since.get()), (100, 5_000));
    assert_eq!(writes[1].floor, writes[1].request.sequence, "the first id is finished");
}

#[tokio::test]
async fn a_retry_that_is_too_old_is_unknown_and_never_starts_over() {
    let mut writes = 0;
    let node = FakeNode::start(move |request| {
        writes += 1;
        if writes == 1 { Action::Close } else { answer(request, failed(ErrorCode::RequestExpired, None)) }
    })
    .await;
    let error = client(&[&node]).put("key", "value").await.unwrap_err();
    assert!(matches!(error, WriteError::Unknown { .. }), "{error:?}");
    assert_eq!(node.writes().len(), 2);
}

#[tokio::test]
async fn an_answer_of_another_kind_leaves_a_write_unknown() {
    let node = FakeNode::start(|request| answer(request, fake::got(1, "value"))).await;
    let error = client(&[&node]).put("key", "value").await.unwrap_err();
    assert!(matches!(error, WriteError::Unknown { cause: Cause::UnexpectedAnswer(_) }), "{error:?}");
}

#[tokio::test]
async fn the_floor_is_never_above_a_request_that_may_be_retried() {
    let mut requests = 0;
    let node = FakeNode::start(move |request| {
        requests += 1;
        // Every fifth request is first refused, so that finishing does not follow the order of starting.
        let refused = failed(ErrorCode::Overloaded, None);
        answer(request, if requests % 5 == 0 { refused } else { written(requests, None) })
    })
    .await;
    let client = client(&[&node]);
    let results = join_all((0..200).map(|number| client.put(format!("key {number}"), "value"))).await;
    assert!(results.iter().all(Result::is_ok));

    let writes = node.writes();
    for (sent, write) in writes.iter().enumerate() {
        assert!(write.floor <= write.request.sequence);
        let later = writes[sent..].iter().map(|later| later.request.sequence).min().unwrap();
        assert!(write.floor <= later, "request {later} came after a floor of {}", write.floor);
    }
    client.put("key", "last").await.unwrap();
    let last = node.writes().pop().unwrap();
    assert_eq!(last.floor, last.request.sequence, "everything before is finished");
}

#[tokio::test]
async fn a_dropped_write_is_finished_and_the_floor_moves_past_it() {
    let node = FakeNode::start(|request| match &request.body {
        Request::Write(write) if write.write.key() == "stuck" => silence(),
        _ => answer(request, written(1, None)),
    })
    .await;
    let client = client(&[&node]);
    let stuck = tokio::spawn({
        let client = client.clone();
        async move { client.put("stuck", "value").await }
    });
    node.until_seen(1).await;
    client.put("key", "1").await.unwrap();
    assert_eq!(node.writes()[1].floor, 1, "the first write may still be retried");

    stuck.abort();
    assert!(stuck.await.unwrap_err().is_cancelled());
    client.put("key", "2").await.unwrap();
    assert_eq!(node.writes()[2].floor, 3, "the first write will never be retried");
}
