//! keeper beside Apache ZooKeeper: raw bytes, random sequences, real clients, bad input, killing.

mod bad_input;
mod clients;
mod differential;
mod raw;
mod reliability;
mod servers;
mod settings;
mod shown;
mod traps;
