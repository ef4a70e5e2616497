//! The copy of the members that ZooKeeper keeps: for people to see, and for nodes that know nobody yet. The log decides.

use quorumkv_protocol::ClusterId;
use quorumkv_protocol::membership::Configuration;
use tokio::sync::watch;

use super::form::{PATIENCE, patiently};
use crate::coordination::Coordinator;
use crate::data_dir::{Membership, decode_membership, encode_membership};

/// Where the leader says who the members are.
#[derive(Debug)]
pub(super) struct Mirror {
    cluster: ClusterId,
    latest: watch::Sender<Option<Membership>>,
}

impl Mirror {
    /// A mirror, and the task that has to keep it.
    pub(super) fn new(cluster: ClusterId, coordinator: Coordinator) -> (Self, impl Future<Output = ()>) {
        let (latest, members) = watch::channel(None);
        (Self { cluster, latest }, keep(coordinator, members))
    }

    /// This configuration is committed.
    pub(super) fn show(&self, configuration: &Configuration) {
        let membership = Membership { cluster: self.cluster, configuration: configuration.clone() };
        self.latest.send_if_modified(|shown| {
            let is_news = shown.as_ref() != Some(&membership);
            *shown = Some(membership);
            is_news
        });
    }
}

/// Writes what is to be shown, unless ZooKeeper has something newer, or another cluster's.
async fn keep(coordinator: Coordinator, mut latest: watch::Receiver<Option<Membership>>) {
    while latest.changed().await.is_ok() {
        let Some(membership) = latest.borrow_and_update().clone() else { continue };
        let is_older = |stored: &[u8]| {
            decode_membership(stored).is_ok_and(|stored| {
                stored.cluster == membership.cluster
                    && stored.configuration.id.version < membership.configuration.id.version
            })
        };
        let text = encode_membership(&membership);
        patiently(|| coordinator.replace_configuration(&text, &is_older, PATIENCE)).await;
    }
}
