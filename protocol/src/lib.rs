//! Ids, frames, handshake, messages and error codes of quorumkv.
