//! Quotas, as ZooKeeper keeps them: znodes below `/zookeeper/quota`.
//!
//! `/zookeeper/quota/PATH/zookeeper_limits` says that there is a quota on `PATH`, and which. Then
//! `/zookeeper/quota/PATH/zookeeper_stats`, if it is there, says how many znodes `PATH` and everything below it are, and
//! how many bytes they hold; the server keeps it up to date. Nobody is stopped by a limit: so it is in ZooKeeper, too,
//! unless it is told otherwise (`enforceQuota`).

use std::sync::Arc;

use bytes::Bytes;

use super::Tree;
use super::sums::Sum;
use crate::path;

const LIMITS: &str = "/zookeeper_limits";
const STATS: &str = "/zookeeper_stats";
const COUNT: &[u8] = b"count";
const BYTES: &[u8] = b"bytes";
const BYTE_HARD_LIMIT: &[u8] = b"byteHardLimit";
const COUNT_HARD_LIMIT: &[u8] = b"countHardLimit";

/// The path that a quota is set on, if this is the znode that sets one.
pub(super) fn root_of_limits(path: &str) -> Option<&str> {
    root_of(path, LIMITS)
}

fn root_of<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.strip_prefix(path::QUOTA)?.strip_suffix(name).filter(|root| root.starts_with('/'))
}

impl Tree {
    /// The deepest path with a quota that this one is, or is below of.
    fn quota_on(&self, path: &str) -> Option<&str> {
        path::deepest_above(path, |upto| self.quotas.get_prev(upto).map(|root| &**root))
    }

    /// Adds to the stats of the quota that a path is under, if it is under one.
    pub(super) fn account(&mut self, path: &str, count: i64, bytes_before: usize, bytes: usize) {
        let Some(root) = self.quota_on(path) else { return };
        let stats_path = format!("{}{root}{STATS}", path::QUOTA);
        let Some(node) = self.nodes.get(stats_path.as_str()) else { return };
        let difference = bytes as i64 - bytes_before as i64;
        let mut stats = Stats::parse(node.data().map_or(&[], |data| data));
        stats.count = stats.count.wrapping_add(count);
        stats.bytes = stats.bytes.wrapping_add(difference);
        self.write_stats(&stats_path, &stats);
    }

    /// If `path` is where the stats of a quota are, counts what is there by now.
    pub(super) fn count_stats(&mut self, path: &str) {
        let Some(root) = root_of(path, STATS) else { return };
        let mut sum = Sum::default();
        if let Some(node) = self.nodes.get(root) {
            sum = self.sum_below(root);
            sum += Sum::of(node);
        }
        self.write_stats(
            path,
            &Stats { count: sum.znodes as i64, bytes: sum.bytes as i64, ..Stats::default() },
        );
    }

    /// Sets the data of the znode, and nothing else of it: nobody has asked for this change, nobody is told.
    fn write_stats(&mut self, path: &str, stats: &Stats) {
        let node = self.nodes.get_mut(path).expect("whoever writes stats has seen the znode");
        let node = Arc::make_mut(node);
        let before = node.data_len();
        node.data = Some(Bytes::from(stats.to_string()));
        let bytes = node.data_len();
        self.data_bytes = self.data_bytes - before as u64 + bytes as u64;
        self.change_sums(path, before, bytes);
    }
}

/// What a quota's znodes say: `count=N,bytes=N`, and perhaps `=;byteHardLimit=N;countHardLimit=N`. Without a number it is -1.
///
/// It is clients who write this. What is not understood, keys that nobody knows included, is gone when the server writes it
/// the next time: so it stays short.
pub(super) struct Stats {
    count: i64,
    bytes: i64,
    byte_hard_limit: Option<i64>,
    count_hard_limit: Option<i64>,
}

impl Default for Stats {
    fn default() -> Self {
        Self { count: -1, bytes: -1, byte_hard_limit: None, count_hard_limit: None }
    }
}

impl Stats {
    pub(super) fn parse(data: &[u8]) -> Self {
        let mut stats = Self::default();
        for pair in data.split(|byte| matches!(byte, b',' | b';')) {
            let mut parts = pair.split(|byte| *byte == b'=');
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let Some(number) = number.or_else(|| value.is_empty().then_some(-1)) else { continue };
            match key {
                COUNT => stats.count = number,
                BYTES => stats.bytes = number,
                BYTE_HARD_LIMIT => stats.byte_hard_limit = Some(number),
                COUNT_HARD_LIMIT => stats.count_hard_limit = Some(number),
                _ => {}
            }
        }
        stats
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "count={},bytes={}", self.count, self.bytes)?;
        // Clients that do not know of other keys stop reading at the second '='.
        let mut before = "=;";
        for (key, limit) in
            [("byteHardLimit", self.byte_hard_limit), ("countHardLimit", self.count_hard_limit)]
        {
            if let Some(limit) = limit {
                write!(out, "{before}{key}={limit}")?;
                before = ";";
            }
        }
        Ok(())
    }
}
