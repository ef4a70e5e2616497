//! The first room of the chain: what a client asks becomes a change that decides everything, or is rejected.
//!
//! Transactions that are on their way through the log are not in the tree yet, and the next request must see them
//! nevertheless. [`Pending`] holds what they will have changed; every look at a znode goes there first.
//!
//! The order of the checks is ZooKeeper's, since a request that is wrong in two ways is to be told the same of them.

mod multi;
mod operations;
mod pending;
mod sessions;

#[cfg(test)]
mod multi_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use pending::Pending;

use crate::tree::Tree;
use crate::txn::Change;
use crate::wire::{ErrorCode, Id, Write};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The session, which must have begun.
    pub session: i64,
    /// Every identity, that of the scheme `ip` included.
    pub ids: &'a [Id],
    /// Whether the disk has room for what makes the data larger. Without it what would have been accepted fails with
    /// [`ErrorCode::SystemError`]; deletes and checks do not.
    pub has_room: bool,
}

/// What is asked for cannot be done, and changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{code}")]
pub struct Rejected {
    /// Why.
    pub code: ErrorCode,
    /// For a `multi`, one number for each operation: 0 before the one that failed, its error, and
    /// [`ErrorCode::RuntimeInconsistency`] after it. Otherwise empty.
    pub results: Vec<i32>,
}

/// The transaction that a change is to be.
#[derive(Clone, Copy)]
struct At {
    zxid: i64,
    now_ms: i64,
}

impl Pending {
    /// Decides what a request changes, and remembers it under `zxid`, which must be above all that came before.
    /// `now_ms` is the time of the transaction, in milliseconds since 1970.
    ///
    /// # Errors
    /// The request is rejected; then nothing is remembered, and `zxid` is free.
    pub fn prepare(
        &mut self,
        tree: &Tree,
        write: Write,
        caller: &Caller<'_>,
        zxid: i64,
        now_ms: i64,
    ) -> Result<Change, Rejected> {
        self.check_order(tree, zxid);
        let at = At { zxid, now_ms };
        let change = match write {
            Write::Create(create) => self.create(tree, create, caller, at),
            Write::Delete(delete) => self.delete(tree, delete, caller, at),
            Write::SetData(set) => self.set_data(tree, set, caller, at),
            Write::SetAcl(set) => self.set_acl(tree, set, caller, at),
            Write::Multi(ops) => return self.multi(tree, ops, caller, at),
        };
        change.map_err(|code| Rejected { code, results: Vec::new() })
    }
}
