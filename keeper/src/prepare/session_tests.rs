//! What the server itself changes: sessions that end, and znodes that nobody needs.

use std::sync::Arc;

use super::tests::{World, create};
use crate::txn::{Change, Owner};
use crate::wire::{Create, CreateKind, Delete, ErrorCode, SetData, Write};

fn create_as(path: &str, kind: CreateKind) -> Write {
    Write::Create(Create { kind, ..create(path) })
}

fn delete(path: &str) -> Write {
    Write::Delete(Delete { path: path.to_owned(), version: -1 })
}

#[test]
fn a_session_takes_its_ephemerals_with_it_pending_or_not() {
    let mut world = World::new();
    for (session, path) in [(1, "/kept"), (1, "/deleted"), (1, "/again"), (2, "/other"), (2, "/taken")] {
        world.prepare(session, &[], create_as(path, CreateKind::Ephemeral)).expect("it is new");
    }
    world.flush();
    for (session, write) in [
        (2, delete("/deleted")),
        (1, delete("/again")),
        (1, create_as("/again", CreateKind::Ephemeral)),
        (2, delete("/taken")),
        (1, create_as("/taken", CreateKind::Ephemeral)),
        (1, create_as("/new", CreateKind::Ephemeral)),
        (1, create_as("/gone", CreateKind::Ephemeral)),
        (1, delete("/gone")),
        (1, create_as("/lasting", CreateKind::Persistent)),
    ] {
        world.prepare(session, &[], write).expect("it is valid");
    }
    let Change::CloseSession { mut ephemerals } = world.close(1) else { panic!("a session ends") };
    ephemerals.sort();
    assert_eq!(ephemerals, ["/again", "/kept", "/new", "/taken"].map(Arc::from));

    // From then on it is over, and what was its own can be created by others.
    let late = world.prepare(1, &[], create_as("/late", CreateKind::Ephemeral));
    assert_eq!(late.map_err(|rejected| rejected.code), Err(ErrorCode::SessionExpired));
    world.prepare(2, &[], create_as("/kept", CreateKind::Ephemeral)).expect("it is free");
    world.flush();
    assert_eq!(world.tree.ephemerals_of(1).count(), 0);
    assert_eq!(world.tree.ephemerals_of(2).collect::<Vec<_>>(), ["/kept", "/other"]);
    assert_eq!(world.tree.ephemerals_len(), 2);
    let children: Vec<_> = world.tree.get("/").into_iter().flat_map(|root| root.children()).collect();
    assert_eq!(children, ["kept", "lasting", "other", "zookeeper"]);
}

#[test]
fn a_parent_is_empty_once_the_session_of_its_children_ends() {
    let mut world = World::new();
    world.prepare(1, &[], create_as("/a", CreateKind::Persistent)).expect("it is new");
    world.prepare(1, &[], create_as("/a/b", CreateKind::Ephemeral)).expect("it is new");
    world.close(1);
    world.prepare(2, &[], delete("/a")).expect("it is empty by then");
    world.flush();
    assert!(world.tree.get("/a").is_none());
}

/// The expected order is what a client of Apache ZooKeeper 3.8 was told that watched all of these znodes.
#[test]
fn ephemerals_are_deleted_in_the_order_of_zookeeper() {
    let orders: [&[usize]; 4] = [
        &[1, 2, 4, 3, 0],
        &[3, 5, 7, 4, 2, 1, 10, 0, 9, 11, 8, 6],
        &[2, 3, 12, 5, 8, 0, 11, 7, 9, 10, 4, 6, 1],
        &[
            14, 19, 12, 9, 15, 26, 13, 22, 18, 28, 3, 4, 24, 5, 1, 21, 20, 16, 27, 0, 11, 10, 6, 25, 2, 7,
            29, 8, 23, 17,
        ],
    ];
    for order in orders {
        let count = order.len();
        let name = |index: usize| {
            let letter = char::from(b"abcdefghijklmnopqrstuvwxyz"[index * 7 % 26]).to_string();
            format!("/o-{count}-{}{index}", letter.repeat(1 + index % 3))
        };
        let expected: Vec<Arc<str>> = order.iter().map(|index| name(*index).into()).collect();
        let mut world = World::new();
        for index in 0..count {
            world.prepare(1, &[], create_as(&name(index), CreateKind::Ephemeral)).expect("it is new");
        }
        world.flush();
        assert_eq!(world.close(1), Change::CloseSession { ephemerals: expected });
    }
}

#[test]
fn a_container_goes_after_its_last_child() {
    let mut world = World::new();
    world.prepare(1, &[], create_as("/c", CreateKind::Container)).expect("it is new");
    world.flush();
    assert_eq!(world.tree.get("/c").map(|node| node.stat().ephemeral_owner), Some(0));
    assert_eq!((world.tree.idle(i64::MAX, 9), world.reap("/c")), (vec![], None), "it never had a child");
    world.prepare(1, &[], create_as("/c/a", CreateKind::Persistent)).expect("it is new");
    world.flush();
    assert_eq!((world.tree.idle(i64::MAX, 9), world.reap("/c")), (vec![], None), "it has a child");
    world.prepare(1, &[], delete("/c/a")).expect("it is there");
    world.flush();
    assert_eq!(world.tree.idle(0, 9), ["/c"]);
    // Another child, and it is needed again.
    world.prepare(1, &[], create_as("/c/a", CreateKind::Persistent)).expect("it is free");
    world.flush();
    assert_eq!((world.tree.idle(i64::MAX, 9), world.reap("/c")), (vec![], None));
    world.prepare(1, &[], delete("/c/a")).expect("it is there");
    world.flush();
    assert_eq!(world.tree.idle(0, 9), ["/c"]);
    // A child that is pending keeps it.
    world.prepare(1, &[], create_as("/c/b", CreateKind::Persistent)).expect("it is new");
    assert_eq!(world.reap("/c"), None);
    world.prepare(1, &[], delete("/c/b")).expect("it is there");
    assert_eq!(world.reap("/c"), Some(Change::Delete { path: "/c".into() }));
    assert_eq!(world.reap("/c"), None, "it is gone by then");
    world.flush();
    assert_eq!(world.tree.idle(0, 9), [""; 0]);
}

#[test]
fn a_ttl_znode_goes_when_nobody_has_set_it_for_long() {
    let mut world = World::new();
    world.prepare(1, &[], create_as("/t", CreateKind::Ttl(100))).expect("it is new");
    world.prepare(1, &[], create_as("/u", CreateKind::Ttl(0xff_ffff_ffff))).expect("it is new");
    world.flush();
    let node = world.tree.get("/t").expect("it is there");
    assert_eq!((node.owner(), node.stat().ephemeral_owner), (Owner::Ttl(100), 0));
    assert_eq!(world.tree.idle(1100, 9), [""; 0], "not longer than that");
    assert_eq!(world.tree.idle(1101, 9), ["/t"]);
    assert_eq!(world.tree.idle(1101, 0), [""; 0]);

    world.now_ms = 1101;
    let set = SetData { path: "/t".to_owned(), data: None, version: -1 };
    world.prepare(1, &[], Write::SetData(set)).expect("it is there");
    assert_eq!(world.reap("/t"), None, "it is about to be set");
    world.flush();
    assert_eq!(world.tree.idle(1201, 9), [""; 0]);

    world.now_ms = 1202;
    world.prepare(1, &[], create_as("/t/a", CreateKind::Persistent)).expect("it may have children");
    world.flush();
    assert_eq!((world.tree.idle(1202, 9), world.reap("/t")), (vec![], None), "it has a child");
    world.prepare(1, &[], delete("/t/a")).expect("it is there");
    world.flush();
    assert_eq!(world.tree.idle(1202, 9), ["/t"]);
    assert_eq!(world.reap("/t"), Some(Change::Delete { path: "/t".into() }));
    assert_eq!(world.reap("/zookeeper"), None);
    world.flush();
    assert_eq!(world.tree.len(), 5);
}
