//! One test for each rule. What Apache ZooKeeper answers to the same was tried with version 3.8.

use bytes::Bytes;

use super::{Caller, Pending, Rejected};
use crate::acl::digest;
use crate::path;
use crate::tree::Tree;
use crate::txn::{Applied, Change, Event, Outcome, Owner, Txn};
use crate::wire::{
    Acl, AskedAcl, Check, Create, CreateKind, Delete, ErrorCode, EventKind, Id, MultiOp, SetAcl, SetData,
    Stat, Write, permission,
};

/// A tree, and what is on its way to it.
pub(super) struct World {
    pub(super) tree: Tree,
    pub(super) pending: Pending,
    pub(super) waiting: Vec<Txn>,
    pub(super) zxid: i64,
    pub(super) now_ms: i64,
    pub(super) has_room: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let (tree, pending) = (Tree::new(), Pending::new());
        Self { tree, pending, waiting: Vec::new(), zxid: 0, now_ms: 1000, has_room: true }
    }

    /// Prepares, and leaves it waiting.
    pub(super) fn prepare(&mut self, session: i64, ids: &[Id], write: Write) -> Result<Change, Rejected> {
        let caller = Caller { session, ids, has_room: self.has_room };
        let change = self.pending.prepare(&self.tree, write, &caller, self.zxid + 1, self.now_ms)?;
        self.wait(session, change.clone());
        Ok(change)
    }

    pub(super) fn wait(&mut self, session: i64, change: Change) {
        self.zxid += 1;
        self.waiting.push(Txn { zxid: self.zxid, session, time_ms: self.now_ms, change });
    }

    /// Ends a session, and leaves that waiting.
    pub(super) fn close(&mut self, session: i64) -> Change {
        let mut changes = self.pending.close_session(&self.tree, session, self.zxid + 1);
        assert_eq!(changes.len(), 1, "there are not that many ephemerals");
        let change = changes.remove(0);
        self.wait(session, change.clone());
        change
    }

    pub(super) fn reap(&mut self, path: &str) -> Option<Change> {
        let change = self.pending.reap(&self.tree, path, self.zxid + 1, self.now_ms)?;
        self.wait(0, change.clone());
        Some(change)
    }

    /// Applies what waits.
    pub(super) fn flush(&mut self) -> Vec<Applied> {
        let applied = self.waiting.drain(..).map(|txn| self.tree.apply(&txn)).collect();
        self.pending.forget(self.zxid);
        assert_eq!(self.pending, Pending::new());
        applied
    }

    /// Prepares and applies.
    pub(super) fn ask(&mut self, write: Write) -> Result<Applied, ErrorCode> {
        self.ask_as(1, &[], write)
    }

    fn ask_as(&mut self, session: i64, ids: &[Id], write: Write) -> Result<Applied, ErrorCode> {
        self.prepare(session, ids, write).map_err(|rejected| rejected.code)?;
        Ok(self.flush().pop().expect("it was prepared"))
    }

    pub(super) fn create(&mut self, path: &str) -> Result<Applied, ErrorCode> {
        self.ask(Write::Create(create(path)))
    }

    fn stat(&self, path: &str) -> Stat {
        self.tree.get(path).expect("it is there").stat()
    }
}

pub(super) fn create(path: &str) -> Create {
    Create {
        path: path.to_owned(),
        data: Some(Bytes::from_static(b"data")),
        acl: AskedAcl::open(),
        kind: CreateKind::Persistent,
        sequential: false,
        with_stat: false,
    }
}

fn create_as(path: &str, kind: CreateKind) -> Write {
    Write::Create(Create { kind, ..create(path) })
}

pub(super) fn sequential(path: &str) -> Write {
    Write::Create(Create { sequential: true, ..create(path) })
}

pub(super) fn delete(path: &str, version: i32) -> Write {
    Write::Delete(Delete { path: path.to_owned(), version })
}

pub(super) fn set(path: &str, data: &'static [u8], version: i32) -> Write {
    Write::SetData(SetData { path: path.to_owned(), data: Some(Bytes::from_static(data)), version })
}

fn set_acl(path: &str, acl: Vec<AskedAcl>, version: i32) -> Write {
    Write::SetAcl(SetAcl { path: path.to_owned(), acl, version })
}

fn check(path: &str, version: i32) -> Write {
    Write::Multi(vec![MultiOp::Check(Check { path: path.to_owned(), version })])
}

pub(super) fn asked(permissions: i32, scheme: &str, id: &str) -> Vec<AskedAcl> {
    vec![Acl { permissions, id: Id::new(scheme, id) }.into()]
}

pub(super) fn event(kind: EventKind, path: &str) -> Event {
    Event { kind, path: path.into(), acl: Acl::open().into() }
}

#[test]
fn a_create_tells_its_path_and_stat_and_changes_its_parent() {
    let mut world = World::new();
    let stat =
        Stat { czxid: 1, mzxid: 1, ctime: 1000, mtime: 1000, data_length: 4, pzxid: 1, ..Stat::default() };
    assert_eq!(
        world.create("/a"),
        Ok(Applied {
            outcome: Outcome::Created { path: "/a".into(), stat },
            events: vec![event(EventKind::Created, "/a"), event(EventKind::ChildrenChanged, "/")],
        })
    );
    assert_eq!(world.stat("/a"), stat);
    // A new root shows -1: /zookeeper is its child, but was never created.
    assert_eq!(world.stat("/"), Stat { cversion: 0, num_children: 2, pzxid: 1, ..Stat::default() });
}

#[test]
fn cversion_counts_creations_and_deletions() {
    let mut world = World::new();
    for write in [
        create_as("/a", CreateKind::Persistent),
        sequential("/a/s-"),
        sequential("/a/s-"),
        delete("/a/s-0000000000", -1),
        sequential("/a/s-"),
        delete("/a/s-0000000002", 0),
    ] {
        world.ask(write).expect("it is valid");
    }
    let stat = world.stat("/a");
    assert_eq!((stat.cversion, stat.num_children, stat.pzxid), (5, 1, 6));
    assert_eq!(
        world.tree.get("/a").map(|node| node.children().collect::<Vec<_>>()),
        Some(vec!["s-0000000001"])
    );
}

#[test]
fn a_sequence_goes_on_below_zero_as_in_java() {
    let mut world = World::new();
    world.create("/a").expect("it is new");
    let created = |applied: Result<Applied, ErrorCode>| match applied.map(|applied| applied.outcome) {
        Ok(Outcome::Created { path, .. }) => path.to_string(),
        other => panic!("{other:?}"),
    };
    let change = Change::Create {
        path: "/a/x".into(),
        data: None,
        acl: Acl::open().into(),
        owner: Owner::Nobody,
        parent_creations: i32::MAX,
    };
    world.wait(1, change);
    world.flush();
    assert_eq!(created(world.ask(sequential("/a/"))), "/a/2147483647");
    assert_eq!(created(world.ask(sequential("/a/"))), "/a/-2147483648");
    assert_eq!(created(world.ask(sequential("/a/"))), "/a/-2147483647");
}

#[test]
fn a_create_is_checked_in_zookeepers_order() {
    let mut world = World::new();
    world.ask(create_as("/e", CreateKind::Ephemeral)).expect("it is new");
    let closed = Create { acl: asked(permission::READ, "world", "anyone"), ..create("/closed") };
    world.ask(Write::Create(closed)).expect("it is new");
    let invalid_acl = |path: &str| Write::Create(Create { acl: Vec::new(), ..create(path) });
    let cases = [
        (create_as("", CreateKind::Ttl(0)), ErrorCode::BadArguments),
        (create_as("/t", CreateKind::Ttl(-1)), ErrorCode::BadArguments),
        (create_as("/t", CreateKind::Ttl(0x100_0000_0000)), ErrorCode::BadArguments),
        (invalid_acl(""), ErrorCode::BadArguments),
        (invalid_acl("a"), ErrorCode::BadArguments),
        (invalid_acl("/no/a\0"), ErrorCode::BadArguments),
        (invalid_acl("/no/a"), ErrorCode::InvalidAcl),
        (invalid_acl("/closed/a"), ErrorCode::InvalidAcl),
        (sequential("/x/"), ErrorCode::NoNode),
        (create_as("a/b", CreateKind::Persistent), ErrorCode::NoNode),
        (create_as("/no/.", CreateKind::Persistent), ErrorCode::NoNode),
        (create_as("/e/", CreateKind::Persistent), ErrorCode::BadArguments),
        (create_as("//a", CreateKind::Persistent), ErrorCode::BadArguments),
        (sequential("//a"), ErrorCode::BadArguments),
        (create_as("/..", CreateKind::Persistent), ErrorCode::BadArguments),
        (create_as("/\u{1}", CreateKind::Persistent), ErrorCode::BadArguments),
        (create_as("/closed/.", CreateKind::Persistent), ErrorCode::NoAuth),
        (create_as("/closed/a", CreateKind::Persistent), ErrorCode::NoAuth),
        (create_as("/", CreateKind::Persistent), ErrorCode::NodeExists),
        (create_as("/zookeeper", CreateKind::Persistent), ErrorCode::NodeExists),
        (create_as("/e", CreateKind::Persistent), ErrorCode::NodeExists),
        (create_as("/e/a", CreateKind::Persistent), ErrorCode::NoChildrenForEphemerals),
        (create_as("/zookeeper/config/a", CreateKind::Persistent), ErrorCode::NoAuth),
    ];
    for (write, code) in cases {
        let before = world.tree.clone();
        assert_eq!(world.ask(write.clone()), Err(code), "{write:?}");
        assert_eq!((world.tree.clone(), world.pending.is_empty()), (before, true));
    }
}

#[test]
fn a_delete_is_checked_in_zookeepers_order() {
    let mut world = World::new();
    world.create("/a").expect("it is new");
    world.create("/a/b").expect("it is new");
    let cases = [
        ("", -1, ErrorCode::BadArguments),
        ("a", -1, ErrorCode::BadArguments),
        ("/a\0", -1, ErrorCode::BadArguments),
        ("/", -1, ErrorCode::BadArguments),
        (path::SYSTEM, -1, ErrorCode::BadArguments),
        (path::QUOTA, -1, ErrorCode::BadArguments),
        (path::CONFIG, -1, ErrorCode::BadArguments),
        ("/no/a", -1, ErrorCode::NoNode),
        ("/zookeeper/config/a", -1, ErrorCode::NoAuth),
        ("/no", -1, ErrorCode::NoNode),
        ("/a/", -1, ErrorCode::NoNode),
        ("//a", -1, ErrorCode::NoNode),
        ("/a", 1, ErrorCode::BadVersion),
        ("/a", 0, ErrorCode::NotEmpty),
    ];
    for (path, version, code) in cases {
        assert_eq!(world.ask(delete(path, version)), Err(code), "{path:?}");
    }
    let deleted = Applied {
        outcome: Outcome::Done,
        events: vec![event(EventKind::Deleted, "/a/b"), event(EventKind::ChildrenChanged, "/a")],
    };
    assert_eq!(world.ask(delete("/a/b", 0)), Ok(deleted));
    assert_eq!(world.ask(delete("/a/b", 0)), Err(ErrorCode::NoNode));
}

#[test]
fn data_is_set_if_the_version_is_right() {
    let mut world = World::new();
    world.create("/a").expect("it is new");
    world.now_ms = 2000;
    let stat = Stat {
        czxid: 1,
        mzxid: 2,
        ctime: 1000,
        mtime: 2000,
        version: 1,
        data_length: 2,
        pzxid: 1,
        ..Stat::default()
    };
    let applied = Applied { outcome: Outcome::Stat(stat), events: vec![event(EventKind::DataChanged, "/a")] };
    assert_eq!(world.ask(set("/a", b"xy", 0)), Ok(applied));
    assert_eq!(world.ask(set("/a", b"", 0)), Err(ErrorCode::BadVersion));
    assert_eq!(world.ask(set("/no", b"", 0)), Err(ErrorCode::NoNode));
    assert_eq!(world.ask(set("/a/", b"", 0)), Err(ErrorCode::BadArguments));
    assert_eq!(world.ask(set("", b"", 0)), Err(ErrorCode::BadArguments));
    assert_eq!(world.ask(set(path::CONFIG, b"", 9)), Err(ErrorCode::NoAuth));
    let null = SetData { path: "/a".to_owned(), data: None, version: -1 };
    world.ask(Write::SetData(null)).expect("it is there");
    assert_eq!(world.tree.get("/a").map(|node| node.data().cloned()), Some(None));
    assert_eq!(world.stat("/a").data_length, 0);
}

#[test]
fn a_version_is_never_any() {
    let mut world = World::new();
    world.create("/a").expect("it is new");
    world.wait(1, Change::SetData { path: "/a".into(), data: None, version: -2 });
    world.flush();
    world.ask(set("/a", b"", -2)).expect("the version is right");
    assert_eq!(world.stat("/a").version, 0);
}

#[test]
fn an_acl_is_set_by_those_who_may() {
    let mut world = World::new();
    let me = [Id::new("ip", "10.0.0.1"), Id::new("digest", digest("u:p"))];
    world.create("/a").expect("it is new");
    let cases = [
        (set_acl("", Vec::new(), -1), ErrorCode::BadArguments),
        (set_acl("/no", Vec::new(), -1), ErrorCode::InvalidAcl),
        (set_acl("/a", asked(31, "auth", ""), -1), ErrorCode::InvalidAcl),
        (set_acl("/no", AskedAcl::open(), -1), ErrorCode::NoNode),
        (set_acl(path::CONFIG, AskedAcl::open(), 7), ErrorCode::NoAuth),
        (set_acl("/a", AskedAcl::open(), 1), ErrorCode::BadVersion),
    ];
    for (write, code) in cases {
        assert_eq!(world.ask(write.clone()), Err(code), "{write:?}");
    }
    let stat = Stat { aversion: 1, ..world.stat("/a") };
    let applied = Applied { outcome: Outcome::Stat(stat), events: Vec::new() };
    assert_eq!(world.ask_as(1, &me, set_acl("/a", asked(31, "auth", ""), 0)), Ok(applied));
    assert_eq!(
        world.tree.get("/a").map(crate::tree::Node::acl),
        Some(&[Acl { permissions: 31, id: Id::new("digest", digest("u:p")) }][..])
    );

    for write in [
        set("/a", b"", -1),
        create_as("/a/b", CreateKind::Persistent),
        delete("/a/b", -1),
        check("/a", -1),
        set_acl("/a", AskedAcl::open(), -1),
    ] {
        assert_eq!(world.ask(write.clone()), Err(ErrorCode::NoAuth), "{write:?}");
    }
    let boss = [Id::new("super", "")];
    world
        .ask_as(1, &boss, set_acl("/a", asked(permission::DELETE, "world", "anyone"), 1))
        .expect("super may");
    world.ask_as(1, &boss, create_as("/a/b", CreateKind::Persistent)).expect("super may");
    // The parent's ACL decides, not the znode's own.
    world.ask(delete("/a/b", -1)).expect("the parent permits it");
    world.ask(delete("/a", -1)).expect("the root permits it");
}

#[test]
fn a_pending_acl_counts_already() {
    let mut world = World::new();
    world.create("/a").expect("it is new");
    world.prepare(1, &[], set_acl("/a", asked(1, "world", "anyone"), 0)).expect("it is permitted");
    let code = world.prepare(1, &[], set("/a", b"", -1)).map_err(|rejected| rejected.code);
    assert_eq!(code, Err(ErrorCode::NoAuth));
}

#[test]
fn a_check_needs_the_version_and_to_be_permitted() {
    let mut world = World::new();
    world.create("/a").expect("it is new");
    let checked = Applied { outcome: Outcome::Multi(vec![Outcome::Done]), events: Vec::new() };
    assert_eq!(world.ask(check("/a", 0)), Ok(checked));
    assert_eq!(world.ask(check("/a", 1)), Err(ErrorCode::BadVersion));
    assert_eq!(world.ask(check("/b", 0)), Err(ErrorCode::NoNode));
    assert_eq!(world.ask(check("b", 0)), Err(ErrorCode::BadArguments));
    assert_eq!(world.tree.last_zxid(), 2);
}

#[test]
fn without_room_what_makes_the_data_larger_fails_and_the_rest_goes_on() {
    let mut world = World::new();
    for path in ["/a", "/a/b", "/c"] {
        world.create(path).expect("it is new");
    }
    world.has_room = false;
    for write in [
        create_as("/d", CreateKind::Persistent),
        create_as("/d", CreateKind::Ephemeral),
        sequential("/a/s-"),
        set("/a", b"", -1),
        set_acl("/a", AskedAcl::open(), -1),
    ] {
        assert_eq!(world.ask(write.clone()), Err(ErrorCode::SystemError), "{write:?}");
    }
    // What is wrong anyway is told as always.
    assert_eq!(world.create("/a"), Err(ErrorCode::NodeExists));
    assert_eq!(world.create("/no/a"), Err(ErrorCode::NoNode));
    assert_eq!(world.ask(set("/a", b"", 7)), Err(ErrorCode::BadVersion));
    let ops = |last| vec![MultiOp::Delete(Delete { path: "/a/b".to_owned(), version: 0 }), last];
    let rejected = Rejected { code: ErrorCode::SystemError, results: vec![0, -1] };
    assert_eq!(world.prepare(1, &[], Write::Multi(ops(MultiOp::Create(create("/d"))))), Err(rejected));

    world.ask(check("/a", 0)).expect("nothing changes");
    let shrinking = ops(MultiOp::Check(Check { path: "/a".to_owned(), version: 0 }));
    world.ask(Write::Multi(shrinking)).expect("it becomes less");
    world.ask(delete("/a", -1)).expect("it becomes less");
    world.close(1);
    world.flush();
    world.has_room = true;
    world.ask_as(2, &[], create_as("/a", CreateKind::Persistent)).expect("there is room");
}
