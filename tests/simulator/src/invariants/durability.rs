//! Nothing is promised, voted for, shown to a reader or committed before it is durable (DESIGN 5, 6, 7).

use std::collections::BTreeMap;

use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::peer::{AppendReply, PeerMessage, PropagateReply, VoteReply};
use quorumkv_protocol::{EntryId, NodeId, Version};
use quorumkv_replica::Outgoing;

use crate::node::Node;

/// Whether a crash would leave the node with the entry, in its log or applied to its state.
fn keeps(node: &Node, id: EntryId) -> bool {
    let log = &node.disk.synced;
    log.holds(id) || id.version <= log.base.version || id.version <= node.saved.applied.version
}

/// An entry is committed: a crash of everybody would leave a quorum of the configuration in which votes were counted with
/// it. A disk that was lost since it was written counts as well.
pub(super) fn check_quorum(entry: EntryId, configuration: &Configuration, nodes: &BTreeMap<NodeId, Node>) {
    let durable = configuration.count(|voter| keeps(&nodes[&voter], entry));
    assert!(
        durable >= configuration.quorum(),
        "entry {entry} is committed, and only {durable} voters of {configuration:?} would keep it"
    );
}

/// A message says nothing that a crash of its sender would make untrue.
pub(super) fn check_message(id: NodeId, message: &Outgoing, nodes: &BTreeMap<NodeId, Node>) {
    let sender = &nodes[&id];
    let log = &sender.disk.synced;
    match &message.envelope.body {
        PeerMessage::VoteReply(VoteReply::Granted { epoch, .. }) => {
            assert!(log.promise >= *epoch, "{id} grants {epoch} and would forget it");
        }
        PeerMessage::VoteReply(VoteReply::Write(AppendReply::Accepted { epoch, durable }))
        | PeerMessage::PropagateReply(PropagateReply::Entries(AppendReply::Accepted { epoch, durable })) => {
            let reaches = |version: Version| version <= log.last().version.max(sender.saved.applied.version);
            // What a later leader has replaced since, in the same batch even, is in none of its quorum's logs: the vote that
            // was given before comes too late to count.
            let is_replaced = log.promise > *epoch;
            assert!(
                reaches(*durable) || is_replaced,
                "{id} votes for {durable} of {epoch} and would lose it"
            );
        }
        PeerMessage::ReadSampleReply(reply) => {
            let last = reply.standing.last;
            let known = keeps(sender, last) || last.version <= reply.standing.committed;
            assert!(known, "{id} shows {last} to a reader and would lose it");
        }
        PeerMessage::Vote(_)
        | PeerMessage::VoteReply(_)
        | PeerMessage::Propagate(_)
        | PeerMessage::PropagateReply(_)
        | PeerMessage::ReadSample(_)
        | PeerMessage::Heartbeat(_)
        | PeerMessage::HeartbeatReply(_)
        | PeerMessage::NotMember { .. }
        | PeerMessage::Doubt { .. } => {}
    }
}
