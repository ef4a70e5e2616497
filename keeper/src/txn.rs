//! Transactions: what goes through the log, and what applying it comes to.
//!
//! A transaction says what is to be, not what was asked: versions and names are already decided, so that applying it
//! decides nothing, cannot fail, and comes to the same when it is done twice.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::wire::{Acl, EventKind, Stat};

/// A change that has its place in the order of all changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Txn {
    /// Its place: 1, 2, 3 …
    pub zxid: i64,
    /// Who asked for it; 0: the server itself.
    pub session: i64,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// What it is.
    pub change: Change,
}

/// What changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// The session of the transaction begins.
    CreateSession {
        /// Its timeout, in milliseconds.
        timeout_ms: i32,
        /// Its password.
        password: [u8; 16],
    },
    /// The session of the transaction ends, and with it these ephemeral znodes.
    CloseSession {
        /// Their paths, in the order in which they are deleted.
        ephemerals: Vec<Arc<str>>,
    },
    /// A znode is created.
    Create {
        /// Where, with its number if it is sequential.
        path: Arc<str>,
        /// What it holds; null is not the same as empty.
        data: Option<Bytes>,
        /// Who may do what.
        acl: Arc<[Acl]>,
        /// What it is.
        owner: Owner,
        /// How many children its parent has had by then, which its next sequential child is named after.
        parent_creations: i32,
    },
    /// A znode is deleted.
    Delete {
        /// Which.
        path: Arc<str>,
    },
    /// A znode's data is set.
    SetData {
        /// Which.
        path: Arc<str>,
        /// What it holds.
        data: Option<Bytes>,
        /// Its version by then.
        version: i32,
    },
    /// A znode's ACL is set.
    SetAcl {
        /// Which.
        path: Arc<str>,
        /// Who may do what.
        acl: Arc<[Acl]>,
        /// The version of its ACL by then.
        version: i32,
    },
    /// Nothing: a version was checked.
    Check,
    /// All of these, none of which is another of its kind.
    Multi(#[serde(deserialize_with = "flat")] Vec<Change>),
}

thread_local! {
    /// Whether this thread is reading the changes of a [`Change::Multi`]. serde offers no way to hand a context down.
    static IN_MULTI: Cell<bool> = const { Cell::new(false) };
}

/// Reads changes without another [`Change::Multi`] among them: nobody writes one, and there could be so many within
/// each other that the stack has no room for them.
fn flat<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Change>, D::Error> {
    if IN_MULTI.replace(true) {
        return Err(D::Error::custom("a multi within another"));
    }
    let changes = Vec::deserialize(deserializer);
    IN_MULTI.set(false);
    changes
}

impl Change {
    /// Bytes of the ACL that it sets, roughly.
    pub(crate) fn acl_bytes(&self) -> usize {
        match self {
            Self::Create { acl, .. } | Self::SetAcl { acl, .. } => {
                acl.iter().map(|entry| entry.id.scheme.len() + entry.id.id.len() + 12).sum()
            }
            Self::CreateSession { .. }
            | Self::CloseSession { .. }
            | Self::Delete { .. }
            | Self::SetData { .. }
            | Self::Check => 0,
            Self::Multi(changes) => changes.iter().map(Self::acl_bytes).sum(),
        }
    }
}

/// What a znode is, as far as that decides how long it stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Owner {
    /// Stays until it is deleted.
    Nobody,
    /// Goes with this session.
    Session(i64),
    /// Is a container.
    Container,
    /// Goes when nothing has happened to it for so many milliseconds.
    Ttl(i64),
}

/// What applying a transaction came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// What there is to tell whoever asked.
    pub outcome: Outcome,
    /// What watchers are to be told, in order.
    pub events: Vec<Event>,
}

/// What there is to tell whoever asked for a change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// That it is done.
    #[default]
    Done,
    /// What was created.
    Created {
        /// Its path.
        path: Arc<str>,
        /// Its stat.
        stat: Stat,
    },
    /// The stat of what was set.
    Stat(Stat),
    /// One outcome for each change of a [`Change::Multi`].
    Multi(Vec<Outcome>),
}

/// Something happened to a znode.
///
/// Whoever has both a data and a child watch on a znode that is deleted is told once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// To which.
    pub path: Arc<str>,
    /// Its ACL: only those whom it permits to read are told.
    pub acl: Arc<[Acl]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Id;

    #[test]
    fn changes_within_changes_are_refused_however_many() {
        let nested = Change::Multi(vec![Change::Check, Change::Multi(vec![Change::Check])]);
        let bytes = postcard::to_allocvec(&nested).expect("it encodes");
        assert!(postcard::from_bytes::<Change>(&bytes).is_err());
        let deep = [[7, 1].repeat(100_000), vec![6]].concat();
        assert!(postcard::from_bytes::<Change>(&deep).is_err());
        // The next is read as if nothing had been.
        assert_eq!(postcard::from_bytes::<Change>(&[7, 1, 6]), Ok(Change::Multi(vec![Change::Check])));
    }

    /// The log of an earlier version must be readable: a change is only ever added at the end of the list.
    #[test]
    fn transactions_keep_their_form_in_the_log() {
        let acl: Arc<[Acl]> = [Acl { permissions: 31, id: Id::new("digest", "u:h") }].into();
        let (path, data): (Arc<str>, _) = ("/a".into(), Some(Bytes::from_static(b"xy")));
        let create = |owner, data: Option<Bytes>| Change::Create {
            path: Arc::clone(&path),
            data,
            acl: Arc::clone(&acl),
            owner,
            parent_creations: 3,
        };
        let cases = [
            (
                Change::CreateSession { timeout_ms: 4000, password: [7; 16] },
                "1203d80400c03e07070707070707070707070707070707",
            ),
            (
                Change::CloseSession { ephemerals: vec![Arc::clone(&path), "/b".into()] },
                "1203d8040102022f61022f62",
            ),
            (create(Owner::Nobody, data.clone()), "1203d80402022f6101027879013e0664696765737403753a680006"),
            (create(Owner::Session(-1), None), "1203d80402022f6100013e0664696765737403753a68010106"),
            (create(Owner::Container, None), "1203d80402022f6100013e0664696765737403753a680206"),
            (create(Owner::Ttl(5), None), "1203d80402022f6100013e0664696765737403753a68030a06"),
            (Change::Delete { path: Arc::clone(&path) }, "1203d80403022f61"),
            (Change::SetData { path: Arc::clone(&path), data, version: 2 }, "1203d80404022f610102787904"),
            (
                Change::SetAcl { path: Arc::clone(&path), acl, version: -1 },
                "1203d80405022f61013e0664696765737403753a6801",
            ),
            (Change::Check, "1203d80406"),
            (Change::Multi(vec![Change::Check, Change::Delete { path }]), "1203d80407020603022f61"),
        ];
        for (change, expected) in cases {
            let txn = Txn { zxid: 9, session: -2, time_ms: 300, change };
            let bytes = postcard::to_allocvec(&txn).expect("it encodes");
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(postcard::from_bytes::<Txn>(&bytes).expect("it is one"), txn);
            assert_eq!(hex, expected, "{txn:?}");
        }
    }
}
