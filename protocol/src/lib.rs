//! The wire of quorumkv: ids, frames, handshake, messages and error codes.
//!
//! A connection carries [frames](frame): a 32-bit big-endian length and a postcard body. The first frame each way is
//! a [`Hello`](hello::Hello) and its [reply](hello::HelloReply); what may follow depends on the
//! [role](hello::Role): [client requests](client) or [peer messages](peer). `docs/protocol.md` is the full account.
//!
//! This crate is pure: it owns no socket, clock, random source or task.

mod budget;
pub mod client;
pub mod entry;
mod error;
pub mod frame;
pub mod hello;
mod ids;
pub mod membership;
pub mod peer;
mod slices;

pub use error::{Certainty, ErrorCode};
pub use ids::{ClientId, ClusterId, EntryId, Epoch, NodeId, RequestId, Version};
