//! Paths of znodes: which are valid, and what they are made of.

use thiserror::Error;

/// The root.
pub const ROOT: &str = "/";
/// What belongs to the server itself.
pub const SYSTEM: &str = "/zookeeper";
/// Below it stand the quotas.
pub const QUOTA: &str = "/zookeeper/quota";
/// The configuration of the ensemble.
pub const CONFIG: &str = "/zookeeper/config";

/// Why a path is not valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PathError {
    /// There is nothing.
    #[error("a path is empty")]
    Empty,
    /// It does not begin with a slash.
    #[error("a path does not begin with a slash")]
    NotAbsolute,
    /// It ends with a slash, and is not the root.
    #[error("a path ends with a slash")]
    TrailingSlash,
    /// There is nothing between two slashes.
    #[error("a name in a path is empty")]
    EmptyName,
    /// A name is `.` or `..`.
    #[error("a name in a path is relative")]
    Relative,
    /// A control character, one of a private range or a special one, or one beyond the basic plane: ZooKeeper sees that as
    /// two surrogates, which it forbids.
    #[error("a path has a character that is not allowed")]
    Character,
}

/// Whether a path is valid, as ZooKeeper's servers and clients see it.
///
/// # Errors
/// It is not.
pub fn validate(path: &str) -> Result<(), PathError> {
    let Some(names) = path.strip_prefix('/') else {
        return Err(if path.is_empty() { PathError::Empty } else { PathError::NotAbsolute });
    };
    if names.is_empty() {
        return Ok(());
    }
    if names.ends_with('/') {
        return Err(PathError::TrailingSlash);
    }
    let characters = if names.is_ascii() {
        names.bytes().all(|byte| !byte.is_ascii_control())
    } else {
        names.chars().all(is_allowed)
    };
    if !characters {
        return Err(PathError::Character);
    }
    for name in names.split('/') {
        match name {
            "" => return Err(PathError::EmptyName),
            "." | ".." => return Err(PathError::Relative),
            _ => {}
        }
    }
    Ok(())
}

const fn is_allowed(character: char) -> bool {
    !matches!(
        character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..=char::MAX
    )
}

/// The path of a znode's parent; the root and what has no slash have none.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some(ROOT),
        slash => Some(&path[..slash]),
    }
}

/// The last name of a path; the root's is empty.
#[must_use]
pub fn name(path: &str) -> &str {
    path.rfind('/').map_or(path, |slash| &path[slash + 1..])
}

/// The deepest of some paths that `path` is, or is below of. `last_upto` is to find the last of them, in order, that does not
/// come after the path that it is given.
///
/// It looks at those paths, not at everything that is above `path`, which may be very deep.
pub fn deepest_above<'a>(path: &str, last_upto: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    let mut upto = path;
    loop {
        let found = last_upto(upto)?;
        let common = found.bytes().zip(path.bytes()).take_while(|(one, other)| one == other).count();
        let is_whole = common > 0 && matches!(path.as_bytes().get(common), None | Some(b'/'));
        if common == found.len() && (is_whole || found == ROOT) {
            return Some(found);
        }
        // What is above `path` and comes before what was found has at most so much in common with it.
        upto = match path.as_bytes()[..=common].iter().rposition(|byte| *byte == b'/')? {
            0 if upto == ROOT => return None,
            0 => ROOT,
            slash => &path[..slash],
        };
    }
}

/// Whether a path is one of those that are always there and cannot be deleted.
#[must_use]
pub fn is_permanent(path: &str) -> bool {
    matches!(path, ROOT | SYSTEM | QUOTA | CONFIG)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::ops::Bound;

    use super::*;

    #[test]
    fn paths_are_valid_or_not_as_in_zookeeper() {
        let valid = [
            "/",
            "/a",
            "/a/b",
            "/a b",
            "/.a",
            "/a.",
            "/...",
            "/a/..b",
            "/\u{a0}",
            "/é\u{d7ff}\u{f900}\u{ffef}",
        ];
        for path in valid {
            assert_eq!(validate(path), Ok(()), "{path:?}");
        }
        let invalid = [
            ("", PathError::Empty),
            ("a", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("//", PathError::TrailingSlash),
            ("/a/", PathError::TrailingSlash),
            ("/a//b", PathError::EmptyName),
            ("//a", PathError::EmptyName),
            ("/.", PathError::Relative),
            ("/..", PathError::Relative),
            ("/a/./b", PathError::Relative),
            ("/a/../b", PathError::Relative),
            ("/a\0", PathError::Character),
            ("/\u{1}", PathError::Character),
            ("/a\u{1f}b", PathError::Character),
            ("/\u{7f}", PathError::Character),
            ("/\u{9f}", PathError::Character),
            ("/\u{e000}", PathError::Character),
            ("/\u{f8ff}", PathError::Character),
            ("/\u{fff0}", PathError::Character),
            ("/\u{ffff}", PathError::Character),
            ("/\u{1f600}", PathError::Character),
        ];
        for (path, error) in invalid {
            assert_eq!(validate(path), Err(error), "{path:?}");
        }
    }

    #[test]
    fn the_deepest_of_some_paths_above_another_is_found_without_a_look_at_all_that_are_above() {
        let names = ["", "!", "a", "a!", "ab", "b"];
        let mut paths: Vec<String> =
            vec!["/".to_owned(), "/a".to_owned(), "/a!".to_owned(), "/ab".to_owned()];
        for (one, other) in names.iter().flat_map(|one| names.iter().map(move |other| (one, other))) {
            paths.extend([format!("/{one}/{other}"), format!("/a/{one}/{other}")]);
        }
        // All sets of three of them, strange ones too: who watches may name any.
        for path in paths.iter().filter(|path| validate(path).is_ok()) {
            for (index, third) in paths.iter().enumerate() {
                let set: BTreeSet<&str> =
                    ["", third, &paths[index * 7 % paths.len()], &paths[index * 5 % paths.len()]].into();
                let is_above =
                    |one: &&str| *one == path || path.starts_with(&format!("{}/", one.trim_end_matches('/')));
                let expected = set
                    .iter()
                    .copied()
                    .filter(|one| validate(one).is_ok())
                    .filter(is_above)
                    .max_by_key(|one| one.len());
                let looks = Cell::new(0);
                let found = deepest_above(path, |upto| {
                    looks.set(looks.get() + 1);
                    set.range::<str, _>((Bound::Unbounded, Bound::Included(upto))).next_back().copied()
                });
                assert_eq!(found, expected, "{path:?} among {set:?}");
                assert!(looks.get() <= set.len() + 1, "{} looks for {path:?} among {set:?}", looks.get());
            }
        }
        let (deep, looks) = ("/a".repeat(100_000), Cell::new(0));
        let found = deepest_above(&deep, |upto| {
            looks.set(looks.get() + 1);
            ["/", "/a/0"].into_iter().rfind(|one| *one <= upto)
        });
        assert_eq!((found, looks.get()), (Some("/"), 2));
    }

    #[test]
    fn a_path_has_a_parent_and_a_name() {
        let parts = [
            ("/", None, ""),
            ("/a", Some("/"), "a"),
            ("/a/b", Some("/a"), "b"),
            ("//a", Some("/"), "a"),
            ("/a/", Some("/a"), ""),
            ("", None, ""),
            ("a", None, "a"),
        ];
        for (path, its_parent, its_name) in parts {
            assert_eq!((parent(path), name(path)), (its_parent, its_name), "{path:?}");
        }
    }
}
