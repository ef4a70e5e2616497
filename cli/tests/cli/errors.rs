//! Exit codes and messages of what goes wrong.

use expect_test::expect;
use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::{Request, Response};

use crate::fake::{FakeNode, failed};
use crate::run::{kvctl, kvctl_at, nowhere};

#[test]
fn no_node_within_reach_ends_with_5() {
    let nowhere = nowhere();
    let node = FakeNode::start();
    let endpoint = ["-e", &nowhere, "--timeout", "300ms"];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f").to_str().unwrap().to_owned();
    std::fs::write(&file, "{\"key\":\"k\",\"value\":\"v\"}\n").unwrap();
    for arguments in [
        &["get", "k"][..],
        &["put", "k", "v"],
        &["del", "k"],
        &["cas", "k", "v", "--expect-version", "0"],
        &["scan", ""],
        &["status"],
        &["leader"],
        &["kill-leader"],
        &["kill", &nowhere],
        &["kill", "1"],
        &["import", &file],
        &["export"],
        &["bench", "--seconds", "0.1"],
    ] {
        let ran = kvctl(&[arguments, &endpoint].concat());
        assert_eq!(ran.code, 5, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(&nowhere) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        let json = kvctl(&[arguments, &endpoint, &["-o", "json"]].concat());
        let error: serde_json::Value = serde_json::from_str(&json.stderr).expect(&json.stderr);
        assert_eq!(error["error"]["code"], "unreachable", "{arguments:?}");
    }
    // One node that answers is enough.
    let both = format!("{nowhere},{}", node.address);
    for _ in 0..4 {
        assert_eq!(kvctl(&["put", "k", "v", "-e", &both]).code, 0);
    }
}

/// A node that refuses all writes and reads.
fn refusing(code: ErrorCode) -> FakeNode {
    FakeNode::scripted(1, move |request| match request {
        Request::Write(_) | Request::Get { .. } | Request::Scan { .. } => Some(failed(code, "not today")),
        Request::Status
        | Request::Stop { .. }
        | Request::Members
        | Request::Change { .. }
        | Request::Drain { .. } => None,
    })
}

#[test]
fn every_refusal_of_a_write_has_the_exit_code_for_what_it_means() {
    for (code, exit) in [
        (ErrorCode::NoQuorum, 6),
        (ErrorCode::Superseded, 6),
        (ErrorCode::NotLeader, 6),
        (ErrorCode::OutcomeUnknown, 7),
        (ErrorCode::NotPermitted, 8),
        (ErrorCode::TooLarge, 9),
        (ErrorCode::DiskFull, 9),
        (ErrorCode::Overloaded, 9),
        (ErrorCode::Malformed, 1),
        (ErrorCode::Corruption, 1),
    ] {
        let ran = kvctl_at(&[&refusing(code)], &["put", "k", "v", "--timeout", "200ms"]);
        assert_eq!(ran.code, exit, "{code}: {}", ran.stderr);
        assert!(ran.stderr.contains(code.name()) && ran.stderr.contains("not today"), "{}", ran.stderr);
    }
}

#[test]
fn every_refusal_of_a_read_has_its_exit_code() {
    for (code, exit) in [(ErrorCode::Conflict, 6), (ErrorCode::ReadTimedOut, 6), (ErrorCode::Corruption, 1)] {
        for arguments in [&["get", "k"][..], &["scan", ""]] {
            let ran = kvctl_at(&[&refusing(code)], arguments);
            assert_eq!(ran.code, exit, "{code}: {}", ran.stderr);
        }
    }
}

#[test]
fn what_the_node_takes_no_longer_is_refused_before_it_is_sent() {
    let node = FakeNode::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large");
    std::fs::write(&file, vec![0; (1 << 20) + 1]).unwrap();
    let ran = kvctl_at(&[&node], &["put", "k", "--file", file.to_str().unwrap()]);
    assert_eq!(ran.code, 9, "{}", ran.stderr);
    assert!(ran.stderr.contains("1048577") && ran.stderr.contains("1048576"), "{}", ran.stderr);
    assert_eq!(kvctl_at(&[&node], &["put", &"k".repeat(65_536), "v"]).code, 9);
}

#[test]
fn errors_are_one_object_on_stderr_with_json() {
    let node = refusing(ErrorCode::NoQuorum);
    let ran = kvctl_at(&[&node], &["put", "k", "v", "-o", "json"]);
    let stderr = ran.stderr.replace(&node.address, "NODE");
    expect![[r#"
        {"error":{"advice":"see `kvctl status`, then try again","code":"no_quorum","exit_code":6,"message":"not applied: NODE: not today (no_quorum)","reason":"no_quorum"}}
    "#]].assert_eq(&format!("{}{stderr}", ran.text()));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let node = FakeNode::start();
    for arguments in [&["put", "k", "--file", "no/such/file"][..], &["import", "no/such/file"]] {
        let ran = kvctl_at(&[&node], arguments);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("no/such/file"), "{}", ran.stderr);
    }
}

#[test]
fn a_node_that_answers_nonsense_leaves_a_write_unknown_and_a_read_failed() {
    let node = FakeNode::scripted(1, |request| match request {
        Request::Status => None,
        _ => Some(Response::Stopping),
    });
    assert_eq!(kvctl_at(&[&node], &["put", "k", "v"]).code, 7);
    assert_eq!(kvctl_at(&[&node], &["get", "k"]).code, 1);
}
