//! The replication state machine of quorumkv, without IO: inputs in, one batch of effects out.
//!
//! A [`Replica`] owns no clock, random source, socket, file or task; the shell (the daemon, or a simulator) brings it
//! everything that happens as an [`Input`] and carries out the [`Effects`]. The one ordering that safety needs, nothing
//! is acknowledged before it is durable, is a field of the effects: [`Effects::when_durable`].
//!
//! Who does what: `follower` accepts and promises; `contender` takes over; `leader` evaluates, replicates and commits,
//! with a `progress` for each replica; `pull` fetches what is missing, by entries or by snapshot; `samples` answers
//! readers and `reads` is one; `comparison` finds replicas whose states differ, and `integrity` keeps this node's own from being
//! used until it is repaired; `changes` are those of the cluster's members, and `membership` is this node's place among them; `log`, `configurations`, `overlay` and [`requests`] are the data.

mod changes;
mod comparison;
mod configurations;
mod contender;
mod effects;
mod evaluate;
mod follower;
mod input;
mod integrity;
mod leader;
mod log;
mod membership;
mod outbox;
mod overlay;
mod progress;
mod pull;
mod reads;
mod replica;
pub mod requests;
mod samples;
mod state;
mod status;
mod suspicion;
mod time;
mod waiting;

pub use effects::{
    Damage, DigestTask, Effects, LogPurpose, LogRead, LogRecord, Notice, Outgoing, PersistId, Record, Reply,
    StoodDown, Task, Unwell,
};
pub use input::{Input, Recovered, Settings, Token};
pub use replica::Replica;
pub use state::{StateView, Unreadable};
pub use status::{Load, Membership, PeerProgress, Status};
pub use time::Timestamp;
