//! Reads: spread over the nodes, moved on where one fails, and honest about why there is no answer.

mod fake;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::{Action, FakeNode, answer, client, failed, got, silence, status};
use futures::future::join_all;
use quorumkv_client::{
    Client, Consistency, ErrorCode, Evidence, GetOptions, Item, ReadError, ScanOptions, Scanned, Version,
    Versioned,
};
use quorumkv_protocol::client::{Failure, Request, Response};

const SHORT: Duration = Duration::from_secs(1);

async fn healthy() -> FakeNode {
    FakeNode::start(|request| answer(request, got(1, "value"))).await
}

#[tokio::test]
async fn reads_are_spread_over_all_nodes() {
    let nodes = [healthy().await, healthy().await, healthy().await];
    let client = client(&[&nodes[0], &nodes[1], &nodes[2]]);
    for _ in 0..96 {
        client.get("key").await.unwrap();
    }
    assert_eq!(nodes.each_ref().map(|node| node.seen().len()), [32, 32, 32]);
}

#[tokio::test]
async fn a_read_carries_its_options() {
    let node = healthy().await;
    let options = GetOptions { consistency: Consistency::Local, evidence: true };
    client(&[&node]).get_with("key", options).await.unwrap();
    let expected = Request::Get { key: "key".into(), consistency: Consistency::Local, evidence: true };
    assert_eq!(node.seen()[0].body, expected);
}

#[tokio::test]
async fn a_read_moves_on_when_a_connection_is_lost_or_a_node_is_not_ready() {
    let closing = FakeNode::start(|_| Action::Close).await;
    let unready = FakeNode::start(|request| answer(request, failed(ErrorCode::NotReady, None))).await;
    let fine = healthy().await;
    let client = client(&[&closing, &unready, &fine]);
    for _ in 0..48 {
        client.get("key").await.unwrap();
    }
    assert_eq!(fine.seen().len(), 48);
    assert!(
        unready.seen().len() <= 6,
        "whoever it does not answer goes elsewhere, and so do those that follow"
    );
    assert!(!closing.seen().is_empty() && !unready.seen().is_empty());
}

#[tokio::test]
async fn a_node_that_is_down_does_not_stop_reads() {
    let fine = healthy().await;
    let client = Client::builder([fake::nowhere().await, fine.address.clone()]).connect().unwrap();
    for _ in 0..9 {
        client.get("key").await.unwrap();
    }
    assert_eq!(fine.seen().len(), 9);
}

#[tokio::test]
async fn a_node_that_came_back_is_used_again() {
    let mut requests = 0;
    let flaky = FakeNode::start(move |request| {
        requests += 1;
        if requests == 1 { Action::Close } else { answer(request, got(1, "value")) }
    })
    .await;
    let fine = healthy().await;
    let client = client(&[&flaky, &fine]);
    while flaky.seen().len() < 3 {
        client.get("key").await.unwrap();
    }
}

#[tokio::test]
async fn a_conflict_shows_its_evidence() {
    let evidence =
        Evidence { witnesses: Vec::new(), quorum: 2, rounds: 5, conflicts: 5, elapsed_us: 9, rule: None };
    let seen = evidence.clone();
    let node = FakeNode::start(move |request| {
        let (code, message) = (ErrorCode::Conflict, "no agreement".to_owned());
        let failure = Failure { code, message, leader: None, evidence: Some(seen.clone()) };
        answer(request, Response::Failed(failure))
    })
    .await;
    let error = client(&[&node]).get("key").await.unwrap_err();
    assert!(matches!(error, ReadError::Conflict(_)), "{error:?}");
    assert_eq!(error.evidence(), Some(&evidence));
    assert_eq!(node.seen().len(), 1, "the node has tried for as long as there was time");
}

#[tokio::test]
async fn reads_end_with_what_the_node_said() {
    let of = async |code| {
        let node = FakeNode::start(move |request| answer(request, failed(code, None))).await;
        client(&[&node]).with_timeout(SHORT).get("key").await.unwrap_err()
    };
    assert!(matches!(of(ErrorCode::ReadTimedOut).await, ReadError::TimedOut { .. }));
    assert!(matches!(of(ErrorCode::Corruption).await, ReadError::Refused(_)));
    let unready = of(ErrorCode::NotReady).await;
    assert!(matches!(unready, ReadError::Refused(_)), "{unready:?}");
    assert_eq!(unready.code(), Some(ErrorCode::NotReady));
}

#[tokio::test]
async fn reads_without_a_node_or_an_answer_end_at_the_deadline() {
    let client = Client::builder([fake::nowhere().await]).timeout(SHORT).connect().unwrap();
    let error = client.get("key").await.unwrap_err();
    assert!(matches!(error, ReadError::Unreachable(_)), "{error:?}");

    let node = FakeNode::start(|_| silence()).await;
    let error = fake::client(&[&node]).with_timeout(SHORT).get("key").await.unwrap_err();
    assert!(matches!(error, ReadError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn a_node_that_falls_silent_is_given_up_and_its_reads_move_on() {
    // It takes everything and answers nothing, as a stopped process does.
    let stopped = FakeNode::start(|_| silence()).await;
    let fine = healthy().await;
    let client = fake::builder(&[&stopped, &fine]).silence_timeout(SHORT).connect().unwrap();
    let results = join_all((0..32).map(|_| client.get("key"))).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(!stopped.seen().is_empty());
}

#[tokio::test]
async fn a_node_in_doubt_keeps_its_connection_and_is_asked_again_once_it_is_heard() {
    // What it owes, and whether it answers again.
    let owed = Arc::new(Mutex::new((Vec::new(), false)));
    let paused = FakeNode::start({
        let owed = Arc::clone(&owed);
        move |request| {
            let (waiting, answers) = &mut *owed.lock().unwrap();
            let body = if request.body == Request::Status { status(1) } else { got(1, "late") };
            waiting.push((request.correlation, body));
            if *answers { Action::Answer(std::mem::take(waiting)) } else { silence() }
        }
    })
    .await;
    let fine = healthy().await;
    // Its connection would be given up much later.
    let client = fake::builder(&[&paused, &fine]).silence_timeout(12 * SHORT).connect().unwrap();
    let results = join_all((0..32).map(|_| client.get("key"))).await;
    assert!(results.iter().all(Result::is_ok));
    let asked = paused.seen().len();
    assert!(asked > 0);
    join_all((0..32).map(|_| client.get("key"))).await;
    assert_eq!(paused.seen().len(), asked, "another node is there");
    owed.lock().unwrap().1 = true;
    // A question for this node alone is what it answers first.
    client.status(&paused.address).await.unwrap();
    join_all((0..32).map(|_| client.get("key"))).await;
    assert!(paused.seen().len() > asked, "it is asked again");
    assert_eq!(paused.hellos().len(), 1, "its connection was kept");
}

#[tokio::test]
async fn a_node_that_answers_probes_may_take_its_time() {
    let mut waiting = None;
    let mut probes = 0;
    let node = FakeNode::start(move |request| {
        if request.body != Request::Status {
            waiting = Some(request.correlation);
            return silence();
        }
        probes += 1;
        let mut answers = vec![(request.correlation, status(1))];
        if probes == 4 {
            answers.push((waiting.unwrap(), got(1, "value")));
        }
        Action::Answer(answers)
    })
    .await;
    let client = fake::builder(&[&node]).silence_timeout(SHORT).connect().unwrap();
    client.get("key").await.unwrap();
    assert_eq!(node.seen().len(), 1, "the connection was kept");
}

fn page(keys: &[&'static str], more: bool) -> Response {
    let value = Versioned { version: Version::new(1), value: "value".into() };
    let item = |key: &&'static str| Item { key: (*key).into(), value: value.clone() };
    Response::Scanned(Scanned { items: keys.iter().map(item).collect(), more, at: Version::new(9) })
}

#[tokio::test]
async fn pages_go_on_after_the_last_key_until_there_are_no_more() {
    let node = FakeNode::start(|request| {
        let Request::Scan { after, .. } = &request.body else { panic!("not a scan: {request:?}") };
        let page = match after.as_deref() {
            None => page(&["a", "b"], true),
            Some(b"b") => page(&["c"], false),
            Some(after) => panic!("after {after:?}"),
        };
        answer(request, page)
    })
    .await;
    let mut pages = client(&[&node]).pages("", ScanOptions { limit: 2, ..ScanOptions::default() });
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        keys.extend(page.unwrap().items.into_iter().map(|item| item.key));
    }
    assert_eq!(keys, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_empty_page_that_promises_more_is_refused() {
    let node = FakeNode::start(|request| answer(request, page(&[], true))).await;
    let error = client(&[&node]).scan("", ScanOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::UnexpectedAnswer(_)), "{error:?}");
}
