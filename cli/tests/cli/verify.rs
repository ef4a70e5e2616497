//! verify, against a node that keeps its promises, and nodes that do not.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use quorumkv_protocol::Version;
use quorumkv_protocol::client::{Got, Request, Response, Versioned};

use crate::fake::FakeNode;
use crate::run::{Ran, kvctl, kvctl_at, nowhere};

/// A node that answers every twentieth read with this.
fn liar(lie: impl Fn(&bytes::Bytes) -> Option<Versioned> + Send + 'static) -> FakeNode {
    let reads = AtomicU64::new(0);
    FakeNode::scripted(1, move |request| {
        let Request::Get { key, .. } = request else { return None };
        let is_lie = reads.fetch_add(1, Ordering::Relaxed) % 20 == 19;
        is_lie.then(|| Response::Got(Got { value: lie(key), age_ms: None, evidence: None }))
    })
}

fn verify(node: &FakeNode, html: &Path, more: &[&str]) -> Ran {
    let html = html.to_str().expect("a path of text");
    kvctl_at(&[node], &[&["verify", "--seconds", "1", "--clients", "4", "--html", html], more].concat())
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_slice(&ran.stdout).expect("one object")
}

#[test]
fn a_node_that_keeps_its_promises_holds_and_is_left_as_it_was() {
    let (node, place) = (FakeNode::start(), tempfile::tempdir().expect("a directory"));
    node.hold("kvctl-verify/mine", "stays");
    let (html, history) = (place.path().join("v.html"), place.path().join("h.jsonl"));
    let ran = verify(&node, &html, &["-o", "json", "--history", history.to_str().expect("text")]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let json = json(&ran);
    assert_eq!((&json["verdict"], &json["cleaned_up"]), (&"holds".into(), &true.into()), "{json}");
    assert_eq!((&json["unknown"], &json["undecided_keys"]), (&0.into(), &0.into()), "{json}");
    let lines = std::fs::read_to_string(&history).expect("a history");
    let operations = json["operations"].as_u64().expect("a number");
    assert_eq!(lines.lines().count() as u64, operations);
    let kinds: u64 = (0..4).map(|kind| json["kinds"][kind]["ok"].as_u64().expect("a number")).sum();
    assert!((1..=operations).contains(&kinds));
    assert!(!html.exists(), "there is nothing to show");
    assert_eq!(node.content(), [("kvctl-verify/mine".into(), "stays".into())]);
    let table = verify(&node, &html, &["-o", "table"]);
    assert!(table.text().contains("holds: all answers are linearizable"), "{}", table.all());
}

#[test]
fn a_node_that_loses_keys_is_found_out_and_a_page_shows_how() {
    let (node, place) = (liar(|_| None), tempfile::tempdir().expect("a directory"));
    let html = place.path().join("v.html");
    let ran = verify(&node, &html, &["-o", "table"]);
    assert_eq!(ran.code, 10, "{}", ran.all());
    assert!(ran.text().contains("VIOLATION: ") && ran.text().contains("absent"), "{}", ran.text());
    assert!(ran.stderr.contains("contradict each other"), "{}", ran.stderr);
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.contains("<svg") && page.contains("op wrong"));
    assert!(node.content().is_empty(), "it is cleaned up all the same");
    let ran = verify(&node, &html, &["-o", "json"]);
    let json = json(&ran);
    assert_eq!((ran.code, &json["verdict"]), (10, &"violation".into()));
    let few = json["violation"]["operations"].as_array().expect("operations").len();
    // At most: what was found, who wrote and who replaced it, and an absence with its delete, what this deleted, and proof of that.
    assert!((1..=7).contains(&few), "{json}");
}

#[test]
fn old_answers_to_local_reads_are_counted_and_invented_ones_are_not_let_through() {
    let place = tempfile::tempdir().expect("a directory");
    let html = place.path().join("v.html");
    let old = liar(|_| None);
    let ran = verify(&old, &html, &["--consistency", "local", "-o", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let stale = json(&ran)["stale"]["stale"].as_u64().expect("a number");
    assert!(stale > 0, "{}", ran.all());
    let invented = liar(|_| Some(Versioned { version: Version::new(7), value: "invented".into() }));
    let ran = verify(&invented, &html, &["--consistency", "local", "-o", "table"]);
    assert_eq!(ran.code, 10, "{}", ran.all());
    assert!(ran.text().contains("nobody wrote"), "{}", ran.all());
}

#[test]
fn faults_are_refused_where_no_kvd_dev_runs_the_cluster() {
    let node = FakeNode::start();
    let ran = kvctl_at(&[&node], &["verify", "--chaos", "-o", "json"]);
    assert_eq!((ran.code, ran.text()), (8, ""), "{}", ran.all());
    assert!(ran.stderr.contains("kvd dev") && ran.stderr.contains("not_permitted"), "{}", ran.stderr);
    assert!(node.content().is_empty());
}

#[test]
fn nothing_is_verified_where_nobody_answers() {
    let ran = kvctl(&["verify", "-e", &nowhere(), "--timeout", "1s"]);
    assert_eq!(ran.code, 5, "{}", ran.all());
}
