use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use quorumkv_wal as wal;
use tempfile::TempDir;

use super::{DirectoryError, Faults, OpenError, Options, Storage, snapshot};
use crate::tree::Tree;
use crate::txn::{Change, Owner, Txn};
use crate::wire::Acl;

/// Storage with a tree that everything durable is applied to, as the server does.
pub(super) struct Server {
    pub(super) storage: Storage,
    pub(super) tree: Tree,
    durable: Receiver<i64>,
    failures: Receiver<String>,
}

/// Small files, and snapshots only when a test asks for them.
pub(super) fn small() -> Options {
    Options {
        snapshot_txns: u64::MAX,
        snapshot_bytes: u64::MAX,
        segment_bytes: 16 << 10,
        min_free_bytes: 0,
        faults: Faults::default(),
    }
}

pub(super) fn open_with(dir: &Path, options: Options) -> Result<Server, OpenError> {
    let (to_durable, durable) = sync_channel(1024);
    let (to_failures, failures) = sync_channel(1024);
    // Who has seen enough may be gone.
    let on_durable = move |zxid| {
        let _ = to_durable.send(zxid);
    };
    let on_failure = move |reason| {
        let _ = to_failures.send(reason);
    };
    let (storage, tree) = Storage::open(dir, options, on_durable, on_failure)?;
    Ok(Server { storage, tree, durable, failures })
}

pub(super) fn open(dir: &Path) -> Server {
    open_with(dir, small()).expect("opened")
}

pub(super) fn refused(dir: &Path) -> OpenError {
    match open_with(dir, small()) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

fn create(zxid: i64) -> Arc<Txn> {
    Arc::new(Txn {
        zxid,
        session: 7,
        time_ms: 1_000 + zxid,
        change: Change::Create {
            path: format!("/node-{zxid}").into(),
            data: Some(Bytes::from(vec![b'x'; 200])),
            acl: Acl::open().into(),
            owner: Owner::Nobody,
            parent_creations: i32::try_from(zxid).expect("few"),
        },
    })
}

impl Server {
    /// Creates znodes up to this zxid and waits until they are durable.
    pub(super) fn write_to(&mut self, zxid: i64) {
        self.log((self.tree.last_zxid() + 1..=zxid).map(create).collect());
    }

    pub(super) fn log(&mut self, txns: Vec<Arc<Txn>>) {
        let last = txns.last().expect("there are some").zxid;
        for batch in txns.chunks(7) {
            self.storage.append(batch);
        }
        while self.durable.recv().expect("the log runs") < last {}
        for txn in txns {
            self.tree.apply(&txn);
        }
    }

    /// Makes a snapshot, if that is possible, and trims.
    pub(super) fn try_snapshot(&mut self) {
        self.storage.snapshots.logged(1 << 40);
        let eager = Options { snapshot_txns: 1, ..self.storage.options.clone() };
        self.storage.snapshots.maybe_begin(&self.tree, &eager, None);
        if let Some(dispensable) = self.storage.snapshots.wait() {
            self.storage.journal.trim(dispensable);
        }
    }

    /// Makes a snapshot, and trims.
    pub(super) fn snapshot(&mut self) {
        self.try_snapshot();
        assert_eq!(self.storage.snapshots.kept().last().map(|kept| kept.zxid), Some(self.tree.last_zxid()));
    }

    pub(super) fn assert_holds(&self, zxid: i64) {
        assert_eq!(self.tree.last_zxid(), zxid);
        for created in 1..=zxid {
            assert!(self.tree.get(&format!("/node-{created}")).is_some(), "znode {created} is lost");
        }
        assert!(self.tree.get(&format!("/node-{}", zxid + 1)).is_none(), "there is more than was written");
    }
}

pub(super) fn snapshots(dir: &TempDir) -> Vec<String> {
    let files = fs::read_dir(dir.path().join("snapshots")).expect("listed");
    let mut names: Vec<_> =
        files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(super) fn snapshot_file(dir: &TempDir, zxid: i64) -> PathBuf {
    snapshot::path(&dir.path().join("snapshots"), zxid)
}

pub(super) fn flip_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 0x20;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_restart_brings_back_what_was_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.assert_holds(0);
    server.write_to(50);
    // The process ends without a word.
    drop(server);
    let mut server = open(dir.path());
    server.assert_holds(50);
    server.snapshot();
    server.write_to(120);
    server.storage.close();
    let server = open(dir.path());
    server.assert_holds(120);
}

#[test]
fn however_many_transactions_follow_the_snapshot_all_are_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(10);
    server.snapshot();
    for zxid in 11..30 {
        server.write_to(zxid);
        drop(server);
        server = open(dir.path());
        server.assert_holds(zxid);
    }
}

#[test]
fn a_stop_in_good_order_writes_what_was_only_queued() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    for zxid in 1..=5_000 {
        server.storage.append(&[create(zxid)]);
    }
    let Server { storage, durable, .. } = server;
    // Nobody must wait for somebody who does not listen.
    drop(durable);
    storage.close();
    open(dir.path()).assert_holds(5_000);
}

#[test]
fn the_two_newest_snapshots_are_kept_and_the_log_from_the_older_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    for zxid in [100, 200, 300, 400] {
        server.write_to(zxid);
        server.snapshot();
    }
    let expected = [300, 400].map(|zxid: i64| format!("snapshot.{zxid:016x}"));
    assert_eq!(snapshots(&dir), expected);
    let first = server.storage.journal.first();
    assert!((102..=301).contains(&first), "the log begins at {first}");
    drop(server);
    open(dir.path()).assert_holds(400);
}

#[test]
fn one_snapshot_alone_does_not_shorten_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(300);
    server.snapshot();
    assert_eq!(server.storage.journal.first(), 1);
    drop(server);
    flip_byte(&snapshot_file(&dir, 300), 1_000);
    open(dir.path()).assert_holds(300);
}

#[test]
fn an_end_between_a_snapshot_and_its_trim_does_no_harm() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(150);
    server.snapshot();
    server.write_to(310);
    // It is written, and nobody has been told.
    snapshot::write(&dir.path().join("snapshots"), &server.tree, &Faults::default(), 0).expect("written");
    server.write_to(320);
    drop(server);
    let mut server = open(dir.path());
    server.assert_holds(320);
    server.write_to(400);
    server.snapshot();
    assert_eq!(snapshots(&dir), [310, 400].map(|zxid: i64| format!("snapshot.{zxid:016x}")));
}

#[test]
fn an_unfinished_snapshot_is_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(10);
    drop(server);
    let unfinished = dir.path().join("snapshots").join("snapshot.000000000000000a.new");
    fs::write(&unfinished, "half").expect("written");
    open(dir.path()).assert_holds(10);
    assert!(!unfinished.exists());
}

#[test]
fn a_damaged_newest_snapshot_costs_nothing_and_is_set_aside() {
    for damage in ["flipped", "header", "trailer", "cut", "empty"] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut server = open(dir.path());
        for zxid in [100, 200, 300] {
            server.write_to(zxid);
            server.snapshot();
        }
        server.write_to(310);
        drop(server);
        let newest = snapshot_file(&dir, 300);
        let bytes = fs::read(&newest).expect("read");
        match damage {
            "flipped" => flip_byte(&newest, bytes.len() / 2),
            "header" => flip_byte(&newest, 3),
            "trailer" => flip_byte(&newest, bytes.len() - 1),
            "cut" => fs::write(&newest, &bytes[..bytes.len() / 3]).expect("written"),
            _ => fs::write(&newest, "").expect("written"),
        }
        let mut server = open(dir.path());
        server.assert_holds(310);
        assert_eq!(snapshots(&dir), ["damaged.000000000000012c", "snapshot.00000000000000c8"], "{damage}");
        // The damaged one does not count as one of two: the log must go on to reach back to the older.
        server.write_to(400);
        server.snapshot();
        assert!(server.storage.journal.first() <= 201);
    }
}

#[test]
fn a_gap_between_snapshot_and_log_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    for zxid in [300, 600, 900] {
        server.write_to(zxid);
        server.snapshot();
    }
    let first = server.storage.journal.first();
    assert!(first > 1);
    drop(server);
    flip_byte(&snapshot_file(&dir, 600), 500);
    flip_byte(&snapshot_file(&dir, 900), 500);
    let error = refused(dir.path()).to_string();
    assert!(error.contains("no intact snapshot (damaged: 0x384, 0x258)"), "{error}");
    assert!(error.contains(&format!("begins at zxid {first:#x}")), "{error}");
    // Nothing was renamed: people are to see it as it was.
    assert_eq!(snapshots(&dir), [600, 900].map(|zxid: i64| format!("snapshot.{zxid:016x}")));
}

#[test]
fn a_damaged_snapshot_still_tells_how_far_the_log_had_reached() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(50);
    server.snapshot();
    drop(server);
    let bytes = fs::read(snapshot_file(&dir, 50)).expect("read");
    flip_byte(&snapshot_file(&dir, 50), bytes.len() / 2);
    fs::remove_dir_all(dir.path().join("log")).expect("removed");
    // Not an empty server in place of fifty transactions.
    assert!(matches!(refused(dir.path()), OpenError::Log(wal::OpenError::Absent { .. })));
    assert_eq!(snapshots(&dir), ["snapshot.0000000000000032"]);
}

#[test]
fn a_log_that_ends_before_the_snapshot_or_is_gone_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(100);
    server.snapshot();
    drop(server);
    let log = dir.path().join("log");
    fs::rename(&log, dir.path().join("lost+found")).expect("moved");
    assert!(matches!(refused(dir.path()), OpenError::Log(wal::OpenError::Absent { .. })));
}

#[test]
fn a_torn_end_of_the_log_is_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(20);
    drop(server);
    let segment = only_segment(&dir);
    let mut bytes = fs::read(&segment).expect("read");
    // The last record loses its end, as if the power had failed while it was written.
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("something was written");
    bytes[end - 40..].fill(0);
    fs::write(&segment, bytes).expect("written");
    let mut server = open(dir.path());
    server.assert_holds(19);
    server.write_to(30);
    drop(server);
    open(dir.path()).assert_holds(30);
}

fn only_segment(dir: &TempDir) -> PathBuf {
    let files = fs::read_dir(dir.path().join("log")).expect("listed");
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wal");
    let segments: Vec<_> = files.map(|file| file.expect("a file").path()).filter(is_segment).collect();
    assert_eq!(segments.len(), 1);
    segments[0].clone()
}

#[test]
fn a_directory_in_use_is_refused_until_it_is_free() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = open(dir.path());
    assert!(matches!(refused(dir.path()), OpenError::Directory(DirectoryError::Locked(_))));
    drop(server);
    open(dir.path()).assert_holds(0);
}

#[test]
fn other_peoples_directories_are_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("thesis.tex"), "x").expect("written");
    assert!(matches!(refused(dir.path()), OpenError::Directory(DirectoryError::Foreign(_))));
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
}

#[test]
fn another_format_is_refused() {
    for (content, reason) in [("quorumkv-keeper 2\n", "its version is 2"), ("", "damaged"), ("{}", "damaged")]
    {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()));
        fs::write(dir.path().join("format"), content).expect("written");
        let error = refused(dir.path()).to_string();
        assert!(error.contains(reason), "{error}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    fs::remove_file(dir.path().join("format")).expect("removed");
    assert!(refused(dir.path()).to_string().contains("it is missing"));
}

#[test]
fn a_snapshot_of_another_version_is_refused_rather_than_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(10);
    server.snapshot();
    drop(server);
    let path = snapshot_file(&dir, 10);
    let mut bytes = fs::read(&path).expect("read");
    bytes[11] = 9;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]).to_be_bytes();
    bytes[end..].copy_from_slice(&crc);
    fs::write(&path, bytes).expect("written");
    assert!(refused(dir.path()).to_string().contains("format 9"));
}

#[test]
fn a_snapshot_is_due_after_transactions_or_bytes_but_not_for_little() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(20);
    let by_txns = Options { snapshot_txns: 10, ..small() };
    let by_bytes = Options { snapshot_bytes: 1_000, ..small() };
    let never = small();
    let begins = |server: &mut Server, options: &Options| {
        server.storage.snapshots.maybe_begin(&server.tree, options, None);
        let before = server.storage.snapshots.kept().len();
        server.storage.snapshots.wait();
        server.storage.snapshots.kept().len() > before
    };
    assert!(!begins(&mut server, &never));
    assert!(begins(&mut server, &by_txns));
    assert!(!begins(&mut server, &by_txns), "nothing has happened since");
    // A few transactions are little beside the tree.
    server.write_to(22);
    assert!(!begins(&mut server, &Options { snapshot_txns: 1, ..small() }));
    server.write_to(60);
    assert!(begins(&mut server, &by_bytes));
}

#[test]
fn what_the_log_cannot_sync_is_never_called_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let hook: wal::FaultHook = Arc::new(|operation, path| {
        let is_log = path.extension().is_some_and(|extension| extension == "wal");
        if is_log && operation == wal::Operation::Sync {
            Err(std::io::Error::other("out of order"))
        } else {
            Ok(())
        }
    });
    let mut server = open_with(
        dir.path(),
        Options { faults: Faults { hook: Some(hook), ..Faults::default() }, ..small() },
    )
    .expect("opened");
    server.storage.append(&[create(1)]);
    let reason = server.failures.recv().expect("told");
    assert!(reason.contains("the log cannot be written") && reason.contains("out of order"), "{reason}");
    // What comes after is taken and goes nowhere.
    server.storage.append(&[create(2)]);
    server.storage.append(&[create(3)]);
    server.storage.close();
    assert_eq!(server.durable.try_recv().ok(), None);
}

#[test]
fn a_snapshot_that_cannot_be_written_stops_nothing_and_is_not_tried_again_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = open(dir.path());
    server.write_to(10);
    fs::remove_dir_all(dir.path().join("snapshots")).expect("removed");
    let eager = Options { snapshot_txns: 1, ..small() };
    server.storage.snapshots.maybe_begin(&server.tree, &eager, None);
    assert_eq!(server.storage.snapshots.wait(), None);
    fs::create_dir(dir.path().join("snapshots")).expect("made");
    server.storage.snapshots.maybe_begin(&server.tree, &eager, None);
    assert_eq!(server.storage.snapshots.wait(), None, "nothing was logged since");
    assert_eq!(snapshots(&dir), Vec::<String>::new());
    assert!(server.failures.try_recv().is_err(), "it is no reason to end");
    // Nothing was trimmed for it.
    assert_eq!(server.storage.journal.first(), 1);
    server.write_to(20);
    server.storage.snapshots.maybe_begin(&server.tree, &eager, None);
    server.storage.snapshots.wait();
    assert_eq!(snapshots(&dir).len(), 1, "the next one is made");
    server.assert_holds(20);
}
