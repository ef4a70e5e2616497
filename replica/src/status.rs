//! A replica's account of itself and, while it leads, of the others.

use quorumkv_protocol::client::NodeRole;
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};

use crate::progress::{Phase, Progress};
use crate::replica::{Replica, Role};
use crate::state::StateView;
use crate::time::Timestamp;

/// A replica's account of itself, for the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// What it is doing.
    pub role: NodeRole,
    /// The highest epoch promised.
    pub promise: Epoch,
    /// The highest epoch seen anywhere.
    pub highest_seen: Epoch,
    /// Who leads in the promised epoch, if the leader has been heard.
    pub leader: Option<NodeId>,
    /// When that leader was last heard; now, if it is this node.
    pub leader_heard: Timestamp,
    /// The last entry of the log.
    pub last: EntryId,
    /// The last version known to be committed.
    pub committed: Version,
    /// The last version that the state has applied.
    pub applied: Version,
    /// Versions that this node is behind the leader.
    pub lag: u64,
    /// When the state last held everything that was known to be committed.
    pub fresh: Option<Timestamp>,
    /// Whether a snapshot is being received.
    pub restoring: bool,
    /// Whether its state is damaged, and is not used until it is repaired.
    pub damaged: bool,
    /// Voters that requests reach, this node included if it is one.
    pub reachable: usize,
    /// What this node is to the cluster.
    pub membership: Membership,
}

/// What a node is to the cluster, as far as its log tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// Its votes count.
    Voter,
    /// It receives everything and counts for nothing.
    Learner,
    /// Its removal is logged and not committed yet.
    Leaving,
    /// It was removed.
    Removed {
        /// The configuration that no longer has it.
        since: EntryId,
    },
    /// It is no member, and has been none as long as its log goes back: it is new, its addition was dropped, or it was
    /// removed long ago. It promises nothing and answers no samples.
    Outsider,
}

/// What the leader knows of another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerProgress {
    /// The node.
    pub node: NodeId,
    /// Up to here its durable log is known to equal the leader's.
    pub matched: Version,
    /// Versions of the leader's log after that.
    pub behind: u64,
    /// Whether it needs a snapshot, or is receiving one.
    pub restoring: bool,
    /// When it last answered; when this node began to lead, if it has not since.
    pub heard: Timestamp,
    /// Whether it answers, so that its vote could count now.
    pub live: bool,
    /// Whether it holds enough to be promoted if it is a learner.
    pub caught_up: bool,
}

/// What a replica keeps that must be bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Reads of clients that are not answered.
    pub reads: usize,
    /// Writes that wait until this node leads.
    pub queued: usize,
    /// Samples of other nodes that wait until this one has passed an entry.
    pub parked: usize,
    /// Bytes of entries in memory.
    pub log_bytes: usize,
    /// Appends to one node without an answer, the most of any.
    pub in_flight: usize,
}

impl<S: StateView> Replica<S> {
    /// What this replica keeps.
    pub fn load(&self) -> Load {
        let in_flight = match &self.role {
            Role::Leader(leader) => leader.progress.values().map(Progress::in_flight).max().unwrap_or(0),
            Role::Follower | Role::Contender(_) => 0,
        };
        Load {
            reads: self.reader.in_flight(),
            queued: self.queued.len(),
            parked: self.parked.len(),
            log_bytes: self.log.memory_bytes(),
            in_flight,
        }
    }

    /// How this replica is.
    pub fn status(&self) -> Status {
        let (role, leader, heard) = match &self.role {
            Role::Follower => (NodeRole::Follower, self.following.leader, self.following.heard),
            Role::Contender(_) => (NodeRole::Contender, None, self.now),
            Role::Leader(leader) if leader.is_established() => (NodeRole::Leader, Some(self.me), self.now),
            Role::Leader(_) => (NodeRole::Contender, None, self.now),
        };
        let leads = role == NodeRole::Leader;
        Status {
            role,
            promise: self.promise,
            highest_seen: self.highest_seen,
            leader,
            leader_heard: heard,
            last: self.log.last_id(),
            committed: self.committed,
            applied: self.applied,
            lag: if leads { 0 } else { self.following.last.since(self.applied) },
            fresh: if leads { Some(self.now) } else { self.following.fresh },
            restoring: self.pull.is_some(),
            damaged: self.integrity.is_damaged(),
            reachable: self.configuration().count(|node| node == self.me || self.links.contains(&node)),
            membership: self.membership(),
        }
    }

    /// The cluster's members: the newest configuration of the log, committed or not, which is the one that counts.
    pub fn configuration(&self) -> &Configuration {
        self.configurations.latest()
    }

    /// The newest configuration that is known to be committed.
    pub fn committed_configuration(&self) -> &Configuration {
        self.configurations.committed()
    }

    /// What the leader knows of the other nodes, ordered by id; nothing if this node does not lead.
    pub fn progress(&self) -> Vec<PeerProgress> {
        let Role::Leader(leader) = &self.role else { return Vec::new() };
        let account = |(&node, progress): (&NodeId, &Progress)| PeerProgress {
            node,
            matched: progress.matched,
            behind: self.log.last().since(progress.matched),
            restoring: matches!(progress.phase, Phase::Restoring { .. }),
            heard: progress.heard,
            live: self.is_live(node),
            caught_up: self.lacks(node).is_none(),
        };
        leader.progress.iter().map(account).collect()
    }

    fn membership(&self) -> Membership {
        match self.removed {
            Some(since) => Membership::Removed { since },
            None if self.disowned => Membership::Outsider,
            None if self.configuration().is_voter(self.me) => Membership::Voter,
            None if self.configuration().is_learner(self.me) => Membership::Learner,
            None if self.is_member() => Membership::Leaving,
            None => Membership::Outsider,
        }
    }
}
