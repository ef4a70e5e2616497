use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use quorumkv_protocol::peer::Digest;
use tempfile::tempdir;

use super::*;
use crate::state::{Progress, Scrub, Scrubbed, SnapshotSource, Staging};

/// The digests of all parts of a state, of which each has at most so many bytes.
fn digests(state: &State, max_bytes: usize) -> Vec<Digest> {
    let view = state.view().expect("view");
    let (mut digests, mut next) = (Vec::new(), Some(Bytes::new()));
    while let Some(begin) = next {
        let (digest, after) = view.digest(&begin, max_bytes).expect("a digest");
        digests.push(digest);
        next = after;
    }
    digests
}

/// Installs a snapshot of `source` in the place of `state`.
fn replace(state: &State, source: &State) {
    let source = SnapshotSource::open(source).expect("a source");
    let mut staging = Staging::begin(state, source.identity()).expect("begin");
    let chunk = source.chunk(b"", usize::MAX).expect("a chunk");
    assert_eq!(staging.write(&chunk).expect("write"), Progress::Complete);
    staging.install().expect("install");
}

/// Puts everything into tables on the disk; returns their paths.
fn flush(state: &State) -> Vec<PathBuf> {
    let store = state.store();
    for keyspace in [store.data(), store.meta()] {
        keyspace.rotate_memtable_and_wait().expect("flush");
    }
    crate::state::scrub::tables(&store).into_iter().map(|table| table.path).collect()
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a table");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    file.write_all_at(&[!byte[0]], offset).expect("write");
}

#[test]
fn equal_states_have_equal_digests_whatever_became_of_them_before() {
    let dir = tempdir().expect("a directory");
    let at_once = open(&dir.path().join("at-once"));
    at_once.apply(&entries(1..=400)).expect("apply");
    let one_by_one = open(&dir.path().join("one-by-one"));
    for version in 1..=400 {
        one_by_one.apply(&entries(version..=version)).expect("apply");
    }
    flush(&one_by_one);
    let restored = open(&dir.path().join("restored"));
    restored.apply(&entries(1..=20)).expect("apply");
    replace(&restored, &at_once);
    for max_bytes in [1, 1000, 1 << 20] {
        let expected = digests(&at_once, max_bytes);
        assert_eq!(expected.len() == 1, max_bytes == 1 << 20);
        assert_eq!(digests(&one_by_one, max_bytes), expected);
        assert_eq!(digests(&restored, max_bytes), expected);
    }
    let other = open(&dir.path().join("other"));
    other.apply(&entries(1..=399)).expect("apply");
    let last = write_entry(400, vec![put("several", "w")], Outcome::Applied);
    other.apply(&[last]).expect("apply");
    assert_ne!(digests(&other, 1 << 20), digests(&at_once, 1 << 20));
}

#[test]
fn when_results_went_into_the_database_makes_no_difference() {
    let dir = tempdir().expect("a directory");
    let entry = |version, floor| {
        let request = RequestId { client: ClientId::new(1), sequence: version };
        let (effects, outcome) = (Vec::new(), Outcome::Applied);
        Entry { id: id_at(version), body: Body::Write(EvaluatedWrite { request, floor, effects, outcome }) }
    };
    // The second result stays, and meanwhile its client has finished with the first.
    let log = [entry(1, 1), entry(2, 1), entry(3, 2)];
    let at_once = open(&dir.path().join("at-once"));
    at_once.apply(&log).expect("apply");
    let one_by_one = open(&dir.path().join("one-by-one"));
    for entry in &log {
        one_by_one.apply(std::slice::from_ref(entry)).expect("apply");
        one_by_one.settle().expect("move");
    }
    assert_eq!(digests(&one_by_one, 1 << 20), digests(&at_once, 1 << 20));
}

#[test]
fn any_changed_byte_of_a_table_is_found() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    state.apply(&entries(1..=1000)).expect("apply");
    let tables = flush(&state);
    assert!(tables.len() >= 2, "both keyspaces have one: {tables:?}");
    assert_eq!(state.find_damage().expect("it can be read"), None);
    for path in tables {
        let length = fs::metadata(&path).expect("it is there").len();
        for offset in (0..length).step_by(1009).chain([length - 1]) {
            flip(&path, offset);
            let found = state.find_damage().expect("it can be read").expect("it is found");
            assert!(found.contains(path.to_str().expect("text")), "{found}");
            flip(&path, offset);
        }
    }
    assert_eq!(state.find_damage().expect("it can be read"), None);
}

#[test]
fn a_scrub_goes_on_where_it_was_and_begins_anew() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    state.apply(&entries(1..=3000)).expect("apply");
    let last = flush(&state).remove(0);
    let mut scrub = Scrub::new(&state);
    let mut pass = || {
        let mut steps = std::iter::repeat_with(|| scrub.step(1).expect("it can be read"));
        steps.by_ref().enumerate().find(|(_, step)| *step != Scrubbed::Continues).expect("it ends")
    };
    assert!(matches!(pass(), (1.., Scrubbed::Whole)));
    assert!(matches!(pass(), (1.., Scrubbed::Whole)));
    flip(&last, 100);
    assert!(matches!(pass(), (_, Scrubbed::Damaged(_))));
    flip(&last, 100);
    // Tables that were merged with others meanwhile are gone, and no damage.
    fs::remove_file(&last).expect("removed");
    assert!(matches!(pass(), (_, Scrubbed::Whole)));
}

#[test]
fn damage_is_noted_until_another_state_is_installed() {
    let dir = tempdir().expect("a directory");
    let source = open(&dir.path().join("source"));
    source.apply(&entries(1..=200)).expect("apply");
    let path = dir.path().join("target");
    let state = open(&path);
    state.apply(&entries(1..=200)).expect("apply");
    assert!(!state.is_marked_damaged());
    state.mark_damaged(state.database()).expect("noted");
    drop(state);
    let state = open(&path);
    assert!(state.is_marked_damaged());
    replace(&state, &source);
    assert!(!state.is_marked_damaged(), "a snapshot of the same version is enough");
    drop(state);
    let state = open(&path);
    assert!(!state.is_marked_damaged());
    Model::at(200).check(&state);
}

#[test]
fn a_state_that_cannot_be_opened_is_taken_for_damaged_only_if_it_is() {
    use crate::state::{Cause, OpenStateError, PersistError, ReadError};
    use fjall::{Error, LsmError};

    let dir = tempdir().expect("a directory");
    let error = |error: Error| OpenStateError::from(error).is_damage(dir.path());
    assert!(error(Error::Storage(LsmError::InvalidTrailer)));
    assert!(error(Error::Io(std::io::ErrorKind::UnexpectedEof.into())));
    assert!(!error(Error::Storage(LsmError::InvalidVersion(9))), "that of another version of fjall");
    assert!(!error(Error::InvalidVersion(None)));
    assert!(!error(Error::Io(std::io::ErrorKind::PermissionDenied.into())));
    assert!(!error(Error::Locked));

    // That a medium refuses something shows a loss only if what it holds cannot be read: syncs fail, too.
    let refused = || Error::Io(std::io::Error::from_raw_os_error(5));
    drop(open(&dir.path().join("state")));
    assert!(!error(refused()), "all of it can be read");
    // What cannot be opened cannot be read, whoever asks.
    std::os::unix::fs::symlink("nowhere", dir.path().join("state").join("table")).expect("made");
    assert!(error(refused()), "a file cannot be read");

    // A write or sync that fails is never taken for damage that another state could mend: it ends the process.
    let cause = |error: Error| PersistError::from(error).cause();
    assert_eq!(cause(Error::Io(std::io::Error::from_raw_os_error(5))), Cause::Disk);
    assert_eq!(cause(Error::Storage(LsmError::Io(std::io::Error::from_raw_os_error(5)))), Cause::Disk);
    assert_eq!(cause(Error::Poisoned), Cause::Earlier);
    assert_eq!(cause(Error::Storage(LsmError::InvalidTrailer)), Cause::Damage);

    // Nor is one that fails because somebody wants to read.
    let read = |error: Error| ReadError::Move(error.into());
    let failed = read(Error::Io(std::io::Error::from_raw_os_error(5)));
    assert!(failed.is_failed_write() && !failed.is_damage());
    assert!(!read(Error::Poisoned).is_failed_write() && !read(Error::Poisoned).is_damage());
    assert!(read(Error::Storage(LsmError::InvalidTrailer)).is_damage());
    assert!(ReadError::from(Error::Io(std::io::Error::from_raw_os_error(5))).is_damage());
}
