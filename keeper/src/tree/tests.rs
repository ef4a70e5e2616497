//! Quotas, large directories, and trees as bytes.

use std::io::{self, Read};

use bytes::Bytes;
use proptest::prelude::*;

use super::{DecodeError, Tree};
use crate::txn::{Change, Owner, Txn};
use crate::wire::{Acl, Id, Stat};

struct World(Tree);

impl World {
    fn new() -> Self {
        Self(Tree::new())
    }

    fn apply(&mut self, session: i64, change: Change) {
        let zxid = self.0.last_zxid() + 1;
        self.0.apply(&Txn { zxid, session, time_ms: zxid, change });
    }

    fn create_as(&mut self, path: &str, data: Option<&'static str>, owner: Owner) {
        let parent_creations =
            crate::path::parent(path).and_then(|parent| self.0.get(parent)).map(|node| node.creations + 1);
        let parent_creations = parent_creations.expect("the parent is there");
        let data = data.map(Bytes::from);
        self.apply(
            1,
            Change::Create { path: path.into(), data, acl: Acl::open().into(), owner, parent_creations },
        );
    }

    fn create(&mut self, path: &str, data: &'static str) {
        self.create_as(path, Some(data), Owner::Nobody);
    }

    fn set(&mut self, path: &str, data: &'static str) {
        let version = self.0.get(path).map_or(0, |node| node.version) + 1;
        self.apply(1, Change::SetData { path: path.into(), data: Some(Bytes::from(data)), version });
    }

    fn delete(&mut self, path: &str) {
        self.apply(1, Change::Delete { path: path.into() });
    }

    fn data(&self, path: &str) -> String {
        let data = self.0.get(path).and_then(|node| node.data()).expect("it is there");
        String::from_utf8(data.to_vec()).expect("it is text")
    }
}

#[test]
fn a_new_tree_is_that_of_a_new_zookeeper() {
    let tree = Tree::new();
    tree.check_invariants();
    let stat = |path: &str| tree.get(path).map(super::Node::stat).expect("it is there");
    assert_eq!(stat("/"), Stat { cversion: -1, num_children: 1, ..Stat::default() });
    assert_eq!(stat(""), stat("/"));
    assert_eq!(stat("/zookeeper"), Stat { cversion: -2, num_children: 2, ..Stat::default() });
    assert_eq!(stat("/zookeeper/quota"), Stat::default());
    assert_eq!(stat("/zookeeper/config"), Stat { aversion: -1, ..Stat::default() });
    assert_eq!(tree.get("/").and_then(|node| node.data()), Some(&Bytes::new()));
    assert_eq!((tree.len(), tree.data_bytes(), tree.all_children_number("/")), (4, 44, 3));
}

/// What Apache ZooKeeper 3.8 said after the same operations.
#[test]
fn the_stats_of_a_quota_are_kept() {
    let mut world = World::new();
    let stats = "/zookeeper/quota/q/zookeeper_stats";
    world.create("/q", "abc");
    world.create("/q/1", "xy");
    world.create("/qq", "not below it");
    world.create("/zookeeper/quota/q", "");
    world.create("/zookeeper/quota/q/zookeeper_limits", "count=2,bytes=100");
    world.create("/q/0", "");
    world.delete("/q/0");
    world.create(stats, "count=2,bytes=100");
    assert_eq!(world.data(stats), "count=2,bytes=5");
    world.create("/q/2", "0123");
    assert_eq!(world.data(stats), "count=3,bytes=9");
    world.set("/q/1", "");
    assert_eq!(world.data(stats), "count=3,bytes=7");
    world.delete("/q/2");
    assert_eq!(world.data(stats), "count=2,bytes=3");
    world.set(stats, "count=5,bytes=7=;byteHardLimit=9;countHardLimit=3");
    world.set("/q", "1");
    assert_eq!(world.data(stats), "count=5,bytes=5=;byteHardLimit=9;countHardLimit=3");
    assert_eq!(world.0.get(stats).map(|node| (node.version, node.mzxid < node.czxid + 4)), Some((1, false)));

    // The deepest quota counts, even while it has nothing to count with.
    let inner = "/zookeeper/quota/q/1/zookeeper_stats";
    world.create("/zookeeper/quota/q/1", "");
    world.create("/zookeeper/quota/q/1/zookeeper_limits", "count=1,bytes=-1");
    world.create("/q/1/x", "12345");
    world.create(inner, "");
    assert_eq!(world.data(inner), "count=2,bytes=5");
    world.set("/q/1/x", "");
    assert_eq!(world.data(inner), "count=2,bytes=0");
    assert_eq!(world.data(stats), "count=5,bytes=5=;byteHardLimit=9;countHardLimit=3");
    world.delete("/zookeeper/quota/q/1/zookeeper_limits");
    world.set("/q/1/x", "7");
    assert_eq!(world.data(inner), "count=2,bytes=0");
    assert_eq!(world.data(stats), "count=5,bytes=6=;byteHardLimit=9;countHardLimit=3");
    world.0.check_invariants();
}

#[test]
fn stats_that_make_no_sense_harm_nobody() {
    let mut world = World::new();
    let stats = "/zookeeper/quota/q/zookeeper_stats";
    world.create("/zookeeper/quota/zookeeper_limits", "count=1");
    world.create("/zookeeper/quota/zookeeper_stats", "");
    world.create("/zookeeper/quota/q", "");
    world.create("/zookeeper/quota/q/zookeeper_limits", "nonsense");
    world.create(stats, "");
    assert_eq!(world.data(stats), "count=0,bytes=0");
    for (nonsense, expected) in [
        ("", "count=0,bytes=1"),
        ("count", "count=0,bytes=1"),
        ("=,;,count=x;bytes=9223372036854775807", "count=0,bytes=-9223372036854775807"),
        ("count=,bytes=1=,=5", "count=0,bytes=3"),
    ] {
        world.set(stats, nonsense);
        world.create("/q", "ab");
        assert_eq!(world.data(stats), expected, "{nonsense}");
        world.set(stats, "count=1,bytes=2");
        world.delete("/q");
        assert_eq!(world.data(stats), "count=0,bytes=0");
    }
    world.0.check_invariants();
}

#[test]
fn a_large_directory_is_shared_by_clones_and_shrinks_again() {
    let mut world = World::new();
    world.create("/d", "");
    for index in 0..200 {
        world.create(&format!("/d/{index:03}"), "");
    }
    world.0.check_invariants();
    let snapshot = world.0.clone();
    for index in (0..200).filter(|index| index % 20 != 7) {
        world.delete(&format!("/d/{index:03}"));
    }
    world.0.check_invariants();
    snapshot.check_invariants();
    assert_eq!(snapshot.get("/d").map(|node| node.children().len()), Some(200));
    let left: Vec<_> = world.0.get("/d").into_iter().flat_map(super::Node::children).collect();
    assert_eq!(left, ["007", "027", "047", "067", "087", "107", "127", "147", "167", "187"]);
    assert_eq!(world.0.get("/d").map(|node| node.stat().cversion), Some(390));
}

#[test]
fn what_is_below_a_path_is_counted_whatever_its_neighbours_are() {
    let mut world = World::new();
    // '!' comes before '/', and '0' after it.
    for root in ["/a", "/a!", "/a/b", "/a/b!", "/a/b0", "/a0"] {
        world.create(root, "12");
        for index in 0..40 {
            world.create(&format!("{root}/{index:02}"), "123");
        }
    }
    world.0.check_invariants();
    assert_eq!((world.0.all_children_number("/a"), world.0.all_children_number("/a/b")), (163, 40));
    for index in (0..40).filter(|index| index % 10 != 3) {
        world.delete(&format!("/a/b/{index:02}"));
        world.set(&format!("/a/{index:02}"), "");
    }
    world.0.check_invariants();
    assert_eq!((world.0.all_children_number("/a"), world.0.all_children_number("/a/b")), (127, 4));
}

#[test]
fn the_stats_of_a_quota_stay_short_whatever_a_client_writes() {
    let mut world = World::new();
    let stats = "/zookeeper/quota/q/zookeeper_stats";
    world.create("/zookeeper/quota/q", "");
    world.create("/zookeeper/quota/q/zookeeper_limits", "count=1");
    world.create(stats, "");
    let keys: String = (0..50_000).map(|key| format!(";key-{key}=1")).collect();
    world.set(stats, format!("count=1,bytes=2=;countHardLimit=7{keys}").leak());
    world.create("/q", "ab");
    assert_eq!(world.data(stats), "count=2,bytes=4=;countHardLimit=7");
    world.0.check_invariants();
}

#[test]
#[should_panic(expected = "transaction 1 comes after 1")]
fn a_transaction_is_not_applied_twice() {
    let mut world = World::new();
    world.create("/a", "");
    world.0.apply(&Txn { zxid: 1, session: 0, time_ms: 0, change: Change::Check });
}

/// A tree with something of everything.
fn sample() -> Tree {
    let mut world = World::new();
    for session in [7, -7] {
        world.apply(session, Change::CreateSession { timeout_ms: 4000, password: [7; 16] });
    }
    world.create_as("/null", None, Owner::Nobody);
    world.create_as("/e", Some("ephemeral"), Owner::Session(-7));
    world.create_as("/c", Some(""), Owner::Container);
    world.create_as("/c/é", Some("child"), Owner::Ttl(0xff_ffff_ffff));
    world.create_as("/idle", Some(""), Owner::Container);
    world.create("/idle/gone", "");
    world.delete("/idle/gone");
    world.create("/zookeeper/quota/c", "");
    world.create("/zookeeper/quota/c/zookeeper_limits", "count=1");
    world.create("/zookeeper/quota/c/zookeeper_stats", "");
    let acl =
        vec![Acl { permissions: 3, id: Id::new("digest", "a:b") }, Acl { permissions: -1, id: Id::anyone() }];
    world.apply(1, Change::SetAcl { path: "/e".into(), acl: acl.into(), version: 1 });
    world.0
}

fn encoded(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    tree.encode(&mut bytes).expect("memory takes everything");
    bytes
}

/// Input that is asked for pieces of a bounded size only, as it would be if each was allocated beforehand.
struct Wary<'a>(&'a [u8]);

impl Read for Wary<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        assert!(piece.len() <= 64 * 1024, "{} bytes are made room for", piece.len());
        self.0.read(piece)
    }
}

#[test]
fn a_tree_survives_as_bytes() {
    let tree = sample();
    tree.check_invariants();
    let bytes = encoded(&tree);
    let mut input = [&bytes[..], b"more"].concat();
    let mut rest = input.as_mut_slice() as &[u8];
    let decoded = Tree::decode(&mut rest).expect("it is a tree");
    assert_eq!((&decoded, rest), (&tree, &b"more"[..]));
    decoded.check_invariants();
    assert_eq!(encoded(&decoded), bytes);
    let big: &'static str = "x".repeat(1 << 20).leak();
    let mut world = World(tree);
    world.create("/big", big);
    assert_eq!(Tree::decode(&mut Wary(&encoded(&world.0))).expect("it is a tree"), world.0);
}

#[test]
fn a_tree_that_is_cut_short_is_an_error() {
    let bytes = encoded(&sample());
    for length in 0..bytes.len() {
        let error = Tree::decode(&mut &bytes[..length]).expect_err("it is not whole");
        assert!(matches!(error, DecodeError::Io(_)), "{length}: {error}");
    }
}

#[test]
fn what_is_no_tree_is_an_error() {
    let damaged = |bytes: &[u8]| Tree::decode(&mut Wary(bytes)).expect_err("it is no tree").to_string();
    assert_eq!(damaged(&[2]), "the snapshot has the unknown version 2");
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(damaged(&[1, 0, 0, 0, 0]), "the snapshot is damaged: a znode that is always there is not");
    // As many sessions, ACLs or znodes as that.
    for before in [&[1, 0][..], &[1, 0, 0], &[1, 0, 0, 0]] {
        assert!(damaged(&[before, &huge].concat()).starts_with("read a snapshot"));
    }
    // A path as long as that, one of 2 GiB, and a number of more than 64 bits.
    assert_eq!(
        damaged(&[&[1, 0, 0, 0, 1], &huge[..]].concat()),
        "the snapshot is damaged: a length is too large"
    );
    assert!(damaged(&[1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x07]).starts_with("read a snapshot"));
    assert_eq!(
        damaged(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
        "the snapshot is damaged: a number is too large"
    );
    assert_eq!(
        damaged(&[1, 0, 0, 0, 1, 2, b'/', b'a', 0, 0, 0]),
        "the snapshot is damaged: a znode has no ACL"
    );
}

proptest! {
    #[test]
    fn damage_is_an_error_or_a_tree_that_makes_sense(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = encoded(&sample());
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(tree) = Tree::decode(&mut Wary(&bytes)) {
            // Numbers may be anything, and so may lack the relations that the server gives them.
            prop_assert_eq!(Tree::decode(&mut encoded(&tree).as_slice()).expect("it is a tree"), tree);
        }
    }
}
