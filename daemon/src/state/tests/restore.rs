use std::fs;

use proptest::prelude::*;
use quorumkv_protocol::peer::SnapshotChunk;
use tempfile::tempdir;

use super::*;
use crate::state::restore::Step;
use crate::state::{ChunkError, InstallError, Progress, RestoreError, SnapshotSource, Staging, snapshot};

fn state_at(dir: &Path, version: u64) -> State {
    let state = open(dir);
    if version > 0 {
        state.apply(&entries(1..=version)).expect("apply");
    }
    state
}

fn chunks(source: &SnapshotSource, max_bytes: usize) -> Vec<SnapshotChunk> {
    let mut chunks = vec![source.chunk(b"", max_bytes).expect("a chunk")];
    while let Some(cursor) = chunks.last().and_then(|chunk| chunk.next.clone()) {
        chunks.push(source.chunk(&cursor, max_bytes).expect("a chunk"));
    }
    chunks
}

fn staged(state: &State, source: &SnapshotSource, max_bytes: usize) -> Staging {
    let mut staging = Staging::begin(state, source.identity()).expect("begin");
    for chunk in chunks(source, max_bytes) {
        let is_last = chunk.next.is_none();
        let progress = staging.write(&chunk).expect("write");
        assert_eq!(progress, if is_last { Progress::Complete } else { Progress::Continues });
    }
    assert_eq!(staging.position(), None);
    staging
}

fn databases(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("read").map(|file| file.expect("read").file_name());
    let mut names = Vec::from_iter(names.filter_map(|name| name.into_string().ok()));
    names.retain(|name| name.starts_with("state-"));
    names
}

#[test]
fn a_restored_state_is_the_same_and_goes_on() {
    let dir = tempdir().expect("a directory");
    let source_state = state_at(&dir.path().join("source"), 500);
    let source = SnapshotSource::open(&source_state).expect("a source");
    source_state.apply(&entries(501..=600)).expect("apply");
    for (name, before, max_bytes) in [("empty", 0, 1), ("behind", 123, 500), ("large", 499, 1 << 20)] {
        let path = dir.path().join(name);
        let state = state_at(&path, before);
        let handle = state.clone();
        staged(&state, &source, max_bytes).install().expect("install");
        Model::at(500).check(&handle);
        handle.apply(&entries(501..=550)).expect("apply");
        Model::at(550).check(&state);
        assert_eq!(databases(&path), ["state-2"], "the old one is removed");
        drop((state, handle));
        Model::at(550).check(&open(&path));
    }
}

#[test]
fn fifty_thousand_records_in_tiny_pieces() {
    const RECORDS: u64 = 50_000;
    let dir = tempdir().expect("a directory");
    let source_state = open(&dir.path().join("source"));
    let key = |version: u64| format!("{:05}", version * 7919 % RECORDS);
    let entry = |version| write_entry(version, vec![put(key(version), key(version + 1))], Outcome::Applied);
    for batch in Vec::from_iter((1..=RECORDS).map(entry)).chunks(500) {
        source_state.apply(batch).expect("apply");
    }
    let source = SnapshotSource::open(&source_state).expect("a source");
    let state = open(&dir.path().join("target"));
    staged(&state, &source, 300).install().expect("install");
    let scan =
        |state: &State| state.view().expect("view").scan(b"", None, usize::MAX, usize::MAX).expect("scan");
    let (expected, found) = (scan(&source_state), scan(&state));
    assert_eq!(found.items.len() as u64, RECORDS);
    assert_eq!(found, expected);
    assert_eq!(state.applied(), id_at(RECORDS));
    for version in RECORDS - 200..=RECORDS {
        let request = request_at(version);
        assert_eq!(state.lookup(request, Version::ZERO), source_state.lookup(request, Version::ZERO));
    }
}

#[test]
fn pieces_may_come_again_and_in_any_order() {
    let dir = tempdir().expect("a directory");
    let source = SnapshotSource::open(&state_at(&dir.path().join("source"), 300)).expect("a source");
    let chunks = chunks(&source, 2000);
    let state = open(&dir.path().join("target"));
    let mut staging = Staging::begin(&state, source.identity()).expect("begin");
    let mut random = fastrand::Rng::with_seed(1);
    while let Some(position) = staging.position() {
        let chunk = random.choice(&chunks).expect("there are chunks");
        let expected = match (chunk.position == position, chunk.next.is_some()) {
            (false, _) => Progress::Ignored,
            (true, true) => Progress::Continues,
            (true, false) => Progress::Complete,
        };
        assert_eq!(staging.write(chunk).expect("write"), expected);
    }
    assert_eq!(staging.write(&chunks[0]).expect("write"), Progress::Ignored);
    staging.install().expect("install");
    Model::at(300).check(&state);
}

#[test]
fn a_crash_during_install_leaves_the_one_state_or_the_other() {
    let dir = tempdir().expect("a directory");
    let source = SnapshotSource::open(&state_at(&dir.path().join("source"), 200)).expect("a source");
    let path = dir.path().join("target");
    let state = state_at(&path, 100);
    let staging = staged(&state, &source, 1000);
    let copy_to = |name: &str| {
        let copied = dir.path().join(name);
        copy(&path, &copied);
        copied
    };
    let mut copies = vec![(copy_to("before"), 100)];
    let take_copy = |step| {
        let version = if matches!(step, Step::Sealed | Step::Prepared) { 100 } else { 200 };
        copies.push((copy_to(&format!("{step:?}")), version));
    };
    staging.install_in_steps(take_copy).expect("install");
    assert_eq!(copies.len(), 5);
    for (copied, version) in copies {
        let state = open(&copied);
        Model::at(version).check(&state);
        assert_eq!(databases(&copied).len(), 1, "leftovers are removed");
        state.apply(&entries(version + 1..=version + 10)).expect("apply");
        if version == 100 {
            staged(&state, &source, 1000).install().expect("the restore can be repeated");
            Model::at(200).check(&state);
        }
    }
}

#[test]
fn a_restore_that_is_given_up_leaves_nothing() {
    let dir = tempdir().expect("a directory");
    let source = SnapshotSource::open(&state_at(&dir.path().join("source"), 100)).expect("a source");
    let path = dir.path().join("target");
    let state = state_at(&path, 50);
    let mut staging = Staging::begin(&state, source.identity()).expect("begin");
    staging.write(&source.chunk(b"", 100).expect("a chunk")).expect("write");
    assert_eq!(databases(&path).len(), 2);
    assert!(matches!(staging.install(), Err(InstallError::Incomplete)));
    assert_eq!(databases(&path), ["state-1"]);
    Model::at(50).check(&state);

    let staging = staged(&state, &source, 1000);
    state.apply(&entries(51..=101)).expect("apply");
    assert!(matches!(staging.install(), Err(InstallError::Behind { .. })));
    assert_eq!(databases(&path), ["state-1"]);
    Model::at(101).check(&state);
}

#[test]
fn a_view_outlives_the_state_that_it_shows() {
    let dir = tempdir().expect("a directory");
    let source = SnapshotSource::open(&state_at(&dir.path().join("source"), 200)).expect("a source");
    let path = dir.path().join("target");
    let state = state_at(&path, 100);
    let view = state.view().expect("view");
    staged(&state, &source, 1000).install().expect("install");
    assert_eq!(databases(&path).len(), 2);
    assert_eq!(view.applied(), id_at(100));
    let page = view.scan(b"", None, usize::MAX, usize::MAX).expect("scan");
    assert_eq!(page.items, Vec::from_iter(Model::at(100).records));
    drop(view);
    assert_eq!(databases(&path), ["state-2"]);
    Model::at(200).check(&state);
}

#[test]
fn wrong_pieces_are_refused() {
    let dir = tempdir().expect("a directory");
    let source = SnapshotSource::open(&state_at(&dir.path().join("source"), 100)).expect("a source");
    let state = open(&dir.path().join("target"));
    let good = source.chunk(b"", 1000).expect("a chunk");
    let refused = |chunk: SnapshotChunk| {
        let mut staging = Staging::begin(&state, source.identity()).expect("begin");
        staging.write(&chunk).expect_err("it is wrong")
    };

    let mut other = good.clone();
    other.position.snapshot = id_at(99);
    assert!(matches!(refused(other), RestoreError::OtherSnapshot { .. }));
    let bad_checksum = SnapshotChunk { checksum: !good.checksum, ..good.clone() };
    assert!(matches!(refused(bad_checksum), RestoreError::Checksum { .. }));
    let circular = SnapshotChunk { next: Some(Bytes::new()), ..good.clone() };
    assert!(matches!(refused(circular), RestoreError::Malformed(_)));
    let cut = good.data.slice(..good.data.len() - 1);
    let cut = SnapshotChunk { checksum: crc32c::crc32c(&cut), data: cut, ..good };
    assert!(matches!(refused(cut), RestoreError::Malformed(_)));
    Model::at(0).check(&state);
}

#[test]
fn wrong_cursors_are_refused() {
    let dir = tempdir().expect("a directory");
    let source = SnapshotSource::open(&state_at(dir.path(), 10)).expect("a source");
    for cursor in [&b"\0"[..], b"\x01", b"\x02key", &[0; 65_537]] {
        assert!(matches!(source.chunk(cursor, 100), Err(ChunkError::Cursor)), "{cursor:?}");
    }
    assert!(source.chunk(&[0xff; 3], 100).is_err());
    assert!(source.chunk(&[0; 65_536], 100).is_ok(), "the longest key");
}

proptest! {
    #[test]
    fn arbitrary_pieces_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(snapshot::decode(bytes.into(), id_at(100)));
    }
}

#[test]
fn damaged_pieces_never_panic() {
    let dir = tempdir().expect("a directory");
    let source = SnapshotSource::open(&state_at(dir.path(), 40)).expect("a source");
    let identity = source.identity();
    for chunk in chunks(&source, 1000) {
        let rows = snapshot::decode(chunk.data.clone(), identity).expect("a good piece");
        assert!(!rows.is_empty());
        for at in 0..chunk.data.len() {
            drop(snapshot::decode(chunk.data.slice(..at), identity));
            for bit in 0..8 {
                let mut damaged = chunk.data.to_vec();
                damaged[at] ^= 1 << bit;
                drop(snapshot::decode(damaged.into(), identity));
            }
        }
    }
}
