//! Arbitrary bytes into what this crate reads and everybody may see: the identity of a node, and addresses.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use quorumkv_fuzzing::{Case, Counting, fuzz, peak_of};
use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::{ClusterId, NodeId};

use crate::coordination::{ConnectString, HostPort};
use crate::data_dir::{Membership, decode_membership, encode_membership};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

pub(crate) fn texts(samples: &[&str]) -> Vec<Vec<u8>> {
    samples.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn members(nodes: &[u64]) -> Vec<Member> {
    let member = |node: &u64| Member { node: NodeId::new(*node), address: format!("host-{node}:5000") };
    nodes.iter().map(member).collect()
}

/// `node.json`, and the mirror of the members in ZooKeeper: the same but for the node.
#[test]
fn membership() {
    let first = Configuration::first(members(&[1, 2, 3]));
    let grown = Configuration { learners: members(&[4]), ..first.clone() };
    let samples = [first, grown]
        .map(|configuration| encode_membership(&Membership { cluster: ClusterId::new(9), configuration }));
    fuzz!(samples.to_vec(), |case: &mut Case| {
        let (decoded, taken) = peak_of(|| decode_membership(&case.bytes));
        assert!(taken <= 64 * case.bytes.len() + (64 << 10), "{} bytes took {taken}", case.bytes.len());
        if let Ok(membership) = decoded {
            let again = decode_membership(&encode_membership(&membership));
            assert_eq!(again.as_ref(), Ok(&membership));
        }
    });
}

/// What is accepted is written in one form, which means the same.
fn check<T: FromStr + Display + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (parsed, taken) = peak_of(|| text.parse::<T>());
    assert!(taken <= 32 * text.len() + (4 << 10), "{} bytes took {taken}", text.len());
    if let Ok(parsed) = parsed {
        let written = parsed.to_string();
        assert_eq!(written.parse().ok().as_ref(), Some(&parsed), "{text:?} is written as {written:?}");
    }
}

#[test]
fn address() {
    let samples = texts(&["zk:2181", "127.0.0.1:2182", "[::1]:1", "[1:2:3:4:5:6:7:8]:65535", "A-b_c.d:80"]);
    fuzz!(samples, |case: &mut Case| check::<HostPort>(&case.bytes));
}

#[test]
fn connect_string() {
    let samples = texts(&[
        "zk",
        "127.0.0.1:2182,[::1]:5/kv",
        "ZK1.Example.org:1, zk_2,zk-3:65535/a/b c",
        "zk:1/grün/\u{e000}",
        "[0:0::1]:99/.hidden/..",
    ]);
    fuzz!(samples, |case: &mut Case| check::<ConnectString>(&case.bytes));
}
