use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::tempdir;

use super::*;

/// Both keys change in every entry, and the values are large enough for fjall to move and merge tables meanwhile.
fn pair_entry(version: u64) -> Entry {
    let value = Bytes::from(vec![version.to_be_bytes()[7]; 100_000]);
    write_entry(version, vec![put("first", value.clone()), put("second", value)], Outcome::Applied)
}

#[test]
fn a_view_never_shows_a_part_of_an_entry() {
    const LAST: u64 = 600;
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut views = 0;
            while !is_done.load(Ordering::Relaxed) {
                let view = state.view().expect("view");
                let id = |key: &[u8]| view.get(key).expect("get").map_or(EntryId::ZERO, |record| record.id);
                assert_eq!((id(b"first"), id(b"second")), (view.applied(), view.applied()));
                views += 1;
            }
            views
        });
        for version in 1..=LAST {
            state.apply(&[pair_entry(version)]).expect("apply");
            assert_eq!(state.get(b"second").expect("get").map(|record| record.id), Some(id_at(version)));
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
        state.apply(&[pair_entry(version)]).expect("apply");
    }
    let bytes = state.disk_bytes().expect("disk usage");
    assert!(bytes < 350 << 20, "two keys of 100 KB take {} MiB after 800 MB of writes", bytes >> 20);
}
