//! kvctl: the command line of quorumkv.

fn main() {}
