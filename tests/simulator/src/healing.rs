//! The second phase: everything heals, and the cluster must show that it can still do its work.

use quorumkv_protocol::NodeId;
use quorumkv_protocol::client::NodeRole;
use quorumkv_protocol::membership::Member;
use quorumkv_replica::{Input, Membership, Status};

use crate::model::render;
use crate::plan::Plan;
use crate::world::World;

/// Between two looks at how far the cluster is, in microseconds.
const STEP: u64 = 50_000;

/// Looks after which the election gives up who was not established, or cannot do its work, and names another.
const PATIENCE: u64 = 40;

/// How long the cluster may take to recover, in microseconds, apart from sending all entries one by one.
const BOUND: u64 = 30_000_000;

/// Entries that a follower may be behind while clients go on.
const LAG: u64 = 20;

impl World {
    /// Heals everything, elects one leader, and demands that all agree, all are answered, and new requests succeed. Before that
    /// clients may go on for a while, and everybody must come to be well meanwhile.
    pub(crate) fn heal_and_demand_progress(&mut self) {
        self.heal();
        self.elect_a_voter();
        if self.plan.some_go_on {
            self.note(|_| "clients go on".to_owned());
            if self.plan.damages.is_some() {
                self.damage_some();
            }
            self.recover(Self::is_well);
        }
        self.clients_rest = true;
        self.note(|_| "clients rest".to_owned());
        let is_calm = |world: &Self, leader| world.is_calm(leader) && world.unlinked().next().is_none();
        let mut leader = self.recover(is_calm);
        if self.plan.damages.is_some() {
            // A comparison that is under way may yet find what is overwritten by now.
            self.run_until(self.now + self.plan.comparison());
            leader = self.recover(is_calm);
        }
        self.demand_service(leader);
        self.invariants.check_agreement(&self.nodes, &self.away);
    }

    /// Waits until there is a leader of whom that is true.
    fn recover(&mut self, is_recovered: impl Fn(&Self, NodeId) -> bool) -> NodeId {
        // While clients go on, there is about as much to be sent again.
        let times = if self.clients_rest { 1 } else { 2 };
        let end = self.now + BOUND + self.invariants.committed_entries() * self.plan.entry() * times;
        for step in 1.. {
            // What was begun before shows its effect before anybody looks.
            self.run_until(self.now + STEP);
            match self.leader() {
                Some(leader) if is_recovered(self, leader) => return leader,
                Some(leader) if self.is_accepted(leader) => self.tidy_up(leader),
                _ if step % PATIENCE == 0 => self.elect_a_voter(),
                _ => {}
            }
            assert!(self.now < end, "the cluster does not recover: {}", self.describe());
        }
        unreachable!("there is an end to it")
    }

    fn heal(&mut self) {
        self.healed = true;
        self.network.blocked.clear();
        self.network.slow.clear();
        (self.plan.delayed, self.plan.duplicated) = (0, 0);
        self.plan.task = self.plan.task.min(self.plan.sync);
        self.plan.store = self.plan.store.min(self.plan.task.max(self.plan.apply));
        // Whoever fell behind can catch up with clients that ask no faster than this.
        self.plan.pause = self.plan.pause.max(self.plan.entry() * self.plan.clients * 4);
        self.leave_some_away();
        let now = self.now;
        for id in self.all() {
            self.node(id).slow = false;
            self.node(id).clock.mend(now);
            self.node(id).journal.mend_syncs();
            if !self.away.contains(&id) {
                self.start(id);
            }
        }
        self.note(|_| "everything heals".to_owned());
    }

    /// Where members do not change, a minority of them may stay away: stopped, or cut off.
    fn leave_some_away(&mut self) {
        let voters = self.invariants.committed_configuration().voters.iter();
        let voters: Vec<NodeId> = voters.map(|voter| voter.node).collect();
        let Plan { changes, amnesias, log_damages, damages, .. } = &self.plan;
        let is_disturbed = [changes, amnesias, log_damages, damages].iter().any(|every| every.is_some());
        if is_disturbed || !self.plan.some_stay_away {
            return;
        }
        let most = (voters.len() - 1) / 2;
        let away: Vec<NodeId> = voters.iter().copied().filter(|_| self.rng.bool()).take(most).collect();
        for &id in &away {
            if self.rng.bool() {
                self.crash(id);
            }
            let others = voters.iter().filter(|&&other| other != id);
            self.network.blocked.extend(others.flat_map(|&other| [(id, other), (other, id)]));
        }
        self.note(|_| format!("these stay away: {away:?}"));
        self.summary.majorities += u64::from(!away.is_empty());
        self.away.extend(away);
    }

    fn elect_a_voter(&mut self) {
        let votes = |(id, status): (NodeId, Status)| (status.membership == Membership::Voter).then_some(id);
        let voters: Vec<NodeId> = self.statuses().filter_map(votes).collect();
        let Some(chosen) = self.pick(&voters) else { return };
        let seen = self.statuses().map(|(_, status)| status.highest_seen.counter()).max();
        self.counter = self.counter.max(seen.unwrap_or(0)) + 1;
        let counter = self.counter;
        self.input(chosen, Input::Lead { counter });
    }

    /// Whether a leader can do its work: it is a voter, and no member has promised a later epoch. Otherwise another one is elected.
    fn is_accepted(&self, leader: NodeId) -> bool {
        let Some(process) = &self.nodes[&leader].process else { return false };
        let (configuration, promise) = (process.replica.configuration(), process.replica.status().promise);
        let follows =
            |(id, status): (NodeId, Status)| configuration.member(id).is_none() || status.promise <= promise;
        configuration.is_voter(leader) && self.statuses().all(follows)
    }

    fn statuses(&self) -> impl Iterator<Item = (NodeId, Status)> {
        let here = self.nodes.iter().filter(|(id, _)| !self.away.contains(id));
        here.filter_map(|(&id, node)| Some((id, node.process.as_ref()?.replica.status())))
    }

    /// Whether all members follow, and have what was committed long ago, in a state that is as it should be, while clients go on.
    fn is_well(&self, leader: NodeId) -> bool {
        let Some(process) = &self.nodes[&leader].process else { return false };
        let (configuration, leading) = (process.replica.configuration(), process.replica.status());
        let follows = |(id, status): (NodeId, Status)| match configuration.member(id) {
            Some(_) => {
                let is_current = status.promise == leading.promise && status.leader == Some(leader);
                is_current && !status.restoring && !status.damaged && status.lag <= LAG
            }
            None => status.membership == Membership::Outsider,
        };
        self.is_accepted(leader)
            && configuration.replacements.is_empty()
            && configuration.members().all(|member| self.is_whole(member))
            && self.statuses().all(follows)
    }

    /// Whether one leads, all other members follow, all of them have everything and nobody waits. A node that promised a
    /// higher epoch, and gave that up, does not follow: it will fence the leader. No replacement is left to be done, no
    /// member's disk is lost, and nobody believes wrongly that it is a member.
    fn is_calm(&self, leader: NodeId) -> bool {
        let Some(process) = &self.nodes[&leader].process else { return false };
        let (configuration, leading) = (process.replica.configuration(), process.replica.status());
        let agrees = |(id, status): (NodeId, Status)| {
            let role = if id == leader { NodeRole::Leader } else { NodeRole::Follower };
            let follows = status.role == role && status.promise == leading.promise;
            let is_whole = !status.restoring && !status.damaged;
            follows && is_whole && status.last == leading.last && status.applied == leading.last.version
        };
        let is_calm = |(id, status): (NodeId, Status)| match configuration.member(id) {
            Some(_) => agrees((id, status)),
            None => status.membership == Membership::Outsider,
        };
        configuration.replacements.is_empty()
            && configuration.members().all(|member| self.is_whole(member))
            && self.statuses().all(is_calm)
            && self.clients.unanswered() == 0
    }

    /// Whether a member runs and nothing is wrong with its state, if it does not stay away.
    fn is_whole(&self, member: &Member) -> bool {
        let process = self.nodes[&member.node].process.as_ref();
        self.away.contains(&member.node)
            || process.is_some_and(|process| self.invariants.holds_what_is_committed(process))
    }

    /// The members that do not reach each other, over a connection that nothing has happened to.
    fn unlinked(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        let pairs = self.members_here().flat_map(|one| self.members_here().map(move |other| (one, other)));
        pairs.filter(|&(one, other)| one != other && !self.network.is_sound((one, other)))
    }

    fn members_here(&self) -> impl Iterator<Item = NodeId> {
        let members = self.invariants.committed_configuration().members().map(|member| member.node);
        members.filter(|member| !self.away.contains(member))
    }

    /// A write at the leader, and then a read at every member, must succeed.
    fn demand_service(&mut self, leader: NodeId) {
        let write = self.demand(leader, true);
        self.run_until(self.now + 2_500_000);
        assert!(self.clients.history.has_ended(write), "a write in calm fails: {}", self.describe());
        let members: Vec<NodeId> = self.members_here().collect();
        let reads: Vec<_> = members.into_iter().map(|id| self.demand(id, false)).collect();
        self.run_until(self.now + 2_500_000);
        for read in reads {
            assert!(self.clients.history.has_ended(read), "a read in calm fails: {}", self.describe());
        }
        assert!(self.is_calm(leader), "the cluster does not stay calm: {}", self.describe());
    }

    fn describe(&self) -> String {
        let account = |(id, status): (NodeId, Status)| {
            let configuration = self.configuration_of(id).map(render::configuration);
            format!("{id}: {status:?} {}", configuration.unwrap_or_default())
        };
        let nodes: Vec<String> = self.statuses().map(account).collect();
        let (waiting, unlinked) = (self.clients.unanswered(), self.unlinked().collect::<Vec<_>>());
        format!("{waiting} requests wait, not linked: {unlinked:?}\n{}", nodes.join("\n"))
    }
}
