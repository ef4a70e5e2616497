//! The replication state machine of quorumkv, without IO.
