//! What is kept, and what may be lost.

use std::fmt::Write as _;
use std::path::Path;

use quorumkv_protocol::membership::Configuration;
use serde_json::{Value, json};

use super::RecoverError;
use super::new::NewCluster;
use super::survivor::Survivor;

/// What the directories that are left come to.
pub(super) struct Report<'a> {
    survivors: &'a [Survivor],
    best: &'a Survivor,
    /// The configurations in which the best log was, or may have been, committed: the newest last.
    configurations: Vec<Configuration>,
}

impl<'a> Report<'a> {
    pub(super) fn new(survivors: &'a [Survivor], best: &'a Survivor) -> Self {
        Self { survivors, best, configurations: best.configurations() }
    }

    /// The newest configuration of the best log, which counts.
    fn latest(&self) -> &Configuration {
        self.configurations.last().expect("the state has one")
    }

    /// Voters of a configuration whose logs are here.
    fn present(&self, configuration: &Configuration) -> usize {
        let is_here = |voter| self.survivors.iter().any(|one| one.node == voter && one.log_lost.is_none());
        configuration.count(is_here)
    }

    /// Voters of the newest configuration whose directories are here.
    pub(super) fn present_voters(&self) -> usize {
        self.latest().count(|voter| self.survivors.iter().any(|one| one.node == voter))
    }

    pub(super) fn has_quorum(&self) -> bool {
        self.present(self.latest()) >= self.latest().quorum()
    }

    pub(super) fn quorum_error(&self) -> RecoverError {
        let latest = self.latest();
        RecoverError::Quorum {
            present: self.present(latest),
            voters: latest.voters.len(),
            quorum: latest.quorum(),
        }
    }

    /// Whether no quorum can have committed anything without one of the nodes that are left.
    fn loses_nothing(&self) -> bool {
        self.configurations.iter().all(|configuration| {
            configuration.voters.len() - self.present(configuration) < configuration.quorum()
        })
    }

    /// For people.
    pub(super) fn text(&self, made: Option<&NewCluster>, to: &Path) -> String {
        let best = self.best;
        let mut text = String::new();
        for survivor in self.survivors {
            let is_best = if std::ptr::eq(survivor, best) { "best" } else { "    " };
            let log = match &survivor.log_lost {
                Some(why) => format!("its log cannot be used: {why}"),
                None => format!("log to {}", survivor.last),
            };
            let doubt =
                survivor.state_doubt.as_ref().map_or(String::new(), |why| format!(", damaged: {why}"));
            let _ = writeln!(
                text,
                "{is_best}  {} (node {}): {log}, state to {}{doubt}",
                survivor.path.display(),
                survivor.node,
                survivor.applied
            );
        }
        let _ = writeln!(text, "kept: {}", self.kept());
        let _ = writeln!(text, "may be lost: {}", self.lost());
        match made {
            Some(NewCluster { cluster, node, address, .. }) => {
                let _ = write!(
                    text,
                    "made: cluster {cluster} with node {node} at {address}, in {}\nnext: start kvd with --data-dir {} and --advertise \
                     {address}, and with another root in --zookeeper than the old cluster had; then add nodes with empty directories: \
                     `kvctl member add HOST:PORT`. Do not start nodes of the old cluster {}.",
                    to.display(),
                    to.display(),
                    best.cluster
                );
            }
            None => text.push_str("nothing was made: leave out --dry-run"),
        }
        text
    }

    fn kept(&self) -> String {
        let (applied, last) = (self.best.applied.version, self.best.last.version);
        if applied == last {
            format!("versions up to {last}, all of them committed")
        } else {
            format!(
                "versions up to {last}; up to {applied} they are known to be committed, those after it may be writes that nobody \
                 was told to be done"
            )
        }
    }

    fn lost(&self) -> String {
        let latest = self.latest();
        let (voters, present, quorum) = (latest.voters.len(), self.present(latest), latest.quorum());
        let missing = voters - present;
        if self.loses_nothing() {
            format!(
                "nothing that was acknowledged: that took {quorum} of {voters} nodes, and only {missing} are missing"
            )
        } else {
            format!(
                "every version after {}: a write was acknowledged when {quorum} of {voters} nodes had it, and {missing} are missing",
                self.best.last.version
            )
        }
    }

    /// For programs.
    pub(super) fn json(&self, made: Option<&NewCluster>) -> String {
        let best = self.best;
        let survivors: Vec<Value> = self
            .survivors
            .iter()
            .map(|survivor| {
                json!({
                    "directory": survivor.path.display().to_string(),
                    "node": survivor.node.to_string(),
                    "last": survivor.last.version.to_string(),
                    "applied": survivor.applied.version.to_string(),
                    "log_lost": survivor.log_lost,
                    "state_damaged": survivor.state_doubt,
                    "best": std::ptr::eq(survivor, best),
                })
            })
            .collect();
        let latest = self.latest();
        let lost_after = (!self.loses_nothing()).then(|| best.last.version.to_string());
        json!({
            "old_cluster": best.cluster.to_string(),
            "survivors": survivors,
            "voters": latest.voters.len(),
            "voters_present": self.present(latest),
            "kept_to": best.last.version.to_string(),
            "committed_to": best.applied.version.to_string(),
            "may_be_lost_after": lost_after,
            "made": made.map(|made| json!({
                "cluster": made.cluster.to_string(),
                "node": made.node.to_string(),
                "address": made.address,
                "opening": made.opening.version.to_string(),
            })),
        })
        .to_string()
    }
}
