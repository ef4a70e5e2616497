//! `multi`: all of its operations, or none.

use bytes::Bytes;

use super::Rejected;
use super::tests::{World, create, event, sequential, set};
use crate::acl;
use crate::storage::Options;
use crate::txn::{Applied, Change, Outcome, Txn};
use crate::wire::{
    AskedAcl, Check, Create, CreateKind, Delete, ErrorCode, EventKind, Id, MAX_PACKET, MultiOp, SetData,
    Stat, Write,
};

#[test]
fn a_failed_multi_leaves_nothing_and_tells_of_each_operation() {
    let mut world = World::new();
    world.create("/a").expect("it is new");
    // Something is pending on every path that the multi touches.
    world.prepare(1, &[], set("/a", b"1", 0)).expect("it is valid");
    world.prepare(1, &[], sequential("/a/s-")).expect("it is valid");
    let before = world.pending.clone();
    let ops = vec![
        MultiOp::Create(Create { sequential: true, ..create("/a/s-") }),
        MultiOp::Delete(Delete { path: "/a/s-0000000000".to_owned(), version: 0 }),
        MultiOp::SetData(SetData { path: "/a".to_owned(), data: None, version: 0 }),
        MultiOp::Check(Check { path: "/a".to_owned(), version: 0 }),
        MultiOp::Create(create("/b")),
    ];
    let rejected = Rejected { code: ErrorCode::BadVersion, results: vec![0, 0, -103, -2, -2] };
    assert_eq!(world.prepare(1, &[], Write::Multi(ops)), Err(rejected));
    assert_eq!(world.pending, before);
    let Ok(Change::Create { path, .. }) = world.prepare(1, &[], sequential("/a/s-")) else {
        panic!("it is valid")
    };
    assert_eq!(&*path, "/a/s-0000000001");
}

#[test]
fn the_operations_of_a_multi_see_each_other() {
    let mut world = World::new();
    let ops = vec![
        MultiOp::Create(create("/a")),
        MultiOp::Create(Create { kind: CreateKind::Ephemeral, ..create("/a/b") }),
        MultiOp::SetData(SetData { path: "/a".to_owned(), data: None, version: 0 }),
        MultiOp::Check(Check { path: "/a".to_owned(), version: 1 }),
        MultiOp::Delete(Delete { path: "/a/b".to_owned(), version: 0 }),
    ];
    let applied = world.ask(Write::Multi(ops)).expect("each is valid after those before it");
    let new =
        Stat { czxid: 1, mzxid: 1, ctime: 1000, mtime: 1000, data_length: 4, pzxid: 1, ..Stat::default() };
    let created = |path: &str, stat| Outcome::Created { path: path.into(), stat };
    assert_eq!(
        applied,
        Applied {
            outcome: Outcome::Multi(vec![
                created("/a", new),
                created("/a/b", Stat { ephemeral_owner: 1, ..new }),
                Outcome::Stat(Stat { version: 1, data_length: 0, cversion: 1, num_children: 1, ..new }),
                Outcome::Done,
                Outcome::Done,
            ]),
            events: vec![
                event(EventKind::Created, "/a"),
                event(EventKind::ChildrenChanged, "/"),
                event(EventKind::Created, "/a/b"),
                event(EventKind::ChildrenChanged, "/a"),
                event(EventKind::DataChanged, "/a"),
                event(EventKind::Deleted, "/a/b"),
                event(EventKind::ChildrenChanged, "/a"),
            ],
        }
    );
    assert_eq!(
        world.ask(Write::Multi(Vec::new())).map(|applied| applied.outcome),
        Ok(Outcome::Multi(Vec::new()))
    );
}

/// What the log takes in one piece, and a little less.
fn largest() -> usize {
    usize::try_from(Options::default().segment_bytes).expect("it fits memory") - (64 << 10)
}

fn logged_bytes(session: i64, change: Change) -> usize {
    postcard::to_allocvec(&Txn { zxid: i64::MAX, session, time_ms: i64::MAX, change })
        .expect("it encodes")
        .len()
}

#[test]
fn the_largest_requests_fit_into_one_file_of_the_log() {
    let packet = MAX_PACKET as usize;
    // As many identities as a client can have, as long as they can be.
    let ids: Vec<_> = (0..64).map(|i| Id::new("digest", format!("{i:0>250}:"))).collect();
    let auth = |permissions| AskedAcl { permissions, scheme: Some("auth".to_owned()), id: None };
    let mut world = World::new();
    let data = |length: usize| Some(Bytes::from(vec![b'x'; length]));
    let most = (1..)
        .take_while(|n| acl::fix(&(0..*n).map(auth).collect::<Vec<_>>(), &ids).is_ok())
        .last()
        .expect("one");
    let acl: Vec<_> = (0..most).map(auth).collect();
    let single = Create { data: data(packet - 2_000), acl: acl.clone(), ..create("/a") };
    let change = world.prepare(i64::MAX, &ids, Write::Create(single)).expect("it is valid");
    let bytes = logged_bytes(i64::MAX, change);
    assert!(bytes > 19 << 16 && bytes < largest(), "{bytes}");

    let both = vec![
        MultiOp::SetData(SetData { path: "/a".to_owned(), data: data(packet - 3_000), version: -1 }),
        MultiOp::Create(Create { acl, ..create("/b") }),
    ];
    let change = world.prepare(i64::MAX, &ids, Write::Multi(both)).expect("it is valid");
    let bytes = logged_bytes(i64::MAX, change);
    assert!(bytes > 19 << 16 && bytes < largest(), "{bytes}");

    // Lists that become long, until they are refused, beside data.
    let set = SetData { path: "/a".to_owned(), data: data(packet - 30_000), version: -1 };
    let long = Create { acl: vec![auth(31)], sequential: true, ..create("/b-") };
    for count in (20..400).step_by(20) {
        let mut many = vec![MultiOp::Create(long.clone()); count];
        many.push(MultiOp::SetData(set.clone()));
        let bytes = world.prepare(1, &ids, Write::Multi(many)).map_or(0, |change| logged_bytes(1, change));
        assert!(bytes < largest(), "{bytes}");
    }

    // Very many small operations, which become longer by what they are given.
    let id = [Id::new("digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=")];
    let small = Create {
        data: None,
        acl: vec![auth(31)],
        kind: CreateKind::Ephemeral,
        sequential: true,
        ..create("/")
    };
    let many = vec![MultiOp::Create(small); 21_000];
    let change = world.prepare(i64::MAX, &id, Write::Multi(many)).expect("it is valid");
    let bytes = logged_bytes(i64::MAX, change);
    assert!(bytes > 1 << 20 && bytes < largest(), "{bytes}");

    // The end of their session.
    for change in world.pending.close_session(&world.tree, i64::MAX, i64::MAX - 100) {
        let bytes = logged_bytes(i64::MAX, change);
        assert!(bytes < largest(), "{bytes}");
    }
}
