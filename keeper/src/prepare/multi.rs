//! `multi`: all of its operations, or none.

use super::{At, Caller, Pending, Rejected};
use crate::tree::Tree;
use crate::txn::Change;
use crate::wire::{ErrorCode, MAX_PACKET, MultiOp};

/// Most bytes of ACLs in one `multi`, as many as a single znode can have: with the rest of its packet, below what the log takes
/// in one piece.
const MAX_ACL_BYTES: usize = MAX_PACKET as usize;

impl Pending {
    pub(super) fn multi(
        &mut self,
        tree: &Tree,
        ops: Vec<MultiOp>,
        caller: &Caller<'_>,
        at: At,
    ) -> Result<Change, Rejected> {
        let count = ops.len();
        let (mut changes, mut acl_bytes) = (Vec::with_capacity(count), 0);
        self.begin();
        for op in ops {
            let change = match op {
                MultiOp::Create(create) => self.create(tree, create, caller, at),
                MultiOp::Delete(delete) => self.delete(tree, delete, caller, at),
                MultiOp::SetData(set) => self.set_data(tree, set, caller, at),
                MultiOp::Check(check) => self.check(tree, &check, caller),
            };
            // What was a packet stays as long as it was, but for ACLs that say `auth`.
            let change = change.and_then(|change| {
                acl_bytes += change.acl_bytes();
                if acl_bytes > MAX_ACL_BYTES { Err(ErrorCode::InvalidAcl) } else { Ok(change) }
            });
            match change {
                Ok(change) => changes.push(change),
                Err(code) => {
                    self.roll_back();
                    // What could not be understood fails as a whole, as when it is noticed while it is read.
                    if code == ErrorCode::MarshallingError {
                        return Err(Rejected { code, results: Vec::new() });
                    }
                    let mut results = vec![0; changes.len()];
                    results.push(code.number());
                    results.resize(count, ErrorCode::RuntimeInconsistency.number());
                    return Err(Rejected { code, results });
                }
            }
        }
        self.commit();
        Ok(Change::Multi(changes))
    }
}
