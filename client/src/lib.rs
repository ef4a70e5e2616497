//! Async client library for quorumkv.
