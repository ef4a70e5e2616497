use std::fs;

use tempfile::tempdir;

use super::*;
use crate::state::{MAX_KEY_LENGTH, OpenStateError};

/// Applies entries, and has them in the database.
fn apply_and_move(state: &State, entries: &[Entry]) {
    state.apply(entries).expect("apply");
    state.settle().expect("move");
}

#[test]
fn a_new_state_is_empty() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    Model::at(0).check(&state);
    assert_eq!(state.persist().expect("persist"), EntryId::ZERO);
    assert_eq!(state.get(b"key").expect("get"), None);
    let bytes = state.disk_bytes().expect("disk usage");
    assert!(bytes < 4 << 20, "an empty state takes {bytes} bytes");
}

#[test]
fn applied_entries_are_there_and_survive_a_restart() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    for batch in entries(1..=1000).chunks(37) {
        state.apply(batch).expect("apply");
        Model::at(state.applied().version.get()).check(&state);
    }
    state.apply::<Entry>(&[]).expect("applying nothing is nothing");
    assert_eq!(state.persist().expect("persist"), id_at(1000));
    drop(state);
    let state = open(dir.path());
    Model::at(1000).check(&state);
    state.apply(&entries(1001..=1100)).expect("apply");
    Model::at(1100).check(&state);
}

/// What was applied is moved into the database now and then, and shows everywhere as if it were there: values, deletes and results.
#[test]
fn what_is_not_in_the_database_yet_is_read_like_the_rest() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    for version in 1..=300 {
        state.apply(&entries(version..=version)).expect("apply");
        if version % 13 == 0 {
            state.settle().expect("move");
        }
        if version % 10 == 0 {
            let model = Model::at(version);
            for key in (0..200).map(|number| format!("key-{number:03}")) {
                assert_eq!(
                    state.get(key.as_bytes()).expect("get").as_ref(),
                    model.records.get(key.as_bytes())
                );
            }
        }
    }
    Model::at(300).check(&state);
    drop(state);
    Model::at(300).check(&open(dir.path()));
}

/// The log is trimmed below what is named here, so that must not be in memory only. Nothing else has had it moved before.
#[test]
fn what_was_made_durable_is_in_the_database() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    state.apply(&entries(1..=10)).expect("apply");
    assert_eq!(state.persist().expect("persist"), id_at(10));
    drop(state);
    Model::at(10).check(&open(dir.path()));
}

/// One key that is written again and again takes no memory, and yet the entries that have to be replayed are bounded.
#[test]
fn what_is_replaced_again_and_again_is_moved_in_the_end() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("state");
    let state = open(&path);
    for version in 1..=1000 {
        let effects = vec![put("one", vec![b'v'; 100])];
        state.apply(&[write_entry(version, effects, Outcome::Applied)]).expect("apply");
    }
    let copied = dir.path().join("copy");
    copy(&path, &copied);
    let applied = open(&copied).applied().version.get();
    assert!((500..1000).contains(&applied), "{applied} of 1000 are in the database");
}

#[test]
fn a_copy_taken_at_any_moment_is_consistent() {
    let dir = tempdir().expect("a directory");
    let state = open(&dir.path().join("state"));
    for (round, batch) in entries(1..=300).chunks(50).enumerate() {
        apply_and_move(&state, batch);
        let copied = dir.path().join(format!("copy-{round}"));
        copy(&dir.path().join("state"), &copied);
        Model::at(state.applied().version.get()).check(&open(&copied));
    }
}

#[test]
fn a_batch_that_was_written_in_part_is_not_there() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("state");
    let state = open(&path);
    let length = || {
        let journal = fs::read(path.join("state-1/0.jnl")).expect("read the journal");
        journal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    };
    apply_and_move(&state, &entries(1..=20));
    let before = length();
    apply_and_move(&state, &entries(21..=30));
    let after = length();
    assert!(after > before + 1000, "what was applied is in the journal");
    for (round, cut) in (before..after).step_by(97).enumerate() {
        let copied = dir.path().join(format!("copy-{round}"));
        copy(&path, &copied);
        let journal = fs::File::options().write(true).open(copied.join("state-1/0.jnl")).expect("open");
        journal.set_len(cut as u64).expect("cut the journal");
        Model::at(20).check(&open(&copied));
        fs::remove_dir_all(copied).expect("remove the copy");
    }
}

/// What a loss of power can do to a journal that was not synced: pages of it were never written.
#[test]
fn a_hole_in_the_journal_leaves_an_earlier_state() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("state");
    let state = open(&path);
    for batch in entries(1..=60).chunks(10) {
        apply_and_move(&state, batch);
    }
    let copied = dir.path().join("copy");
    copy(&path, &copied);
    let journal = copied.join("state-1/0.jnl");
    let good = fs::read(&journal).expect("read the journal");
    let end = good.iter().rposition(|byte| *byte != 0).expect("something is written") + 1;
    let sealed = 200;
    let mut found = BTreeMap::new();
    for hole in (sealed..end).step_by(300) {
        let mut damaged = good[..end].to_vec();
        damaged[hole..end.min(hole + 512)].fill(0);
        fs::write(&journal, damaged).expect("write the journal");
        let state = open(&copied);
        let applied = state.applied().version.get();
        Model::at(applied).check(&state);
        *found.entry(applied).or_insert(0) += 1;
        if applied < 60 {
            apply_and_move(&state, &entries(applied + 1..=60));
        }
        drop(state);
        Model::at(60).check(&open(&copied));
    }
    assert!(found.len() >= 5, "{found:?}");
}

#[test]
fn damage_to_what_was_synced_is_found() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    for version in 1..=40 {
        let effects = vec![put(format!("key-{version}"), vec![7; 1 << 20])];
        state.apply(&[write_entry(version, effects, Outcome::Applied)]).expect("apply");
    }
    state.persist().expect("persist");
    drop(state);
    let journal = dir.path().join("state-1/0.jnl");
    let mut damaged = fs::read(&journal).expect("read the journal");
    damaged[3 << 20] ^= 1;
    fs::write(&journal, damaged).expect("write the journal");
    assert!(matches!(State::open(dir.path(), options()), Err(OpenStateError::Content(_))));
}

#[test]
fn keys_and_values_may_be_as_large_as_the_limits() {
    let dir = tempdir().expect("a directory");
    let key = Bytes::from(vec![0xff; MAX_KEY_LENGTH]);
    let value = Bytes::from(Vec::from_iter((0..8 << 20).map(|i| (i % 251) as u8)));
    let expected = Some(Record::new(id_at(1), value.clone()));
    let state = open(dir.path());
    state.apply(&[write_entry(1, vec![put(key.clone(), value)], Outcome::Applied)]).expect("apply");
    apply_and_move(&state, &[write_entry(2, vec![put("small", "")], Outcome::Applied)]);
    assert_eq!(state.get(&key).expect("get"), expected);
    drop(state);
    let state = open(dir.path());
    assert_eq!(state.get(&key).expect("get"), expected);
    assert_eq!(state.get(b"small").expect("get"), Some(Record::new(id_at(2), Bytes::new())));
    let page = state.view().expect("view").scan(&key, None, 10, 1).expect("scan");
    assert_eq!(page.items.into_iter().map(|(_, record)| record).next(), expected);
    // Entries fill the memtable, so that the large ones move to a table and are read from there.
    for version in 3..=40 {
        let effects = vec![put(format!("filler-{version}"), vec![7; 1 << 20])];
        state.apply(&[write_entry(version, effects, Outcome::Applied)]).expect("apply");
    }
    assert_eq!(state.get(&key).expect("get"), expected);
    state.apply(&[write_entry(41, vec![delete(key.clone())], Outcome::Applied)]).expect("apply");
    assert_eq!(state.get(&key).expect("get"), None);
}

#[test]
fn keys_that_cannot_be_are_absent() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    let view = state.view().expect("view");
    for key in [Vec::new(), vec![1; MAX_KEY_LENGTH + 1]] {
        assert_eq!(state.get(&key).expect("get"), None);
        assert_eq!(view.get(&key).expect("get"), None);
    }
}

#[test]
#[should_panic(expected = "a key of 65536 bytes was let into the log")]
fn an_entry_with_a_key_that_cannot_be_is_a_bug() {
    let dir = tempdir().expect("a directory");
    let effects = vec![put(vec![1; MAX_KEY_LENGTH + 1], "")];
    drop(open(dir.path()).apply(&[write_entry(1, effects, Outcome::Applied)]));
}

#[test]
#[should_panic(expected = "does not follow")]
fn a_gap_is_a_bug() {
    let dir = tempdir().expect("a directory");
    drop(open(dir.path()).apply(&entries(2..=2)));
}

#[test]
fn a_state_in_use_is_refused() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    state.apply(&entries(1..=5)).expect("apply");
    assert!(matches!(State::open(dir.path(), options()), Err(OpenStateError::Locked)));
    state.apply(&entries(6..=10)).expect("the first is not disturbed");
    Model::at(10).check(&state);
}

#[test]
fn damage_to_the_directory_is_found() {
    let dir = tempdir().expect("a directory");
    drop(open(dir.path()));
    let current = dir.path().join("CURRENT");
    let good = fs::read_to_string(&current).expect("read");
    assert_eq!(good, "quorumkv state format 2\n1\n");
    for bad in [
        "",
        "quorumkv",
        "quorumkv state format 2\n",
        "quorumkv state format 2\nx\n",
        "quorumkv state format 2\n7\n",
    ] {
        fs::write(&current, bad).expect("write");
        assert!(matches!(State::open(dir.path(), options()), Err(OpenStateError::Damaged { .. })), "{bad:?}");
    }
    fs::write(&current, [0xff]).expect("write");
    assert!(matches!(State::open(dir.path(), options()), Err(OpenStateError::Damaged { .. })));
    fs::write(&current, good.replace("format 2", "format 1")).expect("write");
    assert!(matches!(State::open(dir.path(), options()), Err(OpenStateError::Format { found: 1 })));
    fs::remove_file(&current).expect("remove");
    assert!(matches!(State::open(dir.path(), options()), Err(OpenStateError::Damaged { .. })));
    fs::write(&current, good).expect("write");
    Model::at(0).check(&open(dir.path()));
}

#[test]
fn a_first_start_that_was_interrupted_begins_again() {
    let dir = tempdir().expect("a directory");
    drop(open(dir.path()));
    fs::write(dir.path().join("CURRENT"), "quorumkv state format 2\n0\n").expect("write");
    fs::remove_file(dir.path().join("state-1/version")).expect("the database's marker");
    Model::at(0).check(&open(dir.path()));
}

#[test]
fn the_state_of_a_node_that_knows_no_members_yet_opens_again() {
    let dir = tempdir().expect("a directory");
    for _ in 0..2 {
        let state = State::open(dir.path(), options()).expect("opened");
        state.begin_with(&Configuration::UNKNOWN).expect("begin");
        assert_eq!(state.configuration(), Configuration::UNKNOWN);
    }
    Model::at(0).check(&open(dir.path()));
}
