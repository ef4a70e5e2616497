//! Async client library for quorumkv.
//!
//! ```no_run
//! use quorumkv_client::{Client, Version, WriteError};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder(["127.0.0.1:5000", "127.0.0.1:5001", "127.0.0.1:5002"]).connect()?;
//!
//! let written = client.put("greeting", "hello").await?;
//! let got = client.get("greeting").await?;
//! assert_eq!(got.value.unwrap().version, written.version);
//!
//! // A key that must not exist yet.
//! match client.compare_and_set("lock", Version::ZERO, "mine").await {
//!     Ok(written) => println!("{:?}", written.outcome),
//!     Err(WriteError::Unknown { cause }) => println!("it may have been written: {cause}"),
//!     Err(error) => println!("certainly not written: {error}"),
//! }
//!
//! let mut pages = client.pages("user/", Default::default());
//! while let Some(page) = pages.next().await {
//!     for item in page?.items {
//!         println!("{:?}", item.key);
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is cheap to clone, and one is enough for a process: it keeps one connection per endpoint, with many
//! requests in flight on it. Connections are made when they are first needed and made again when they are lost.
//!
//! Writes go to the leader as soon as it is known; any node forwards them until then. Reads go to all endpoints in
//! turn. Both are retried elsewhere until their deadline ([`ClientBuilder::timeout`]).
//!
//! # Three outcomes of a write
//!
//! A write is *applied* (`Ok`), *not applied*, or *unknown*: it was sent, and no answer came that settles it. A
//! retry carries the same request id, so that it is applied at most once however often it is sent. See
//! [`WriteError`] for what may be concluded when.

mod attempts;
mod backoff;
mod builder;
mod client;
mod context;
mod endpoint;
mod error;
mod handshake;
mod link;
mod pool;
mod read;
mod route;
mod sequences;
mod session;
mod session_io;
mod write;

pub use builder::ClientBuilder;
pub use client::{Client, GetOptions, Pages, ScanOptions};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{
    Cause, ChangeError, ConnectError, ConnectionError, ConnectionFailure, Limited, NodeError, ReadError,
    Refusal, TooLarge, WriteError,
};
pub use quorumkv_protocol::client::{
    Consistency, DamageFound, DamagedPart, Evidence, GaveUp, Got, Item, MemberStatus, Members, NodeRole,
    NodeStatus, Rule, Scanned, SnapshotProgress, Takeover, Versioned, Witness, Write, Written,
};
pub use quorumkv_protocol::entry::Outcome;
pub use quorumkv_protocol::membership::{Change, Member, Refusal as ChangeRefusal};
pub use quorumkv_protocol::{Certainty, ClusterId, Epoch, ErrorCode, NodeId, Version};
