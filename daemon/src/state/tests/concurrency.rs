use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::tempdir;

use super::*;

/// Writes the first and the last key of the state, and much in between: fjall moves tables while it takes a few of
/// these in.
fn broad_entry(version: u64) -> Entry {
    let filler = |i| put(format!("m-{:02}-{i:03}", version % 40), vec![7; 1600]);
    let mut effects = Vec::from_iter((0..126).map(filler));
    effects.extend([put("a-first", "value"), put("z-last", "value")]);
    write_entry(version, effects, Outcome::Applied)
}

#[test]
fn a_view_never_shows_a_part_of_a_batch() {
    const LAST: u64 = 2400;
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut views = 0;
            while !is_done.load(Ordering::Relaxed) {
                let view = state.view().expect("view");
                let id = |key: &[u8]| view.get(key).expect("get").map_or(EntryId::ZERO, |record| record.id);
                assert_eq!((id(b"a-first"), id(b"z-last")), (view.applied(), view.applied()));
                views += 1;
            }
            views
        });
        for batch in Vec::from_iter(1..=LAST).chunks(40) {
            state.apply(&Vec::from_iter(batch.iter().copied().map(broad_entry))).expect("apply");
            let last = state.get(b"z-last").expect("get");
            assert_eq!(last.map(|record| record.id), Some(state.applied()));
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("the reader's findings") > 0);
    });
}

#[test]
fn what_is_overwritten_does_not_fill_the_disk() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    for version in 1..=4000 {
        let value = Bytes::from(vec![7; 100_000]);
        let effects = vec![put("first", value.clone()), put("second", value)];
        state.apply(&[write_entry(version, effects, Outcome::Applied)]).expect("apply");
    }
    let bytes = state.disk_bytes().expect("disk usage");
    assert!(bytes < 350 << 20, "two keys of 100 KB take {} MiB after 800 MB of writes", bytes >> 20);
}
