//! A small model of the replication protocol, explored exhaustively: every order of messages, syncs and crashes within
//! its bounds (`docs/testing.md`).
//!
//! The rules are those of DESIGN 5 to 7, written down a second time and as briefly as possible: [`steps`] says what can happen,
//! [`state`] what there is, [`properties`] what must hold. [`config::Bug`] replaces one rule by a wrong one, to see that
//! the properties would tell.

pub mod checker;
pub mod config;
pub mod events;
mod leading;
pub mod log;
pub mod properties;
mod reads;
pub mod report;
pub mod state;
pub mod steps;
mod takeover;
