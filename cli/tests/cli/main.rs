//! kvctl as its users run it: a process, its output and its exit code, against nodes that answer from memory.

mod cluster;
mod compare;
mod errors;
mod fake;
mod help;
mod run;
mod transfer;
mod values;
mod verify;
