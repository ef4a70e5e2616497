use tempfile::tempdir;

use super::*;
use crate::state::MAX_KEY_LENGTH;

fn keys(
    state: &State,
    prefix: &[u8],
    after: Option<&[u8]>,
    items: usize,
    bytes: usize,
) -> (Vec<Vec<u8>>, bool) {
    let page = state.view().expect("view").scan(prefix, after, items, bytes).expect("scan");
    (page.items.into_iter().map(|(key, _)| key.to_vec()).collect(), page.more)
}

fn with_keys(dir: &Path, keys: &[&[u8]]) -> State {
    let state = open(dir);
    for (version, key) in (1..).zip(keys) {
        let effects = vec![put(key.to_vec(), "12345")];
        state.apply(&[write_entry(version, effects, Outcome::Applied)]).expect("apply");
    }
    state
}

#[test]
fn pages_follow_each_other_without_gaps() {
    let dir = tempdir().expect("a directory");
    let state = open(dir.path());
    state.apply(&entries(1..=800)).expect("apply");
    let view = state.view().expect("view");
    state.apply(&entries(801..=900)).expect("the view does not see these");
    let expected = Model::at(800).records;
    for (prefix, limit_items, limit_bytes) in [
        (&b""[..], 7, usize::MAX),
        (b"key-", 1000, 900),
        (b"key-1", 3, 2000),
        (b"several", 1, 1),
        (b"x", 5, 5),
    ] {
        let mut found = Vec::new();
        loop {
            let after = found.last().map(|(key, _): &(Bytes, Record)| key.clone());
            let page = view.scan(prefix, after.as_deref(), limit_items, limit_bytes).expect("scan");
            assert!(page.items.len() <= limit_items);
            found.extend(page.items);
            if !page.more {
                break;
            }
        }
        let mut expected = Vec::from_iter(expected.clone());
        expected.retain(|(key, _)| key.starts_with(prefix));
        assert_eq!(found, expected);
    }
}

#[test]
fn prefixes_and_starts_of_every_shape() {
    let dir = tempdir().expect("a directory");
    let all: [&[u8]; 7] = [b"\0", b"a", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"];
    let state = with_keys(dir.path(), &all);
    let of = |keys: &[&[u8]]| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    let longest = vec![0xff; MAX_KEY_LENGTH + 1];
    for (prefix, after, expected) in [
        (&b""[..], None, &all[..]),
        (b"", Some(&b""[..]), &all),
        (b"", Some(b"a\xff"), &all[3..]),
        (b"a", None, &all[1..4]),
        (b"a\xff", None, &all[2..4]),
        (b"a", Some(b"\0"), &all[1..4]),
        (b"a", Some(b"a"), &all[2..4]),
        (b"a", Some(b"b"), &[]),
        (b"a", Some(b"zz"), &[]),
        (b"\xff", None, &all[5..]),
        (b"\xff", Some(b"\xff\xff"), &[]),
        (b"c", None, &[]),
        (b"", Some(&longest), &[]),
        (&longest, None, &[]),
        (&longest, Some(&longest), &[]),
    ] {
        assert_eq!(keys(&state, prefix, after, 100, 1000), (of(expected), false), "{prefix:?} {after:?}");
    }
}

#[test]
fn limits_are_kept_and_more_is_exact() {
    let dir = tempdir().expect("a directory");
    let state = with_keys(dir.path(), &[b"a", b"b", b"c"]);
    let of = |keys: &str| keys.bytes().map(|key| vec![key]).collect::<Vec<_>>();
    assert_eq!(keys(&state, b"", None, 3, 1000), (of("abc"), false));
    assert_eq!(keys(&state, b"", None, 2, 1000), (of("ab"), true));
    assert_eq!(keys(&state, b"", None, 0, 1000), (of(""), true));
    assert_eq!(keys(&state, b"", None, 9, 18), (of("abc"), false));
    assert_eq!(keys(&state, b"", None, 9, 17), (of("ab"), true));
    assert_eq!(keys(&state, b"", None, 9, 0), (of("a"), true), "at least one");
    assert_eq!(keys(&state, b"c", None, 1, 0), (of("c"), false));
}
