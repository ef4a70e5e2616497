//! Arbitrary bytes in place of trees and quotas.

use bytes::Bytes;
use quorumkv_fuzzing::{Case, fuzz, peak_of};

use super::quota::Stats;
use super::{Session, Tree};
use crate::fuzz::texts;
use crate::txn::{Change, Owner, Txn};
use crate::wire::{Acl, Id};

/// Trees with everything that there can be in one.
pub(crate) fn samples() -> Vec<Tree> {
    let mut tree = Tree::new();
    let mut samples = vec![tree.clone()];
    let mut apply = |session, change| {
        let zxid = tree.last_zxid() + 1;
        tree.apply(&Txn { zxid, session, time_ms: 1000 * zxid, change });
        tree.clone()
    };
    for session in [5, -9] {
        let Session { timeout_ms, password } = Session { timeout_ms: 30_000, password: [7; 16] };
        apply(session, Change::CreateSession { timeout_ms, password });
    }
    let acl = |id: &str| [Acl { permissions: 31, id: Id::new("digest", id) }].into();
    let znodes = [
        ("/a", Some("data"), Owner::Nobody),
        ("/a/e", None, Owner::Session(5)),
        ("/c", Some(""), Owner::Container),
        ("/c/t", Some("x"), Owner::Ttl(5000)),
        ("/zookeeper/quota/a", Some(""), Owner::Nobody),
        ("/zookeeper/quota/a/zookeeper_limits", Some("count=3,bytes=-1"), Owner::Nobody),
        ("/zookeeper/quota/a/zookeeper_stats", Some("count=1,bytes=4"), Owner::Nobody),
    ];
    for (path, data, owner) in znodes {
        let data = data.map(Bytes::from);
        let create = Change::Create { path: path.into(), data, acl: acl(path), owner, parent_creations: 1 };
        samples.push(apply(5, create));
    }
    samples.push(apply(5, Change::Delete { path: "/c/t".into() }));
    samples
}

pub(crate) fn encoded(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    tree.encode(&mut bytes).expect("memory takes everything");
    bytes
}

/// What is taken for a tree is one, and there is one form of it. Only with the flavour of corpora, the first of 32, is the whole
/// tree walked: that takes long.
#[test]
fn tree() {
    fuzz!(samples().iter().map(encoded).collect(), |case: &mut Case| {
        let mut input = &case.bytes[..];
        let (decoded, taken) = peak_of(|| Tree::decode(&mut input));
        assert!(taken <= 256 * case.bytes.len() + (128 << 10), "{} bytes took {taken}", case.bytes.len());
        let Ok(tree) = decoded else { return };
        if case.flavour == 0 {
            tree.check_invariants();
        }
        let read = &case.bytes[..case.bytes.len() - input.len()];
        assert_eq!(encoded(&tree), read, "accepted a form that is not written");
    });
}

/// It is clients who write quotas: what is not understood is left out, and what is understood is kept.
#[test]
fn quota() {
    let samples = texts(&[
        "count=5,bytes=-1",
        "count=1,bytes=2=;byteHardLimit=7;countHardLimit=-1",
        "bytes=,count=9223372036854775807",
    ]);
    fuzz!(samples, |case: &mut Case| {
        let (stats, taken) = peak_of(|| Stats::parse(&case.bytes));
        assert_eq!(taken, 0, "numbers need no memory");
        let written = stats.to_string();
        assert_eq!(Stats::parse(written.as_bytes()).to_string(), written);
    });
}
