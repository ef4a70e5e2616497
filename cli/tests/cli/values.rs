//! put, get, del, cas and scan.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use expect_test::expect;
use quorumkv_protocol::client::{Consistency, Evidence, Got, Request, Response, Rule, Versioned, Witness};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};

use crate::fake::FakeNode;
use crate::run::{command, kvctl_at, kvctl_with};

#[test]
fn values_are_written_read_compared_and_removed() {
    let node = FakeNode::start();
    let session = [
        &["put", "k", "one"][..],
        &["get", "k", "-o", "table"],
        &["get", "k", "-o", "json"],
        &["cas", "k", "two", "--expect-version", "0"],
        &["cas", "k", "two", "--expect-version", "42", "-o", "json"],
        &["cas", "k", "three", "--expect-version", "42", "-o", "json"],
        &["cas", "new", "x", "--expect-version", "0", "-o", "table"],
        &["cas", "none", "x", "--expect-version", "9"],
        &["get", "k"],
        &["del", "k", "-o", "table"],
        &["del", "k"],
        &["get", "k"],
        &["get", "k", "-o", "json"],
    ];
    let mut transcript = String::new();
    for arguments in session {
        let all = kvctl_at(&[&node], arguments).all();
        transcript.push_str(&format!("$ kvctl {}\n{}\n", arguments.join(" "), all.trim_end()));
    }
    expect![[r#"
        $ kvctl put k one
        exit 0
        42
        $ kvctl get k -o table
        exit 0
        KEY  VERSION  VALUE
        k         42  one
        $ kvctl get k -o json
        exit 0
        {"key":"k","value":"one","version":"42","consistency":"quorum"}
        $ kvctl cas k two --expect-version 0
        exit 4
        kvctl: k is at version 42, not absent; nothing changed; get the key, decide again, and use its version
        $ kvctl cas k two --expect-version 42 -o json
        exit 0
        {"key":"k","outcome":"applied","version":"43"}
        $ kvctl cas k three --expect-version 42 -o json
        exit 4
        {"error":{"actual_version":"43","advice":"get the key, decide again, and use its version","code":"precondition_failed","exit_code":4,"message":"k is at version 43, not 42; nothing changed"}}
        $ kvctl cas new x --expect-version 0 -o table
        exit 0
        put new at version 44
        $ kvctl cas none x --expect-version 9
        exit 4
        kvctl: none is absent, not at version 9; nothing changed; get the key, decide again, and use its version
        $ kvctl get k
        exit 0
        two
        $ kvctl del k -o table
        exit 0
        deleted k at version 45
        $ kvctl del k
        exit 3
        kvctl: no key k
        $ kvctl get k
        exit 3
        kvctl: no key k
        $ kvctl get k -o json
        exit 3
        {"error":{"code":"not_found","exit_code":3,"message":"no key k"}}
    "#]].assert_eq(&transcript);
}

#[test]
fn any_bytes_go_in_and_come_out_unchanged() {
    let node = FakeNode::start();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(kvctl_with(&node, &["put", "piped", "-"], &bytes).code, 0);
    assert_eq!(kvctl_at(&[&node], &["get", "piped"]).stdout, bytes);
    assert_eq!(kvctl_with(&node, &["cas", "piped", "-", "--expect-version", "42"], b"").code, 0);
    assert_eq!(kvctl_at(&[&node], &["get", "piped"]).stdout, b"");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(kvctl_at(&[&node], &["put", "filed", "--file", file.to_str().unwrap()]).code, 0);
    assert_eq!(kvctl_at(&[&node], &["get", "filed", "-o", "raw"]).stdout, bytes);
    let json: serde_json::Value =
        serde_json::from_slice(&kvctl_at(&[&node], &["get", "filed", "-o", "json"]).stdout).unwrap();
    assert!(json["value_base64"].is_string() && json.get("value").is_none());
}

fn evidence() -> Evidence {
    let epoch = Epoch::new(3, NodeId::new(1));
    let witness = |node, last, decided| Witness {
        node: NodeId::new(node),
        round: 1,
        last: EntryId::new(epoch, Version::new(last)),
        promise: epoch,
        committed: Version::new(41),
        touched: (last > 41).then(|| EntryId::new(epoch, Version::new(42))),
        decided,
    };
    Evidence {
        witnesses: vec![witness(1, 42, true), witness(2, 41, false)],
        quorum: 2,
        rounds: 1,
        conflicts: 0,
        elapsed_us: 412,
        rule: Some(Rule::KnownCommitted),
    }
}

#[test]
fn evidence_is_shown_beside_the_value() {
    let node = FakeNode::scripted(1, |request| match request {
        Request::Get { evidence: asked, .. } => {
            let value = Some(Versioned { version: Version::new(42), value: "v".into() });
            Some(Response::Got(Got { value, age_ms: None, evidence: asked.then(evidence) }))
        }
        _ => None,
    });
    expect![[r#"
        exit 0
        vMEMBER            ROUND  EPOCH               LAST  PROMISE             COMMITTED  KEY TOUCHED BY                  DECIDED
        0000000000000001      1  3@0000000000000001    42  3@0000000000000001         41  42 of epoch 3@0000000000000001  yes
        0000000000000002      1  3@0000000000000001    41  3@0000000000000001         41  -
        answered: a member of the deciding epoch knew the entry to be committed (quorum of 2; rounds: 1, conflicts: 0; 0.412 ms)
    "#]].assert_eq(&kvctl_at(&[&node], &["get", "k", "--evidence"]).all());
    expect![[r#"
        exit 0
        {"key":"k","value":"v","version":"42","consistency":"quorum","evidence":{"quorum":2,"rounds":1,"conflicts":0,"elapsed_us":"412","rule":"known_committed","witnesses":[{"node":"0000000000000001","round":1,"last":{"epoch":"3@0000000000000001","version":"42"},"promise":"3@0000000000000001","committed":"41","touched":{"epoch":"3@0000000000000001","version":"42"},"decided":true},{"node":"0000000000000002","round":1,"last":{"epoch":"3@0000000000000001","version":"41"},"promise":"3@0000000000000001","committed":"41","touched":null,"decided":false}]}}
    "#]].assert_eq(&kvctl_at(&[&node], &["get", "k", "--evidence", "-o", "json"]).all());
}

#[test]
fn local_reads_ask_for_it_and_say_how_old_they_are() {
    let node = FakeNode::scripted(1, |request| match request {
        Request::Get { consistency: Consistency::Local, .. } => {
            let value = Some(Versioned { version: Version::new(42), value: "v".into() });
            Some(Response::Got(Got { value, age_ms: Some(17), evidence: None }))
        }
        _ => None,
    });
    let ran = kvctl_at(&[&node], &["get", "k", "--consistency", "local", "-o", "table"]);
    assert!(ran.text().contains("up to date 17 ms ago"), "{}", ran.text());
    let ran = kvctl_at(&[&node], &["get", "k", "--consistency", "local", "-o", "json"]);
    assert!(ran.text().contains(r#""consistency":"local","age_ms":"17""#), "{}", ran.text());
    assert_eq!(kvctl_at(&[&node], &["get", "k"]).code, 3);
}

fn filled(keys: usize) -> FakeNode {
    let node = FakeNode::start();
    (0..keys).for_each(|key| node.hold(format!("user/{key:05}"), format!("value {key}")));
    node.hold("other", "x");
    node
}

#[test]
fn a_scan_goes_over_all_pages_and_stops_at_its_limit() {
    let node = filled(2_500);
    let lines = |arguments: &[&str]| kvctl_at(&[&node], arguments).text().lines().count();
    assert_eq!(lines(&["scan", "user/"]), 2_500);
    assert_eq!(lines(&["scan", ""]), 2_501);
    assert_eq!(lines(&["scan", "user/", "--limit", "1001"]), 1_001);
    assert_eq!(lines(&["scan", "user/", "--limit", "0"]), 0);
    assert_eq!(lines(&["scan", "user/", "--after", "user/02497"]), 2);
    assert_eq!(lines(&["scan", "nobody/"]), 0);
    assert_eq!(lines(&["scan", "user/", "-o", "table"]), 2_501);
    let two = kvctl_at(&[&node], &["scan", "user/", "--limit", "2", "-o", "json"]);
    expect![[r#"
        exit 0
        {"key":"user/00000","value":"value 0","version":"42"}
        {"key":"user/00001","value":"value 1","version":"43"}
    "#]]
    .assert_eq(&two.all());
    expect![[r#"
        exit 0
        user/00000	value 0
        user/00001	value 1
    "#]]
    .assert_eq(&kvctl_at(&[&node], &["scan", "user/", "--limit", "2"]).all());
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_scan_quietly() {
    let node = filled(20_000);
    for format in ["raw", "json", "table"] {
        let mut command = command(&["scan", "", "-o", format]);
        command.env("KVCTL_ENDPOINTS", &node.address).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{format}");
    }
}
