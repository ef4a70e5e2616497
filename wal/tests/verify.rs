//! Damage is found where it is, before anybody needs what was written there.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{HEADER, Running, entry, epoch, open, segments, sized_entry, small};
use quorumkv_wal::{DamagedSegment, Record, VerifyError};

/// Goes through the whole log once.
fn verify(running: &Running) -> Result<u64, VerifyError> {
    let mut last = 0;
    while let Some(next) = running.reader.verify_after(last)? {
        assert!(last == 0 || next == last + 1, "segments are verified in their order");
        last = next;
    }
    Ok(last)
}

fn damage(running: &Running) -> Option<DamagedSegment> {
    match verify(running) {
        Ok(_) => None,
        Err(VerifyError::Damaged(damaged)) => Some(damaged),
        Err(VerifyError::Io(error)) => panic!("{error}"),
    }
}

/// Flips the bits of one byte.
fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

/// Three segments: entries of several sizes, some overwritten, and a promise.
fn filled(directory: &Path) -> Running {
    let (mut running, _) = open(directory, small());
    running.append(vec![Record::Promise { epoch: epoch(3) }]);
    running.append((1..=60).map(|version| sized_entry(1, version, 100)).collect());
    running.append(vec![entry(2, 40), sized_entry(2, 41, 11 << 10), entry(3, 42)]);
    running.append((43..=60).map(|version| sized_entry(3, version, 300)).collect());
    running
}

#[test]
fn a_log_as_it_was_written_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let running = filled(directory.path());
    assert_eq!(verify(&running).unwrap(), segments(directory.path()).len() as u64);
    let directory = tempfile::tempdir().unwrap();
    let (empty, _) = open(directory.path(), small());
    assert_eq!(verify(&empty).unwrap(), 1);
}

#[test]
fn any_changed_byte_of_what_was_written_is_found_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let running = filled(directory.path());
    let segments: Vec<_> = segments(directory.path()).into_keys().collect();
    assert!(segments.len() > 2);
    let active_end = running.reader.bytes() - (segments.len() as u64 - 1) * (16 << 10);
    for (at, path) in segments.iter().enumerate() {
        let is_active = at + 1 == segments.len();
        let end = if is_active { active_end } else { 16 << 10 };
        for offset in (0..end).step_by(97).chain([HEADER as u64, end - 1]) {
            flip(path, offset);
            let damaged = damage(&running).unwrap_or_else(|| panic!("{} at {offset}", path.display()));
            assert_eq!((&damaged.segment, damaged.is_active), (path, is_active));
            assert!(damaged.offset <= offset, "{damaged} before the byte at {offset}");
            flip(path, offset);
        }
    }
    assert_eq!(damage(&running), None);
}

#[test]
fn a_damaged_segment_is_got_rid_of_by_a_roll_and_a_trim() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = filled(directory.path());
    let (active, _) = segments(directory.path()).pop_last().unwrap();
    flip(&active, HEADER as u64 + 100);
    let damaged = damage(&running).expect("it is damaged");
    assert!(damaged.is_active);
    running.append(vec![entry(3, 61)]);
    assert_eq!(running.reader.highest_upto(damaged.sequence), 61);
    assert!(running.reader.highest_upto(damaged.sequence - 1) < 61);

    running.writer.roll();
    running.append(Vec::new());
    running.append(vec![entry(3, 62)]);
    assert!(!damage(&running).expect("it is still there").is_active);
    assert_eq!(running.reader.highest_upto(damaged.sequence), 61);
    running.writer.trim(62);
    assert_eq!(running.reader.first_segment(), damaged.sequence + 1);
    assert_eq!(damage(&running), None);
}
