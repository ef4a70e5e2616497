//! Bodies of requests.

use quorumkv_keeper::jute::Encoder;

use super::{Entry, encoded};

/// A path.
pub(crate) fn path(path: &str) -> Vec<u8> {
    encoded(|e| {
        e.string(path);
    })
}

/// A path and whether to watch.
pub(crate) fn watched(path: &str, watch: bool) -> Vec<u8> {
    encoded(|e| {
        e.string(path).boolean(watch);
    })
}

/// A path and a version, a mode or a kind.
pub(crate) fn numbered(path: &str, number: i32) -> Vec<u8> {
    encoded(|e| {
        e.string(path).int(number);
    })
}

/// `create`, `create2` and `createContainer`.
pub(crate) fn create(path: &str, data: Option<&[u8]>, acl: &[Entry], flags: i32) -> Vec<u8> {
    encoded(|e| {
        e.string(path).buffer(data);
        write_acl(e, acl);
        e.int(flags);
    })
}

/// `createTTL`.
pub(crate) fn create_ttl(path: &str, data: Option<&[u8]>, acl: &[Entry], flags: i32, ttl: i64) -> Vec<u8> {
    let mut body = create(path, data, acl, flags);
    body.extend_from_slice(&ttl.to_be_bytes());
    body
}

/// `setData`.
pub(crate) fn set(path: &str, data: Option<&[u8]>, version: i32) -> Vec<u8> {
    encoded(|e| {
        e.string(path).buffer(data).int(version);
    })
}

/// `setACL`.
pub(crate) fn set_acl(path: &str, acl: &[Entry], version: i32) -> Vec<u8> {
    encoded(|e| {
        e.string(path);
        write_acl(e, acl);
        e.int(version);
    })
}

/// `auth`.
pub(crate) fn auth(scheme: &str, auth: &[u8]) -> Vec<u8> {
    encoded(|e| {
        e.int(0).string(scheme).buffer(Some(auth));
    })
}

/// `setWatches` with three lists, `setWatches2` with five.
pub(crate) fn set_watches(relative_zxid: i64, lists: &[Vec<String>]) -> Vec<u8> {
    encoded(|e| {
        e.long(relative_zxid);
        for list in lists {
            e.length(list.len());
            list.iter().for_each(|path| {
                e.string(path);
            });
        }
    })
}

/// `multi` and `multiRead`: types and bodies.
pub(crate) fn multi(ops: &[(i32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (op, body) in ops {
        out.extend(encoded(|e| {
            e.int(*op).boolean(false).int(-1);
        }));
        out.extend_from_slice(body);
    }
    out.extend(encoded(|e| {
        e.int(-1).boolean(true).int(-1);
    }));
    out
}

fn write_acl(e: &mut Encoder<'_>, acl: &[Entry]) {
    e.length(acl.len());
    for (permissions, scheme, id) in acl {
        e.int(*permissions);
        for text in [scheme, id] {
            e.buffer(text.as_deref().map(str::as_bytes));
        }
    }
}
