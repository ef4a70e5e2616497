//! Random operations of several sessions: what they come to does not depend on when transactions are applied, and keeps
//! every invariant of the tree.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::tests::{World, asked, create};
use super::{Pending, Rejected};
use crate::path;
use crate::tree::{Node, Tree};
use crate::txn::Change;
use crate::wire::{
    AskedAcl, Check, Create, CreateKind, Delete, EventKind, Id, MultiOp, SetAcl, SetData, Write, permission,
};

/// What happens to a server.
#[derive(Clone, Debug)]
enum Step {
    Write {
        session: i64,
        write: Write,
    },
    Close(i64),
    /// A session begins again, once it is known to have ended.
    Open(i64),
    Reap(String),
    Time(i64),
    /// What waits is applied.
    Flush,
}

fn paths() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec!["a", "b", "c", "s-0000000000", "s-0000000001"]);
    prop::collection::vec(names, 1..4).prop_map(|names| format!("/{}", names.join("/")))
}

fn versions() -> impl Strategy<Value = i32> {
    prop_oneof![4 => Just(-1), 1 => 0..3]
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    prop_oneof![Just(None), "[a-z]{0,5}".prop_map(|text| Some(Bytes::from(text)))]
}

fn acls() -> impl Strategy<Value = Vec<AskedAcl>> {
    let read = asked(permission::ALL - permission::WRITE, "world", "anyone");
    let own = asked(permission::ALL, "auth", "");
    let null = vec![AskedAcl { permissions: 1, scheme: Some("digest".to_owned()), id: None }];
    prop_oneof![24 => Just(AskedAcl::open()), 2 => Just(read), 2 => Just(own), 1 => Just(Vec::new()), 1 => Just(null)]
}

fn creates() -> impl Strategy<Value = Create> {
    let kinds = prop_oneof![
        4 => Just(CreateKind::Persistent),
        2 => Just(CreateKind::Ephemeral),
        1 => Just(CreateKind::Container),
        1 => (0..30_i64).prop_map(CreateKind::Ttl),
    ];
    (paths(), data(), acls(), kinds, prop::bool::weighted(0.3)).prop_map(
        |(path, data, acl, kind, sequential)| {
            let path = if sequential {
                format!("{}/s-", path::parent(&path).unwrap_or("").trim_end_matches('/'))
            } else {
                path
            };
            Create { data, acl, kind, sequential, ..create(&path) }
        },
    )
}

fn ops() -> impl Strategy<Value = MultiOp> {
    prop_oneof![
        5 => creates().prop_map(MultiOp::Create),
        3 => (paths(), versions()).prop_map(|(path, version)| MultiOp::Delete(Delete { path, version })),
        2 => (paths(), data(), versions())
            .prop_map(|(path, data, version)| MultiOp::SetData(SetData { path, data, version })),
        1 => (paths(), versions()).prop_map(|(path, version)| MultiOp::Check(Check { path, version })),
    ]
}

fn writes() -> impl Strategy<Value = Write> {
    prop_oneof![
        10 => ops().prop_map(|op| match op {
            MultiOp::Create(create) => Write::Create(create),
            MultiOp::Delete(delete) => Write::Delete(delete),
            MultiOp::SetData(set) => Write::SetData(set),
            MultiOp::Check(check) => Write::Multi(vec![MultiOp::Check(check)]),
        }),
        1 => (paths(), acls(), versions()).prop_map(|(path, acl, version)| Write::SetAcl(SetAcl { path, acl, version })),
        4 => prop::collection::vec(ops(), 0..4).prop_map(Write::Multi),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        30 => (1..4_i64, writes()).prop_map(|(session, write)| Step::Write { session, write }),
        1 => (1..4_i64).prop_map(Step::Close),
        2 => (1..4_i64).prop_map(Step::Open),
        3 => paths().prop_map(Step::Reap),
        3 => (1..20_i64).prop_map(Step::Time),
        5 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..80)
}

/// A world with a quota on /a.
fn world() -> World {
    let mut world = World::new();
    for session in 1..4 {
        world.wait(session, Change::CreateSession { timeout_ms: 1000, password: [0; 16] });
    }
    for name in ["a", "a/zookeeper_limits", "a/zookeeper_stats"] {
        let write = Write::Create(create(&format!("/zookeeper/quota/{name}")));
        world.prepare(1, &[], write).expect("it is new");
    }
    world.flush();
    world
}

/// What a step comes to, unless it is one that a server does not take.
fn take(world: &mut World, open: &mut BTreeSet<i64>, step: &Step) -> Option<Result<Change, Rejected>> {
    match step {
        Step::Write { session, write } if open.contains(session) => {
            let ids = [Id::new("ip", "127.0.0.1"), Id::new("digest", format!("user{session}:hash"))];
            let ids = if *session == 3 { &ids[..1] } else { &ids };
            Some(world.prepare(*session, ids, write.clone()))
        }
        Step::Close(session) if open.remove(session) => {
            // What is pending is deleted last within its bucket, so only the order depends on what was applied already.
            let Change::CloseSession { mut ephemerals } = world.close(*session) else {
                panic!("a session ends")
            };
            ephemerals.sort();
            Some(Ok(Change::CloseSession { ephemerals }))
        }
        Step::Open(session) if open.insert(*session) => {
            apply(world, &mut BTreeMap::new());
            world.wait(*session, Change::CreateSession { timeout_ms: 1000, password: [1; 16] });
            None
        }
        Step::Reap(path) => world.reap(path).map(Ok),
        Step::Time(ms) => {
            world.now_ms += ms;
            None
        }
        Step::Write { .. } | Step::Close(_) | Step::Open(_) | Step::Flush => None,
    }
}

/// Applies what waits, and checks everything that is true of each transaction. `creations` is how many children each
/// znode has had, as far as events tell.
fn apply(world: &mut World, creations: &mut BTreeMap<String, i32>) {
    for txn in std::mem::take(&mut world.waiting) {
        let snapshot = world.tree.clone();
        let before = snapshot.clone();
        let applied = world.tree.apply(&txn);
        assert!(snapshot == before, "a clone does not change");
        let mut again = world.tree.clone();
        again.redo(&txn);
        assert_eq!(again, world.tree, "{txn:?} comes to the same when it is done twice");
        for event in applied.events {
            match event.kind {
                EventKind::Created => {
                    let parent = path::parent(&event.path).expect("the root is not created");
                    *creations.entry(parent.to_owned()).or_default() += 1;
                    creations.insert(event.path.to_string(), 0);
                }
                EventKind::Deleted => drop(creations.remove(&*event.path)),
                EventKind::DataChanged | EventKind::ChildrenChanged => {}
            }
        }
    }
    world.pending.forget(world.zxid);
    assert_eq!(world.pending, Pending::new());
}

fn check(tree: &Tree, creations: &BTreeMap<String, i32>) {
    tree.check_invariants();
    for (path, count) in creations {
        assert_eq!(tree.get(path).map(Node::creations), Some(*count), "{path}");
    }
    let subtree: Vec<_> = creations.keys().filter(|path| *path == "/a" || path.starts_with("/a/")).collect();
    let bytes: usize = subtree.iter().filter_map(|path| tree.get(path)).map(Node::data_len).sum();
    let stats = tree.get("/zookeeper/quota/a/zookeeper_stats").and_then(Node::data);
    assert_eq!(stats, Some(&Bytes::from(format!("count={},bytes={bytes}", subtree.len()))));

    let mut bytes = Vec::new();
    tree.encode(&mut bytes).expect("memory takes everything");
    assert_eq!(&Tree::decode(&mut bytes.as_slice()).expect("it is a tree"), tree);
}

proptest! {
    #[test]
    fn what_is_pending_counts_as_if_it_was_applied(steps in steps()) {
        let (mut eager, mut lazy) = (world(), world());
        let (mut open, mut open_too) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 3]));
        let mut creations = BTreeMap::new();
        for step in &steps {
            prop_assert_eq!(take(&mut eager, &mut open, step), take(&mut lazy, &mut open_too, step));
            apply(&mut eager, &mut creations);
            check(&eager.tree, &creations);
            if matches!(step, Step::Flush) {
                apply(&mut lazy, &mut BTreeMap::new());
                prop_assert_eq!(&eager.tree, &lazy.tree);
            }
        }
        apply(&mut lazy, &mut BTreeMap::new());
        prop_assert_eq!(eager.tree, lazy.tree);
    }
}
