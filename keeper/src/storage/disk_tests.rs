//! The disk: what is durable before what, what cannot be read, and what there is no room for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorumkv_wal::Operation;

use super::tests::{Server, open, open_with, refused, small, snapshot_file, snapshots};
use super::{Faults, OpenError, Options, snapshot};
use crate::tree::Tree;
use crate::txn::{Change, Txn};

/// What was done to the disk, apart from the log's own files.
#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<(Operation, PathBuf)>>>);

impl Story {
    fn options(&self) -> Options {
        let story = self.clone();
        let hook = move |operation, path: &Path| {
            if !path.components().any(|part| part.as_os_str() == "log") {
                story.0.lock().expect("nobody panics").push((operation, path.to_owned()));
            }
            Ok(())
        };
        Options { faults: Faults { hook: Some(Arc::new(hook)), ..Faults::default() }, ..small() }
    }

    /// What was done since this was last asked.
    fn take(&self) -> Vec<(Operation, PathBuf)> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics"))
    }
}

#[test]
fn the_names_of_all_new_directories_are_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let story = Story::default();
    let data = dir.path().join("some").join("where");
    drop(open_with(&data, story.options()).expect("opened"));
    let synced = |path: &Path| (Operation::SyncDirectory, path.to_owned());
    let new = data.join("format.new");
    let expected = [
        synced(dir.path()),
        synced(&dir.path().join("some")),
        (Operation::Create, new.clone()),
        (Operation::Sync, new.clone()),
        (Operation::Rename, new),
        synced(&data),
        // With the directory of snapshots in it, and with that of the log.
        synced(&data),
        synced(&data),
    ];
    assert_eq!(story.take(), expected);
    drop(open_with(&data, story.options()).expect("opened"));
    assert_eq!(story.take(), [], "everything was there");
}

#[test]
fn a_snapshot_gets_its_name_when_it_is_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let story = Story::default();
    let mut server = open_with(dir.path(), story.options()).expect("opened");
    server.write_to(10);
    story.take();
    server.snapshot();
    let (at, new) =
        (dir.path().join("snapshots"), snapshot_file(&dir, 10).with_extension("000000000000000a.new"));
    let expected = [
        (Operation::Create, new.clone()),
        (Operation::Sync, new.clone()),
        (Operation::Rename, new),
        (Operation::SyncDirectory, at),
    ];
    assert_eq!(story.take(), expected);
}

#[test]
fn a_snapshot_whose_name_cannot_be_made_durable_does_not_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let hook = |operation, path: &Path| {
        let fails = operation == Operation::SyncDirectory && path.ends_with("snapshots");
        if fails { Err(io::Error::other("out of order")) } else { Ok(()) }
    };
    let faults = Faults { hook: Some(Arc::new(hook)), ..Faults::default() };
    let mut server = open_with(dir.path(), Options { faults, ..small() }).expect("opened");
    for zxid in [300, 600, 900] {
        server.write_to(zxid);
        server.try_snapshot();
    }
    assert_eq!(server.storage.journal.first(), 1, "the log was trimmed");
}

#[test]
fn a_damaged_snapshot_is_set_aside_durably() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(10);
    server.snapshot();
    drop(server);
    let newest = snapshot_file(&dir, 10);
    fs::write(&newest, "").expect("written");
    let story = Story::default();
    open_with(dir.path(), story.options()).expect("opened").assert_holds(10);
    let expected = [(Operation::Rename, newest), (Operation::SyncDirectory, dir.path().join("snapshots"))];
    assert_eq!(story.take(), expected);
}

#[test]
fn a_snapshot_that_cannot_be_read_refuses_the_start_and_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    for zxid in [100, 200] {
        server.write_to(zxid);
        server.snapshot();
    }
    drop(server);
    // Opening a directory works, and reading it does not.
    let (newest, elsewhere) = (snapshot_file(&dir, 200), dir.path().join("lost+found"));
    fs::rename(&newest, &elsewhere).expect("moved");
    fs::create_dir(&newest).expect("made");
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Unreadable(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("cannot read the snapshot") && text.contains("snapshot.00000000000000c8"),
        "{text}"
    );
    assert!(!text.contains('\n') && text.contains("move the file away"), "{text}");
    assert_eq!(snapshots(&dir), [100, 200].map(|zxid: i64| format!("snapshot.{zxid:016x}")));
    // It passes.
    fs::remove_dir(&newest).expect("removed");
    fs::rename(&elsewhere, &newest).expect("moved");
    open(dir.path()).assert_holds(200);
    // What the message says.
    fs::remove_file(&newest).expect("removed");
    open(dir.path()).assert_holds(200);
}

/// Storage on a disk with so many bytes free.
fn on_disk(dir: &Path, free: u64) -> (Server, Arc<AtomicU64>) {
    let free = Arc::new(AtomicU64::new(free));
    let faults = Faults { free_bytes: Some(Arc::clone(&free)), ..Faults::default() };
    (open_with(dir, Options { min_free_bytes: 1 << 20, faults, ..small() }).expect("opened"), free)
}

impl Server {
    /// Deletes the oldest znodes up to this zxid.
    pub(super) fn delete_to(&mut self, zxid: i64) {
        let deleted = self.tree.last_zxid() - (i64::try_from(self.tree.len()).expect("few") - 4);
        let delete = |(number, zxid): (i64, i64)| {
            let path = format!("/node-{}", deleted / 2 + number).into();
            Arc::new(Txn { zxid, session: 7, time_ms: 1_000, change: Change::Delete { path } })
        };
        self.log((1..).zip(self.tree.last_zxid() + 1..=zxid).map(delete).collect());
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_disk_that_is_nearly_full_is_noticed_and_so_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, free) = on_disk(dir.path(), 1 << 20);
    assert!(!server.storage.is_nearly_full());
    free.store((1 << 20) - 1, Ordering::Relaxed);
    wait_until("it fills up", || server.storage.is_nearly_full());
    free.store(1 << 20, Ordering::Relaxed);
    wait_until("there is room again", || !server.storage.is_nearly_full());
    drop(server);
    let (server, _) = on_disk(dir.path(), 0);
    assert!(server.storage.is_nearly_full(), "from the first moment");
}

#[test]
fn a_snapshot_leaves_room_for_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut server, free) = on_disk(dir.path(), 512 << 10);
    server.write_to(10);
    free.store((512 << 10) - 1, Ordering::Relaxed);
    server.try_snapshot();
    assert_eq!(snapshots(&dir), Vec::<String>::new(), "nothing is left of it");
    free.store(512 << 10, Ordering::Relaxed);
    server.write_to(20);
    server.try_snapshot();
    assert_eq!(snapshots(&dir).len(), 1);
}

#[test]
fn a_long_snapshot_is_given_up_before_it_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut tree = Tree::new();
    let data = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    for zxid in 1..=40 {
        let change = Change::Create {
            path: format!("/{zxid}").into(),
            data: Some(data.clone()),
            acl: crate::wire::Acl::open().into(),
            owner: crate::txn::Owner::Nobody,
            parent_creations: 1,
        };
        tree.apply(&Txn { zxid, session: 0, time_ms: 0, change });
    }
    let syncs = Arc::new(AtomicU64::new(0));
    let free = Arc::new(AtomicU64::new(10));
    let (count, free_after) = (Arc::clone(&syncs), Arc::clone(&free));
    let hook = move |operation, _: &Path| {
        if operation == Operation::Sync && count.fetch_add(1, Ordering::Relaxed) == 1 {
            free_after.store(9, Ordering::Relaxed);
        }
        Ok(())
    };
    let faults = Faults { hook: Some(Arc::new(hook)), free_bytes: Some(free) };
    let error = snapshot::write(dir.path(), &tree, &faults, 10).expect_err("given up").to_string();
    assert!(error.contains("the disk is nearly full"), "{error}");
    assert_eq!(syncs.load(Ordering::Relaxed), 2, "40 MB are five parts");
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0);
}

#[test]
fn without_room_snapshots_are_made_for_what_they_free_and_not_for_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut server, free) = on_disk(dir.path(), 600 << 10);
    let snapshot = |server: &mut Server| {
        server.storage.maybe_snapshot(&server.tree);
        let freed = server.storage.snapshots.wait();
        freed.into_iter().for_each(|zxid| server.storage.journal.trim(zxid));
        snapshots(&dir).len()
    };
    server.write_to(1000);
    assert_eq!(snapshot(&mut server), 0, "the log holds little that is not needed");
    server.delete_to(1990);
    // There must be room for it.
    free.store(512 << 10, Ordering::Relaxed);
    wait_until("it is looked at", || server.storage.room.shortage() == Some(512 << 10));
    assert_eq!(snapshot(&mut server), 0);
    free.store(600 << 10, Ordering::Relaxed);
    wait_until("it is looked at", || server.storage.room.shortage() == Some(600 << 10));
    // One that comes to nothing is tried again.
    let at = dir.path().join("snapshots");
    fs::remove_dir(&at).expect("removed");
    server.storage.maybe_snapshot(&server.tree);
    assert_eq!(server.storage.snapshots.wait(), None);
    fs::create_dir(&at).expect("made");
    server.delete_to(1991);
    wait_until("it is tried again", || snapshot(&mut server) == 1);
    assert_eq!(server.storage.journal.first(), 1);
    assert_eq!(snapshot(&mut server), 1, "nothing has happened since");
    server.delete_to(1992);
    assert_eq!(snapshot(&mut server), 2);
    let first = server.storage.journal.first();
    assert!(first > 1500, "the log begins at {first}");
    for zxid in 1993..1999 {
        server.delete_to(zxid);
        assert_eq!(snapshot(&mut server), 2);
        assert_eq!(server.storage.snapshots.kept()[1].zxid, 1992, "there is nothing to be freed");
    }
    drop(server);
    let server = open(dir.path());
    assert_eq!((server.tree.last_zxid(), server.tree.len()), (1998, 4 + 2));
}
