//! bench --compare, against peers that are not there, or are not what they are taken for.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::fake::FakeNode;
use crate::run::{Ran, kvctl_at, nowhere};

const SYSTEMS: [&str; 3] = ["etcd", "zookeeper", "redis"];

/// Whoever connects and says something is answered this, as often as it says something. Ends with the test's process.
fn answers(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection comes in");
            std::thread::spawn(move || {
                let mut buffer = [0; 1024];
                while matches!(stream.read(&mut buffer), Ok(1..)) && stream.write_all(answer).is_ok() {}
            });
        }
    });
    address
}

/// A comparison that must come to nothing.
fn refused(node: &FakeNode, system: &str, address: &str, more: &[&str]) -> Ran {
    let compare = format!("{system}={address}");
    let bench = ["bench", "--seconds", "60", "--compare", &compare];
    let ran = kvctl_at(&[node], &[&bench, more].concat());
    assert_eq!(ran.text(), "", "nothing is measured: {}", ran.stderr);
    assert!(node.content().is_empty(), "kvd has been asked before its peer");
    ran
}

#[test]
fn a_peer_that_is_not_there_is_told_before_anything_is_measured() {
    let (node, nowhere) = (FakeNode::start(), nowhere());
    for system in SYSTEMS {
        let ran = refused(&node, system, &nowhere, &[]);
        assert_eq!((ran.code, ran.stderr.lines().count()), (5, 1), "{}", ran.stderr);
        for part in [&format!("{system} at {nowhere}: "), "refused", &format!("--compare {system}=HOST:PORT")]
        {
            assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
        }
        let json = refused(&node, system, &nowhere, &["-o", "json"]);
        let error: serde_json::Value = serde_json::from_str(&json.stderr).expect(&json.stderr);
        assert_eq!(error["error"]["code"], "unreachable", "{error}");
    }
}

#[test]
fn something_else_at_the_address_is_told_apart() {
    let node = FakeNode::start();
    let http = answers(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    for system in SYSTEMS {
        let ran = refused(&node, system, &http, &[]);
        assert_eq!((ran.code, ran.stderr.lines().count()), (5, 1), "{system}: {}", ran.stderr);
        let told = format!("{system} at {http}: it does not answer as {system} does");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    }
}

#[test]
fn a_peer_that_says_nothing_ends_the_attempt_in_time() {
    let node = FakeNode::start();
    let silent = answers(b"");
    for system in SYSTEMS {
        let ran = refused(&node, system, &silent, &["--timeout", "300ms"]);
        assert_eq!((ran.code, ran.stderr.lines().count()), (5, 1), "{system}: {}", ran.stderr);
        assert!(ran.stderr.contains("no answer within 300ms"), "{}", ran.stderr);
    }
}

#[test]
fn a_peer_that_wants_a_password_says_what_to_do() {
    let node = FakeNode::start();
    let locked = answers(b"-NOAUTH Authentication required.\r\n");
    let ran = refused(&node, "redis", &locked, &[]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (8, 1), "{}", ran.stderr);
    assert!(ran.stderr.contains("kvctl bench has no passwords"), "{}", ran.stderr);
}
