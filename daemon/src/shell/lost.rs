//! Nodes without a disk that come back: to a cluster that lives, or to one of which nobody is left.

use std::collections::BTreeMap;

use quorumkv_protocol::hello::{Hello, Role};
use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::{ClusterId, NodeId};
use tokio::time::{sleep, timeout};

use quorumkv_protocol::frame::CLIENT_FRAME_LIMIT;

use super::Node;
use super::form::{FormError, PATIENCE, PAUSE, patiently};
use crate::coordination::{Coordinator, Members};
use crate::data_dir::{Membership, decode_membership, encode_membership};
use crate::net::frames;

/// The configuration that this node, which remembers nothing, is to begin with or to join.
///
/// If all voters of the one that ZooKeeper knows came back without their memory, nothing is left of that cluster: the first to
/// see it makes a new one of them. A voter that is gone may still come back with what it knew, so nobody goes on without it.
pub(super) async fn find(
    node: &Node,
    coordinator: &Coordinator,
    stored: Vec<u8>,
) -> Result<Vec<u8>, FormError> {
    let mut stored = stored;
    loop {
        let known = decode_membership(&stored).map_err(FormError::Foreign)?;
        let is_new = known.configuration.is_voter(node.id);
        if is_new || is_anybody_left(node, &known.configuration).await {
            return Ok(stored);
        }
        let registered = patiently(|| coordinator.members(PATIENCE)).await;
        let back = newcomers(&known.configuration, &registered);
        let voters = known.configuration.voters.len();
        if back.len() == voters {
            let first = Configuration::first(back);
            let membership = Membership { cluster: ClusterId::new(rand::random()), configuration: first };
            let (old, new) = (known.cluster, membership.cluster);
            let (text, is_lost) = (encode_membership(&membership), |present: &[u8]| present == stored);
            if patiently(|| coordinator.replace_configuration(&text, &is_lost, PATIENCE)).await {
                tracing::warn!(%old, %new, "all nodes of the cluster have lost their memory, and its data with it: begins a new cluster");
            }
        } else {
            node.set_forming(format!(
                "{} of {voters} nodes have come back without their memory, and none of the others answers",
                back.len()
            ));
            sleep(PAUSE).await;
        }
        stored = patiently(|| coordinator.configuration(PATIENCE)).await.unwrap_or(stored);
    }
}

/// Whether a member other than this node's predecessor answers as who it was.
async fn is_anybody_left(node: &Node, configuration: &Configuration) -> bool {
    let hello = Hello::new(None, Role::Client { name: format!("kvd {}", node.address) });
    for member in configuration.members().filter(|member| member.address != node.address) {
        let asked = frames::connect(&member.address, &hello, CLIENT_FRAME_LIMIT);
        if let Ok(Ok((_, _, welcome))) = timeout(PAUSE, asked).await
            && welcome.node == member.node
        {
            return true;
        }
    }
    false
}

/// Who has registered at the addresses of the voters, and is none of them.
fn newcomers(configuration: &Configuration, registered: &Members) -> Vec<Member> {
    let by_address: BTreeMap<String, NodeId> =
        registered.iter().map(|(&id, address)| (address.to_string(), NodeId::new(id))).collect();
    let newcomer = |voter: &Member| {
        let node = *by_address.get(&voter.address)?;
        let is_new = configuration.member(node).is_none();
        is_new.then(|| Member { node, address: voter.address.clone() })
    };
    configuration.voters.iter().filter_map(newcomer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_took_a_voters_address_is_a_newcomer() {
        let voter = |node: u64| Member { node: NodeId::new(node), address: format!("n{node}:1") };
        let configuration = Configuration::first(vec![voter(1), voter(2), voter(3)]);
        let registered = |entries: &[(u64, &str)]| -> Members {
            entries.iter().map(|(id, address)| (*id, address.parse().expect("an address"))).collect()
        };
        let ids = |registered: &Members| {
            newcomers(&configuration, registered).iter().map(|new| new.node.get()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&registered(&[(1, "n1:1"), (2, "n2:1"), (3, "n3:1")])), [0; 0]);
        assert_eq!(ids(&registered(&[(1, "n1:1"), (12, "n2:1"), (14, "n4:1")])), [12]);
        assert_eq!(ids(&registered(&[(13, "n3:1"), (12, "n2:1"), (11, "n1:1")])), [11, 12, 13]);
    }
}
