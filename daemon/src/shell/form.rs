//! The first start of a cluster: nodes register in ZooKeeper, and when enough have, the first configuration is created
//! exactly once.

use std::time::Duration;

use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::{ClusterId, EntryId, NodeId};
use thiserror::Error;
use tokio::time::sleep;

use super::{Node, lost};
use crate::config::{Config, Storage};
use crate::coordination::{Coordinator, HostPort, Members, RegistryError};
use crate::data_dir::{DataDir, DataDirError, Membership, decode_membership, encode_membership};

/// Longest that one operation on ZooKeeper may take before it is tried again.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Pause before something that failed is tried again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Why a node has no place in the cluster.
#[derive(Debug, Error)]
pub enum FormError {
    /// The membership cannot be kept.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The data directory belongs elsewhere.
    #[error(
        "the data directory belongs to cluster {ours}, but ZooKeeper holds cluster {theirs} there: choose the right \
         --data-dir, or another root in --zookeeper"
    )]
    OtherCluster {
        /// The directory's.
        ours: ClusterId,
        /// ZooKeeper's.
        theirs: ClusterId,
    },
    /// ZooKeeper holds something else under our path.
    #[error("the configuration in ZooKeeper is not understood ({0}): choose another root in --zookeeper")]
    Foreign(String),
}

/// Finds the cluster that this node belongs to, or is to belong to: the one in its data directory, or else the one that is
/// formed through ZooKeeper. Goes on trying while ZooKeeper cannot be reached.
pub(super) async fn form(
    node: &Node,
    config: &Config,
    coordinator: &Coordinator,
    data_dir: &mut DataDir,
) -> Result<Membership, FormError> {
    if let Some(membership) = data_dir.identity().membership.clone() {
        return Ok(membership);
    }
    let found = form_first(node, config, coordinator).await?;
    // Who was there from the beginning begins with the first members. Who comes later knows nobody, until a leader speaks to it.
    let is_first = found.configuration.id == EntryId::ZERO && found.configuration.is_voter(node.id);
    let configuration = if is_first { found.configuration } else { Configuration::UNKNOWN };
    let membership = Membership { cluster: found.cluster, configuration };
    data_dir.join(membership.clone())?;
    Ok(membership)
}

/// Checks that ZooKeeper, once it can be reached, holds the same cluster; writes it there if it holds none.
pub(super) async fn check(membership: &Membership, coordinator: &Coordinator) -> Result<(), FormError> {
    let ours = encode_membership(membership);
    let stored = patiently(|| coordinator.create_configuration_once(&ours, PATIENCE)).await;
    let theirs = decode_membership(&stored).map_err(FormError::Foreign)?.cluster;
    if theirs == membership.cluster {
        Ok(())
    } else {
        Err(FormError::OtherCluster { ours: membership.cluster, theirs })
    }
}

async fn form_first(
    node: &Node,
    config: &Config,
    coordinator: &Coordinator,
) -> Result<Membership, FormError> {
    let size = config.cluster_size;
    node.set_forming(format!("waiting for ZooKeeper at {}", config.zookeeper));
    let stored = loop {
        let stored = patiently(|| coordinator.configuration(PATIENCE)).await;
        // Without a disk it is always the first start: then it is said that whoever was here before is gone.
        if stored.is_none() || config.storage == Storage::Memory {
            register(node, config, coordinator).await;
        }
        match stored {
            Some(stored) if config.storage == Storage::Memory => {
                break lost::find(node, coordinator, stored).await?;
            }
            Some(stored) => break stored,
            None => {}
        }
        let registered = patiently(|| coordinator.members(PATIENCE)).await;
        node.set_forming(format!("{} of {size} nodes have registered", registered.len()));
        if registered.len() < size {
            // A deadline that passes is no news: the rest of the nodes is still to come.
            let _ = coordinator.await_members(size, PATIENCE).await;
            continue;
        }
        let first = encode_membership(&first_membership(&registered, size));
        break patiently(|| coordinator.create_configuration_once(&first, PATIENCE)).await;
    };
    decode_membership(&stored).map_err(FormError::Foreign)
}

/// Says in ZooKeeper that this node is here. Two nodes cannot be at one address: others that are said to be there were this one,
/// before it lost its directory.
async fn register(node: &Node, config: &Config, coordinator: &Coordinator) {
    patiently(|| coordinator.register(node.id.get(), &config.advertise, PATIENCE)).await;
    let registered = patiently(|| coordinator.members(PATIENCE)).await;
    let is_predecessor =
        |entry: &(&u64, &HostPort)| *entry.0 != node.id.get() && *entry.1 == config.advertise;
    for (&id, _) in registered.iter().filter(is_predecessor) {
        patiently(|| coordinator.deregister(id, PATIENCE)).await;
    }
}

/// A new cluster of the first `size` nodes that registered, by id.
fn first_membership(registered: &Members, size: usize) -> Membership {
    let member =
        |(&id, address): (&u64, &HostPort)| Member { node: NodeId::new(id), address: address.to_string() };
    let members = registered.iter().take(size).map(member).collect();
    Membership { cluster: ClusterId::new(rand::random()), configuration: Configuration::first(members) }
}

/// Repeats an operation on ZooKeeper until it succeeds. The coordination says in the log what is wrong.
pub(super) async fn patiently<T, F>(mut operation: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, RegistryError>>,
{
    loop {
        match operation().await {
            Ok(value) => return value,
            Err(error) => {
                tracing::debug!("ZooKeeper: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}
