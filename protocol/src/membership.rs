//! Who belongs to the cluster, and how that is changed (DESIGN 8).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::budget::bounded;
use crate::ids::{EntryId, NodeId, RequestId, Version};

/// Most members of a configuration, learners included.
pub const MAX_MEMBERS: usize = 64;

/// Longest address of a member, in bytes: a DNS name, a colon and a port.
pub const MAX_ADDRESS_LENGTH: usize = 255 + 1 + 5;

/// The members of the cluster, as one entry of the log has them.
///
/// The first configuration is created exactly once through ZooKeeper and has the id [`EntryId::ZERO`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// The log entry that this configuration came from. Votes and samples carry it.
    pub id: EntryId,
    /// The replicas whose votes count, ordered by id.
    #[serde(deserialize_with = "bounded::<_, _, MAX_MEMBERS>")]
    pub voters: Vec<Member>,
    /// Replicas that receive everything and count for nothing, ordered by id.
    #[serde(deserialize_with = "bounded::<_, _, MAX_MEMBERS>")]
    pub learners: Vec<Member>,
    /// Replacements under way, ordered by the new node. Any leader goes on with them.
    #[serde(deserialize_with = "bounded::<_, _, MAX_MEMBERS>")]
    pub replacements: Vec<Replacement>,
}

/// A replica that belongs to the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its identity.
    pub node: NodeId,
    /// Where it listens: `host:port`.
    pub address: String,
}

/// A member that takes the place of another: when it has caught up it becomes a voter and the other is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replacement {
    /// The member that goes.
    pub old: NodeId,
    /// The member that comes.
    pub new: NodeId,
}

impl Configuration {
    /// That of a node which does not know yet what cluster it is to belong to.
    pub const UNKNOWN: Self =
        Self { id: EntryId::ZERO, voters: Vec::new(), learners: Vec::new(), replacements: Vec::new() };

    /// The first configuration of a cluster.
    #[must_use]
    pub fn first(mut voters: Vec<Member>) -> Self {
        voters.sort_by_key(|voter| voter.node);
        Self { voters, ..Self::UNKNOWN }
    }

    /// Votes that commit a write, and voters that a read samples: ⌊N/2⌋+1 of N voters. It serves as Nw and as Nr, so
    /// that Nr + Nw > N and Nr ≥ Nw.
    #[must_use]
    pub const fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Whether the nodes for which `has` holds include a quorum.
    #[must_use]
    pub fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        self.count(has) >= self.quorum()
    }

    /// For how many voters `has` holds.
    #[must_use]
    pub fn count(&self, has: impl Fn(NodeId) -> bool) -> usize {
        self.voters.iter().filter(|voter| has(voter.node)).count()
    }

    /// All members: voters, then learners.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.voters.iter().chain(&self.learners)
    }

    /// The member with this identity.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members().find(|member| member.node == node)
    }

    /// Whether this node's votes count.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.iter().any(|voter| voter.node == node)
    }

    /// Whether this node receives everything and counts for nothing.
    #[must_use]
    pub fn is_learner(&self, node: NodeId) -> bool {
        self.learners.iter().any(|learner| learner.node == node)
    }

    /// Whether this can be that of a cluster: what comes from the wire is checked before it reaches the log.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let ascends = |members: &[Member]| members.is_sorted_by(|one, next| one.node < next.node);
        let is_address = |address: &str| (1..=MAX_ADDRESS_LENGTH).contains(&address.len());
        !self.voters.is_empty()
            && self.voters.len() + self.learners.len() <= MAX_MEMBERS
            && ascends(&self.voters)
            && ascends(&self.learners)
            && self.replacements.is_sorted_by(|one, next| one.new < next.new)
            && !self.learners.iter().any(|learner| self.is_voter(learner.node))
            && self.members().all(|member| is_address(&member.address))
            && self.replacements.iter().all(|replacement| self.member(replacement.new).is_some())
    }
}

/// A client's wish to change who belongs to the cluster, and what makes its retries harmless.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// Its identity: a retry carries the same.
    pub request: RequestId,
    /// All requests of this client with lower sequence numbers are finished and will never be retried.
    pub floor: u64,
    /// A version that the client knew to be committed before it sent this request for the first time.
    pub since: Version,
    /// What to do.
    pub change: Change,
    /// Whether to do it although fewer voters than a quorum may be left that can vote.
    pub force: bool,
}

/// A change of the members. Variants are stable: their order is the wire format.
///
/// One voter comes or goes at a time, so that the majorities before and after a change overlap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A new node begins to receive everything. It does not vote.
    AddLearner(Member),
    /// A learner that has caught up votes from now on.
    Promote(NodeId),
    /// A voter or learner belongs to the cluster no longer.
    Remove(NodeId),
    /// A new node takes the place of a member, which may be dead: it is added as a learner, and once it has caught up the
    /// leader, whoever that is by then, makes it a voter and removes the other. The answer says that this has begun. A
    /// learner's place is taken at once.
    Replace {
        /// The member that goes.
        old: NodeId,
        /// The node that comes. It may have the address of the old one.
        new: Member,
    },
}

impl Change {
    /// The node that comes, if one does.
    #[must_use]
    pub const fn new_member(&self) -> Option<&Member> {
        match self {
            Self::AddLearner(new) | Self::Replace { new, .. } => Some(new),
            Self::Promote(_) | Self::Remove(_) => None,
        }
    }
}

/// Why the members are not changed. Nothing was logged. Variants are stable: their order is the wire format.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The change before this one has not come to its end.
    #[error("another change of the members is in flight: {entry} is not committed yet")]
    ChangeInFlight {
        /// The entry that is to be committed first.
        entry: EntryId,
    },
    /// The leader is new, and nothing of its own epoch is committed yet.
    #[error("the leader has only just been elected, and nothing of its epoch is committed yet")]
    EpochNotCommitted,
    /// The node is no member, or no learner where one is needed.
    #[error("node {0} is not one of those that this can be done to")]
    UnknownNode(NodeId),
    /// The node is already what the change would make it.
    #[error("node {0} is a member already")]
    AlreadyMember(NodeId),
    /// Nobody would be left.
    #[error("node {0} is the last voter")]
    LastVoter(NodeId),
    /// After the change fewer voters could vote than are needed.
    #[error("of the voters that would be left {live} can be reached, and {needed} are needed")]
    TooFewLive {
        /// Voters after the change that answer the leader now.
        live: u32,
        /// The quorum after the change.
        needed: u32,
    },
    /// The learner does not hold enough to vote.
    #[error("node {node} has not caught up: it is {behind} versions behind")]
    NotCaughtUp {
        /// The learner.
        node: NodeId,
        /// Versions of the leader's log that it is not known to hold.
        behind: u64,
    },
    /// Another member listens there.
    #[error("member {by} has that address")]
    AddressTaken {
        /// The member.
        by: NodeId,
    },
    /// The configuration would hold too many members, or an address that is none.
    #[error("that makes no configuration: at most {MAX_MEMBERS} members, each with an address")]
    Unsound,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u64) -> Member {
        Member { node: NodeId::new(node), address: format!("n{node}:1") }
    }

    #[test]
    fn a_quorum_is_a_majority_of_the_voters() {
        for (voters, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            let mut configuration = Configuration::first((0..voters).map(member).collect());
            configuration.learners = vec![member(8), member(9)];
            assert_eq!(configuration.quorum(), quorum);
            assert!(configuration.is_quorum(|node| node.get() < quorum as u64));
            assert!(!configuration.is_quorum(|node| node.get() + 1 < quorum as u64 || node.get() > 7));
        }
    }

    #[test]
    fn only_what_makes_a_cluster_is_sound() {
        let sound = Configuration {
            learners: vec![member(3)],
            replacements: vec![Replacement { old: NodeId::new(1), new: NodeId::new(3) }],
            ..Configuration::first(vec![member(2), member(1)])
        };
        assert!(sound.is_sound());
        let with = |change: fn(&mut Configuration)| {
            let mut changed = sound.clone();
            change(&mut changed);
            changed
        };
        let unsound: [(&str, Configuration); 7] = [
            ("nobody votes", with(|it| it.voters.clear())),
            ("not in order", with(|it| it.voters.reverse())),
            ("one voter twice", with(|it| it.voters[1] = it.voters[0].clone())),
            ("voter and learner", with(|it| it.learners[0] = it.voters[0].clone())),
            ("no address", with(|it| it.voters[0].address.clear())),
            ("too many", with(|it| it.learners = (10..10 + MAX_MEMBERS as u64).map(member).collect())),
            ("replaced by a stranger", with(|it| it.replacements[0].new = NodeId::new(7))),
        ];
        for (what, configuration) in unsound {
            assert!(!configuration.is_sound(), "{what}");
        }
    }
}
