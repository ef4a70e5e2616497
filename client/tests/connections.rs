//! Connections: the handshake, limits, what breaks one, and how they end.

mod fake;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::{
    Action, CLUSTER, FakeNode, answer, builder, client, failed, got, silence, status, welcome, written,
};
use futures::future::join_all;
use quorumkv_client::{
    Cause, Certainty, Client, ClusterId, ConnectionFailure, ErrorCode, Limited, NodeError, ReadError,
    WriteError,
};
use quorumkv_protocol::client::{Request, RequestEnvelope, Response};
use quorumkv_protocol::hello::{HelloReply, Limits, Role, VERSIONS, Welcome};

const SHORT: Duration = Duration::from_secs(1);

/// The failure of the connection by which a read ended.
async fn failure(client: &Client) -> ConnectionFailure {
    match client.get("key").await.unwrap_err() {
        ReadError::Unreachable(error) => error.failure,
        error => panic!("not for the connection: {error:?}"),
    }
}

#[tokio::test]
async fn a_client_greets_with_its_name_and_stays_with_the_cluster_that_it_met() {
    let mut requests = 0;
    let node = FakeNode::start(move |request| {
        requests += 1;
        if requests == 1 { Action::Close } else { answer(request, got(1, "value")) }
    })
    .await;
    builder(&[&node]).name("tester").connect().unwrap().get("key").await.unwrap();
    let hellos = node.hellos();
    assert_eq!(hellos[0].role, Role::Client { name: "tester".to_owned() });
    assert_eq!((hellos[0].versions, hellos[0].cluster), (VERSIONS, None));
    assert_eq!(hellos[1].cluster, Some(CLUSTER));
}

#[tokio::test]
async fn a_refused_handshake_is_final_and_says_why() {
    let refused =
        HelloReply::Refused { code: ErrorCode::WrongCluster, message: "another cluster".to_owned() };
    let node = FakeNode::start_with(Some(refused), |_| silence()).await;
    // The deadline is a minute off: a client that retried would run into it.
    let client = client(&[&node]);
    let failure = failure(&client).await;
    assert_eq!(failure.code(), Some(ErrorCode::WrongCluster));
    assert!(failure.to_string().contains("another cluster"));
    let error = client.put("key", "value").await.unwrap_err();
    assert!(matches!(error, WriteError::NotApplied { cause: Cause::Connection(_) }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::WrongCluster));
}

#[tokio::test]
async fn a_node_that_is_not_ready_for_the_handshake_is_asked_again() {
    let refused = HelloReply::Refused { code: ErrorCode::NotReady, message: "forming".to_owned() };
    let node = FakeNode::start_with(Some(refused), |_| silence()).await;
    let client = client(&[&node]).with_timeout(SHORT);
    assert_eq!(failure(&client).await.code(), Some(ErrorCode::NotReady));
    assert!(node.hellos().len() > 1);
}

#[tokio::test]
async fn a_version_that_was_not_offered_is_refused() {
    let strange = Welcome { version: VERSIONS.highest + 1, ..welcome() };
    let node = FakeNode::start_with(Some(HelloReply::Welcome(strange)), |_| silence()).await;
    let failure = failure(&client(&[&node])).await;
    assert!(matches!(failure, ConnectionFailure::Version(_)), "{failure:?}");
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused() {
    let node = FakeNode::start(|request| answer(request, got(1, "value"))).await;
    let client = builder(&[&node]).cluster(ClusterId::new(8)).connect().unwrap();
    let failure = failure(&client).await;
    let ConnectionFailure::Cluster { expected, actual } = failure else { panic!("{failure:?}") };
    assert_eq!((expected, actual), (ClusterId::new(8), CLUSTER));
}

#[tokio::test]
async fn what_is_over_a_limit_is_not_sent() {
    let limits = Limits { key: 10, value: 100, frame: 105, in_flight: 8 };
    let node = FakeNode::start_with(Some(HelloReply::Welcome(Welcome { limits, ..welcome() })), |request| {
        answer(request, written(1, None))
    })
    .await;
    let client = client(&[&node]);
    for (key, value, what) in [(11, 1, Limited::Key), (1, 101, Limited::Value), (10, 90, Limited::Frame)] {
        let error = client.put(vec![b'k'; key], vec![b'v'; value]).await.unwrap_err();
        let WriteError::NotApplied { cause: Cause::TooLarge(error) } = error else { panic!("{error:?}") };
        assert_eq!(error.what, what);
    }
    let error = client.get("a long key indeed").await.unwrap_err();
    assert!(matches!(error, ReadError::TooLarge(_)), "{error:?}");
    assert!(node.seen().is_empty());
    client.put(vec![b'k'; 10], "value").await.unwrap();
}

#[tokio::test]
async fn a_timeout_without_end_is_taken() {
    let node = FakeNode::start(|request| answer(request, got(1, "value"))).await;
    client(&[&node]).with_timeout(Duration::MAX).get("key").await.unwrap();
}

#[tokio::test]
async fn large_values_go_both_ways() {
    let value = vec![7; 8 << 20];
    let node = FakeNode::start(|request| match &request.body {
        Request::Write(_) => answer(request, written(1, None)),
        _ => {
            let Response::Got(mut got) = got(1, "") else { unreachable!() };
            got.value.as_mut().unwrap().value = vec![7; 8 << 20].into();
            answer(request, Response::Got(got))
        }
    })
    .await;
    let client = client(&[&node]);
    let (written, read) = tokio::join!(client.put("key", value.clone()), client.get("key"));
    written.unwrap();
    assert_eq!(read.unwrap().value.unwrap().value, value);
}

#[tokio::test]
async fn answers_come_in_any_order() {
    let mut waiting = Vec::new();
    let node = FakeNode::start(move |request| {
        waiting.push(request.clone());
        if waiting.len() < 100 {
            return silence();
        }
        let echo = |request: RequestEnvelope| match request.body {
            Request::Get { key, .. } => {
                let Response::Got(mut got) = got(1, "") else { unreachable!() };
                got.value.as_mut().unwrap().value = key;
                (request.correlation, Response::Got(got))
            }
            body => panic!("not a get: {body:?}"),
        };
        Action::Answer(waiting.drain(..).rev().map(echo).collect())
    })
    .await;
    let client = client(&[&node]);
    let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    let results = join_all(keys.iter().map(|key| client.get(key.clone()))).await;
    for (key, result) in keys.iter().zip(results) {
        assert_eq!(result.unwrap().value.unwrap().value, key.as_bytes());
    }
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_the_node_takes() {
    let limits = Limits { in_flight: 4, ..Limits::DEFAULT };
    let highest = Arc::new(AtomicUsize::new(0));
    let mut waiting = Vec::new();
    let node = FakeNode::start_with(Some(HelloReply::Welcome(Welcome { limits, ..welcome() })), {
        let highest = Arc::clone(&highest);
        move |request| {
            // One place is left for probes, which are answered at once.
            if request.body == Request::Status {
                return answer(request, status(1));
            }
            waiting.push((request.correlation, got(1, "value")));
            highest.fetch_max(waiting.len(), Ordering::SeqCst);
            Action::Answer(if waiting.len() < 3 { Vec::new() } else { std::mem::take(&mut waiting) })
        }
    })
    .await;
    let client = client(&[&node]);
    let results = join_all((0..99).map(|_| client.get("key"))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(highest.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_answer_to_nothing_or_a_second_answer_breaks_the_connection() {
    let node = FakeNode::start(|_| Action::Answer(vec![(4711, got(1, "value"))])).await;
    let failure = failure(&client(&[&node]).with_timeout(SHORT)).await;
    assert!(matches!(failure, ConnectionFailure::Correlation(4711)), "{failure:?}");

    let twice = FakeNode::start(|request| {
        Action::Answer(vec![(request.correlation, got(1, "value")), (request.correlation, got(1, "value"))])
    })
    .await;
    let client = client(&[&twice]);
    client.get("key").await.unwrap();
    twice.until_open(0).await;
}

#[tokio::test]
async fn bytes_that_are_no_frame_break_the_connection() {
    for bytes in [vec![0, 0, 0, 2, 1, 99], vec![0xff; 8]] {
        let node = FakeNode::start(move |_| Action::Raw(bytes.clone())).await;
        let client = client(&[&node]).with_timeout(SHORT);
        let failure = failure(&client).await;
        assert!(matches!(failure, ConnectionFailure::Frame(_)), "{failure:?}");
        let error = client.put("key", "value").await.unwrap_err();
        assert_eq!(error.certainty(), Certainty::Unknown, "it was sent: {error}");
    }
}

#[tokio::test]
async fn a_node_that_never_greets_is_given_up() {
    let node = FakeNode::start_with(None, |_| silence()).await;
    let client = builder(&[&node]).connect_timeout(Duration::from_millis(50)).connect().unwrap();
    let failure = failure(&client.with_timeout(SHORT)).await;
    assert!(matches!(failure, ConnectionFailure::HelloTimedOut(_)), "{failure:?}");
}

#[tokio::test]
async fn one_node_can_be_asked_how_it_is_and_told_to_stop() {
    let node = FakeNode::start(|request| answer(request, Response::Stopping)).await;
    let other = FakeNode::start(|request| answer(request, status(9))).await;
    let refusing = FakeNode::start(|request| answer(request, failed(ErrorCode::NotPermitted, None))).await;
    let client = client(&[&node]);
    client.stop(&node.address).await.unwrap();
    let status = client.status(&other.address).await.unwrap();
    assert_eq!(status.committed.get(), 9);
    let error = client.stop(&refusing.address).await.unwrap_err();
    assert!(matches!(&error, NodeError::Refused(refusal) if refusal.code == ErrorCode::NotPermitted));
    assert!(matches!(client.status("nowhere").await, Err(NodeError::Endpoint(_))));
    let error = client.status(&fake::nowhere().await).await.unwrap_err();
    assert!(matches!(error, NodeError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn readiness_is_the_first_answer_of_any_node() {
    let node = FakeNode::start(|request| answer(request, status(9))).await;
    let client = Client::builder([fake::nowhere().await, node.address.clone()]).connect().unwrap();
    client.ready().await.unwrap();
}

#[tokio::test]
async fn closing_ends_what_is_under_way_and_refuses_what_comes_later() {
    let node = FakeNode::start(|_| silence()).await;
    let client = client(&[&node]);
    let under_way = tokio::spawn({
        let client = client.clone();
        async move { client.put("key", "value").await }
    });
    node.until_seen(1).await;
    client.close().await;
    node.until_open(0).await;
    let error = under_way.await.unwrap().unwrap_err();
    assert!(matches!(error, WriteError::Unknown { .. }), "{error:?}");
    let error = client.put("key", "value").await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::NotApplied);
    assert!(matches!(failure(&client).await, ConnectionFailure::Closed));
}

#[tokio::test]
async fn the_last_clone_takes_the_connections_with_it() {
    let node = FakeNode::start(|request| answer(request, got(1, "value"))).await;
    let client = client(&[&node]);
    let clone = client.clone();
    client.get("key").await.unwrap();
    drop(client);
    clone.get("key").await.unwrap();
    node.until_open(1).await;
    drop(clone);
    node.until_open(0).await;
}

#[tokio::test]
async fn several_connections_share_the_requests() {
    let correlations = Arc::new(Mutex::new(Vec::new()));
    let node = FakeNode::start({
        let correlations = Arc::clone(&correlations);
        move |request| {
            correlations.lock().unwrap().push(request.correlation);
            answer(request, got(1, "value"))
        }
    })
    .await;
    let client = builder(&[&node]).connections(3).connect().unwrap();
    for _ in 0..9 {
        client.get("key").await.unwrap();
    }
    node.until_open(3).await;
    let mut correlations = correlations.lock().unwrap().clone();
    correlations.sort_unstable();
    assert_eq!(correlations, [1, 1, 1, 2, 2, 2, 3, 3, 3], "each connection counts its own requests");
}
