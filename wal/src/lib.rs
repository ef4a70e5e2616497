//! A write-ahead log: preallocated segments, chained checksums, group commit.
//!
//! The log holds what a replica must not forget: its entries, its promise and the point from which its entries count
//! (see [`Record`]). It knows nothing of replication; it is plain threads and files.
//!
//! - [`Log::open`] recovers a directory. A torn tail is cut; damage is reported and left alone.
//! - [`Log::spawn`] starts the thread that writes. [`Writer`] submits batches to it; a callback receives
//!   their tickets, in order, once they are on disk.
//! - [`Reader`] reads current entries from any thread, and verifies what was written.
//!
//! ```
//! use quorumkv_wal::{Batch, Epoch, Log, Mark, Options, Record};
//!
//! # let dir = tempfile::tempdir()?;
//! let (log, recovered) = Log::open(dir.path(), Options { segment_bytes: 1 << 20, ..Options::default() }, 0)?;
//! assert_eq!(recovered.last, Mark::ZERO);
//! let reader = log.reader();
//! let (durable, tickets) = std::sync::mpsc::sync_channel(1024);
//! let mut writer = log.spawn(
//!     move |group| group.tickets.into_iter().for_each(|ticket| durable.send(ticket).unwrap()),
//!     |error| eprintln!("the log has failed: {error}"),
//! )?;
//! let mark = Mark { epoch: Epoch { counter: 1, node: 7 }, version: 1 };
//! let entry = Record::Entry { mark, payload: "hello".into() };
//! writer.try_submit(Batch { records: vec![entry], ticket: "first" })?;
//! assert_eq!(tickets.recv()?, "first");
//! assert_eq!(reader.read(1, 1 << 20)?[0].payload, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The caller makes sure that one process at a time uses a directory.

mod append;
mod disk;
mod files;
mod format;
#[cfg(test)]
mod fuzz;
mod gate;
mod housekeeper;
mod index;
mod log;
mod queue;
mod reader;
mod record;
mod recover;
mod segment;
mod stepped;
mod tail;
mod verify;
mod writer;

pub use disk::{FaultHook, IoError, Operation};
pub use files::{Files, LogFile};
pub use log::{Log, Options};
pub use reader::{ReadError, Reader};
pub use record::{Entry, Epoch, Mark, Record};
pub use recover::{Damage, OpenError, Recovered, TornTail};
pub use stepped::{StepError, SteppedLog};
pub use tail::InvalidRecord;
pub use verify::{DamagedSegment, VerifyError};
pub use writer::{Batch, DurableGroup, SubmitError, Writer};
