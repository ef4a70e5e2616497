//! The scenarios of a cluster that serves: real `kvd` processes, a real ZooKeeper, and what goes wrong with both.
//!
//! Each module is one scenario. Tests wait for what must become true, with long deadlines, and never for a time to
//! pass: they say the same on a slow machine.

mod contents;
mod load;

mod add_and_read;
mod compare;
mod conflict;
mod damage;
mod drain;
mod gives_up;
mod impeachment;
mod kill_leader;
mod members;
mod nine_servers;
mod quorum;
mod real_input;
mod recover;
mod restart;
mod restore;
mod stale_read;
mod stalled;
mod two_leaders;
mod verify;
mod zookeeper_gone;
