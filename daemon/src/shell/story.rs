//! What happens to a node, told in its log and counted in its metrics.

use quorumkv_protocol::NodeId;
use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_replica::{Notice, StoodDown};

use super::owner::Owner;
use super::upkeep;

impl Owner {
    /// Tells the story in the log and in the metrics.
    pub(super) fn report(&self, notice: &Notice) {
        let name = |node: NodeId| self.node.address_of(node).unwrap_or_else(|| node.to_string());
        self.node.metrics.notice(notice);
        match notice {
            Notice::Promised { epoch } => tracing::info!(%epoch, "promised to follow"),
            Notice::Following { epoch } => tracing::info!(leader = name(epoch.node()), %epoch, "follows"),
            Notice::EpochTooLow { promise } => {
                tracing::info!(%promise, "the epoch is too low; asks for a higher one");
            }
            Notice::Contending { epoch } => tracing::info!(%epoch, "asks for votes to lead"),
            Notice::Promises { epoch, granted, voters, behind } => match behind {
                Some((source, by)) => tracing::info!(
                    %epoch, from = name(*source), versions = by,
                    "votes {granted} of {voters}; adopts a better log first"
                ),
                None => tracing::info!(%epoch, "votes {granted} of {voters}; has the best log"),
            },
            Notice::Established { epoch, opening } => tracing::info!(%epoch, version = %opening, "leads"),
            Notice::StoodDown { epoch, reason: StoodDown::Fenced { by } } => {
                tracing::warn!(%epoch, "stood down: epoch {by} has been promised");
            }
            Notice::StoodDown { epoch, reason: StoodDown::Told } => tracing::info!(%epoch, "leads no longer"),
            Notice::StoodDown { epoch, reason: StoodDown::Removed } => {
                tracing::info!(%epoch, "leads no longer: it was removed from the cluster");
            }
            Notice::StoodDown { epoch, reason: StoodDown::Damaged } => {
                tracing::warn!(%epoch, "leads no longer: its state is damaged");
            }
            Notice::Damaged(damage) => tracing::error!("{}", upkeep::describe(*damage)),
            Notice::Repaired { snapshot } => tracing::info!(%snapshot, "the damaged state was replaced"),
            Notice::Differs { node, version } => {
                tracing::error!(replica = name(*node), %version, "a replica's state differs from that of a majority");
            }
            Notice::Undecided { version, .. } => {
                tracing::error!(%version, "the replicas' states differ, and no majority agrees");
            }
            Notice::Unwell(_) => {}
            Notice::Impeach { epoch } => tracing::debug!(%epoch, "a majority does not hear the leader"),
            Notice::NotAVoter => tracing::warn!("was elected and has no vote, so it does not lead"),
            Notice::SampleVoid { configuration } => {
                tracing::debug!(%configuration, "a read met newer members; samples again");
            }
            Notice::Reconfigured { id } => {
                tracing::info!(entry = %id, "the members are now {}", describe(self.replica.configuration()));
            }
            Notice::ConfigurationCommitted { id } => tracing::info!(entry = %id, "the members are committed"),
            Notice::Removed { since } => tracing::warn!(entry = %since, "was removed from the cluster"),
            Notice::Diverged { node, from } => {
                tracing::info!(replica = name(*node), %from, "a replica's log differs; brings it in line");
            }
            Notice::TooFarBehind { node } => {
                tracing::info!(replica = name(*node), "a replica needs a snapshot");
            }
            Notice::Restoring { source } => tracing::info!(from = name(*source), "restores from a snapshot"),
            Notice::Restored { snapshot } => tracing::info!(%snapshot, "restored"),
            Notice::ReadConflict { rounds } => {
                tracing::debug!(rounds, "a read met a conflict; samples again");
            }
            Notice::Corruption { differing: (one, other), entry } => tracing::error!(
                %entry, "{} and {} hold different data under one version", name(*one), name(*other)
            ),
            Notice::Absurd { node, what } => tracing::warn!(peer = name(*node), "ignored a message: {what}"),
        }
    }
}

/// The members, for the log.
fn describe(configuration: &Configuration) -> String {
    let addresses = |members: &[Member]| {
        members.iter().map(|member| member.address.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (voters, learners) = (addresses(&configuration.voters), addresses(&configuration.learners));
    if learners.is_empty() { voters } else { format!("{voters}; learning: {learners}") }
}
