//! What the replica needs to see of the state that the shell keeps.

use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{RequestId, Version};

use crate::effects::Record;
use crate::requests::Known;

/// What the state holds is damaged, so that it cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable;

/// The applied state: every committed entry up to some version, and nothing else.
///
/// It may be further on than the last [`Input::Applied`](crate::Input::Applied) said, never behind it.
pub trait StateView {
    /// What the key holds.
    ///
    /// # Errors
    /// [`Unreadable`]. An implementation whose storage fails otherwise ends the process.
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Unreadable>;

    /// The configuration after the last applied entry: the newest that was applied or came with a snapshot, and before
    /// there was one the first of the cluster, or [`Configuration::UNKNOWN`] if this node has not been told it. All
    /// nodes of a cluster begin with the same one.
    fn configuration(&self) -> Configuration;

    /// What became of a request that was sent for the first time when `since` was committed.
    fn lookup(&self, request: RequestId, since: Version) -> Known;
}
