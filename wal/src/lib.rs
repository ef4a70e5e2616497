//! A write-ahead log: preallocated segments, chained checksums, group commit.
