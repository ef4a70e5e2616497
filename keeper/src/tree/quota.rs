//! Quotas, as ZooKeeper keeps them: znodes below `/zookeeper/quota`.
//!
//! `/zookeeper/quota/PATH/zookeeper_limits` says that there is a quota on `PATH`, and which. Then
//! `/zookeeper/quota/PATH/zookeeper_stats`, if it is there, says how many znodes `PATH` and everything below it are, and
//! how many bytes they hold; the server keeps it up to date. Nobody is stopped by a limit: so it is in ZooKeeper, too,
//! unless it is told otherwise (`enforceQuota`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;

use super::Tree;
use crate::path;

const LIMITS: &str = "/zookeeper_limits";
const STATS: &str = "/zookeeper_stats";
const COUNT: &str = "count";
const BYTES: &str = "bytes";

/// The path that a quota is set on, if this is the znode that sets one.
pub(super) fn root_of_limits(path: &str) -> Option<&str> {
    root_of(path, LIMITS)
}

fn root_of<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.strip_prefix(path::QUOTA)?.strip_suffix(name).filter(|root| root.starts_with('/'))
}

impl Tree {
    /// The deepest path with a quota that this one is, or is below of.
    fn quota_on<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.quotas.is_empty() {
            return None;
        }
        let prefixes = std::iter::successors(Some(path), |path| path::parent(path));
        prefixes.into_iter().find(|path| self.quotas.contains(*path))
    }

    /// Adds to the stats of the quota that a path is under, if it is under one.
    pub(super) fn account(&mut self, path: &str, count: i64, bytes_before: usize, bytes: usize) {
        let Some(root) = self.quota_on(path) else { return };
        let stats_path = format!("{}{root}{STATS}", path::QUOTA);
        let Some(node) = self.nodes.get(stats_path.as_str()) else { return };
        let difference = bytes as i64 - bytes_before as i64;
        let mut stats = Stats::parse(node.data().map_or(&[], |data| data));
        stats.set(COUNT, stats.get(COUNT).wrapping_add(count));
        stats.set(BYTES, stats.get(BYTES).wrapping_add(difference));
        self.write_stats(&stats_path, &stats);
    }

    /// If `path` is where the stats of a quota are, counts what is there by now.
    pub(super) fn count_stats(&mut self, path: &str) {
        let Some(root) = root_of(path, STATS) else { return };
        let mut stats = Stats::parse(&[]);
        let (mut count, mut bytes) = (0, 0);
        if let Some(node) = self.nodes.get(root) {
            for node in std::iter::once(node).chain(self.below(root).map(|(_, node)| node)) {
                count += 1;
                bytes += node.data_len() as i64;
            }
        }
        stats.set(COUNT, count);
        stats.set(BYTES, bytes);
        self.write_stats(path, &stats);
    }

    /// Sets the data of the znode, and nothing else of it: nobody has asked for this change, nobody is told.
    fn write_stats(&mut self, path: &str, stats: &Stats) {
        let node = self.nodes.get_mut(path).expect("whoever writes stats has seen the znode");
        let node = Arc::make_mut(node);
        let before = node.data_len();
        node.data = Some(Bytes::from(stats.to_string()));
        self.data_bytes = self.data_bytes - before as u64 + node.data_len() as u64;
    }
}

/// What a quota's znodes say: `count=N,bytes=N`, and perhaps `=;KEY=N;KEY=N`.
struct Stats(BTreeMap<String, i64>);

impl Stats {
    /// Reads what can be understood: it is clients who write this.
    fn parse(data: &[u8]) -> Self {
        let text = String::from_utf8_lossy(data);
        let pairs = text.split([',', ';']).filter_map(|pair| {
            let mut parts = pair.split('=');
            let (key, value) = (parts.next().filter(|key| !key.is_empty())?, parts.next()?);
            let value = if value.is_empty() { -1 } else { value.parse().ok()? };
            Some((key.to_owned(), value))
        });
        Self(pairs.collect())
    }

    fn get(&self, key: &str) -> i64 {
        self.0.get(key).copied().unwrap_or(-1)
    }

    fn set(&mut self, key: &str, value: i64) {
        self.0.insert(key.to_owned(), value);
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{COUNT}={},{BYTES}={}", self.get(COUNT), self.get(BYTES))?;
        let mut others = String::new();
        for (key, value) in self.0.iter().filter(|(key, _)| !matches!(key.as_str(), COUNT | BYTES)) {
            write!(others, ";{key}={value}")?;
        }
        // Clients that do not know of other keys stop reading at the second '='.
        if others.is_empty() { Ok(()) } else { write!(out, "={others}") }
    }
}
