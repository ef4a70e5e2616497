//! What nobody should send, and where nobody should start a node: a clear error each time, nothing lost, and nobody
//! else disturbed. Real processes, a real ZooKeeper, and sockets that say anything.

mod bystander;
mod directory;
mod hello;
mod limits;
mod log_damage;
mod peers;
mod process;
mod raw;
mod requests;
mod start;
mod stop;
