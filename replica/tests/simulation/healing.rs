//! The second phase: everything heals, and the cluster must show that it can still do its work.

use quorumkv_protocol::NodeId;
use quorumkv_protocol::client::NodeRole;
use quorumkv_replica::{Input, Status};

use crate::world::World;

/// Between two looks at how far the cluster is, in microseconds.
const STEP: u64 = 50_000;

/// Looks after which the election gives up a leader that was not established, and names it anew.
const PATIENCE: u64 = 40;

/// How long the cluster may take to recover, and then to answer, in microseconds.
const BOUND: u64 = 30_000_000;

impl World {
    /// Heals everything, elects one leader, and demands that all agree, all are answered, and new requests succeed.
    pub(crate) fn heal_and_demand_progress(&mut self) {
        self.heal();
        let members = self.members();
        let leader = self.pick(&members).expect("there are members");
        let end = self.now + BOUND;
        for step in 0.. {
            if step % PATIENCE == 0 && !self.leads(leader) {
                let seen = self.statuses().map(|(_, status)| status.highest_seen.counter()).max();
                self.counter = self.counter.max(seen.unwrap_or(0)) + 1;
                let counter = self.counter;
                self.input(leader, Input::Lead { counter });
            }
            self.run_until(self.now + STEP);
            if self.is_calm(leader) {
                break;
            }
            assert!(self.now < end, "the cluster does not recover: {}", self.describe());
        }
        self.demand_service(leader);
        self.invariants.check_agreement(&self.nodes);
    }

    fn heal(&mut self) {
        self.healed = true;
        self.network.blocked.clear();
        (self.plan.delayed, self.plan.duplicated) = (0, 0);
        for id in self.members() {
            self.node(id).slow = false;
            self.start(id);
        }
        self.note(|_| "everything heals".to_owned());
    }

    fn statuses(&self) -> impl Iterator<Item = (NodeId, Status)> {
        self.nodes.iter().filter_map(|(&id, node)| Some((id, node.process.as_ref()?.replica.status())))
    }

    fn leads(&self, leader: NodeId) -> bool {
        self.statuses().any(|(id, status)| id == leader && status.role == NodeRole::Leader)
    }

    /// Whether one leads, all others follow, all have everything and nobody waits. A node that promised a higher epoch,
    /// and gave that up, does not follow: it will fence the leader.
    fn is_calm(&self, leader: NodeId) -> bool {
        let Some((_, leading)) = self.statuses().find(|(id, _)| *id == leader) else { return false };
        let agrees = |(id, status): (NodeId, Status)| {
            let role = if id == leader { NodeRole::Leader } else { NodeRole::Follower };
            let follows = status.role == role && status.promise == leading.promise;
            follows && status.last == leading.last && status.applied == leading.last.version
        };
        self.statuses().all(agrees) && self.clients.unanswered() == 0
    }

    /// A write at the leader, and then a read at every node, must succeed.
    fn demand_service(&mut self, leader: NodeId) {
        let write = self.demand(leader, true);
        self.run_until(self.now + 2_500_000);
        assert!(self.clients.history.has_ended(write), "a write in calm fails: {}", self.describe());
        let reads: Vec<_> = self.members().into_iter().map(|id| self.demand(id, false)).collect();
        self.run_until(self.now + 2_500_000);
        for read in reads {
            assert!(self.clients.history.has_ended(read), "a read in calm fails: {}", self.describe());
        }
        assert!(self.is_calm(leader), "the cluster does not stay calm: {}", self.describe());
    }

    fn describe(&self) -> String {
        let nodes: Vec<String> = self.statuses().map(|(id, status)| format!("{id}: {status:?}")).collect();
        format!("{} requests wait\n{}", self.clients.unanswered(), nodes.join("\n"))
    }
}
