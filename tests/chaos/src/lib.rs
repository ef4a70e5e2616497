//! Chaos: real `kvd` processes and ZooKeepers under real faults, with everything that clients hear recorded and checked.
//!
//! [`testbed`] is what can be harmed: processes, network, clocks, and each node's [`disk`]. [`cluster`] keeps it running, as an
//! operator would; [`faults`] harm it by a schedule; [`clients`] use it, [`recorder`] has what they heard, and [`run`] joins
//! all of that. `docs/chaos-section.md` says how to use it.

pub mod clients;
pub mod cluster;
pub mod disk;
mod ends;
pub mod faults;
pub mod recorder;
pub mod report;
pub mod run;
pub mod testbed;
mod verdict;
