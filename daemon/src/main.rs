//! kvd: the quorumkv daemon.

fn main() {}
