//! Who belongs to the cluster: an administrator who changes his mind, and nodes that lose their disks.
//!
//! A node that has lost its disk is gone; the next to start at its address is a new node, which asks for the old one's
//! place as the daemon does. Disks are lost only as long as every configuration that may yet count keeps a quorum of
//! voters with theirs: what happens beyond that is a matter for backups.

use std::collections::BTreeMap;
use std::time::Duration;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::client::NodeRole;
use quorumkv_protocol::membership::{Change, ChangeRequest, Configuration, Member};
use quorumkv_protocol::{ClientId, EntryId, NodeId, RequestId, Version};
use quorumkv_replica::{Input, Membership, Reply, Token};

use crate::model;
use crate::model::store::Store;
use crate::node::Node;
use crate::world::{Event, World};

/// Nodes that there may be in one run, those included that are gone.
const MOST_NODES: usize = 14;

/// Voters and members that the administrator wants at most.
const MOST_VOTERS: usize = 5;
const MOST_MEMBERS: usize = 7;

/// Tokens of the administrator's requests begin here.
const TOKENS: u64 = 1 << 32;

/// The administrator, and what is known of members beyond what the nodes know.
pub(crate) struct Members {
    first: Configuration,
    addresses: BTreeMap<NodeId, String>,
    /// Every configuration that was ever logged.
    logged: BTreeMap<EntryId, Configuration>,
    asked: u64,
    sequence: u64,
    /// What is asked under each token that is not answered yet.
    open: BTreeMap<Token, (NodeId, ChangeRequest)>,
}

impl Members {
    pub(crate) fn new(first: Configuration) -> Self {
        let addresses = first.voters.iter().map(|voter| (voter.node, voter.address.clone())).collect();
        let logged = BTreeMap::from([(first.id, first.clone())]);
        Self { first, addresses, logged, asked: TOKENS, sequence: 0, open: BTreeMap::new() }
    }

    /// A node logged this configuration.
    pub(crate) fn logs(&mut self, configuration: &Configuration) {
        self.logged.insert(configuration.id, configuration.clone());
    }

    /// Whatever was in a node that died is never answered.
    pub(crate) fn node_died(&mut self, node: NodeId) {
        self.open.retain(|_, (asked, _)| *asked != node);
    }

    fn member(&self, node: NodeId) -> Member {
        Member { node, address: self.addresses[&node].clone() }
    }
}

impl World {
    /// The node that leads by its own account, in the highest epoch.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            let status = self.nodes[id].process.as_ref()?.replica.status();
            (status.role == NodeRole::Leader).then_some((status.promise, *id))
        };
        self.nodes.keys().filter_map(leads).max().map(|(_, id)| id)
    }

    /// The configuration that counts for a running node.
    pub(crate) fn configuration_of(&self, id: NodeId) -> Option<&Configuration> {
        Some(self.nodes[&id].process.as_ref()?.replica.configuration())
    }

    /// The administrator wants something, which may make sense or not.
    pub(crate) fn wish(&mut self) {
        // Mostly he knows who leads.
        let at = if self.chance(1, 10) { self.running() } else { self.leader().into_iter().collect() };
        if let Some(at) = self.pick(&at) {
            self.wish_at(at);
        }
    }

    /// A node is about to lead, and the administrator has been waiting for that: his request often comes too early.
    pub(crate) fn wish_early(&mut self, at: NodeId) {
        if self.plan.changes.is_some() && !self.healed && self.chance(1, 3) {
            self.wish_at(at);
        }
    }

    fn wish_at(&mut self, at: NodeId) {
        let Some(configuration) = self.configuration_of(at).cloned() else { return };
        let members: Vec<NodeId> = configuration.members().map(|member| member.node).collect();
        let learners: Vec<NodeId> = configuration.learners.iter().map(|learner| learner.node).collect();
        let change = match self.rng.u8(0..8) {
            0 | 1 if members.len() < MOST_MEMBERS => {
                self.stranger(&configuration).map(|node| Change::AddLearner(self.members.member(node)))
            }
            0..=4 if configuration.voters.len() < MOST_VOTERS => self.pick(&learners).map(Change::Promote),
            5 | 6 => self.pick(&members).map(Change::Remove),
            _ => match (self.pick(&members), self.stranger(&configuration)) {
                (Some(old), Some(new)) => Some(Change::Replace { old, new: self.members.member(new) }),
                _ => None,
            },
        };
        if let Some(change) = change {
            let force = self.chance(1, 4) && self.is_bearable(&configuration, &change);
            self.request_change(at, change, force);
        }
    }

    /// A node that runs and is no member, or a new one.
    fn stranger(&mut self, configuration: &Configuration) -> Option<NodeId> {
        let idle = |id: &NodeId| configuration.member(*id).is_none() && self.configuration_of(*id).is_some();
        let idle: Vec<NodeId> = self.nodes.keys().copied().filter(idle).collect();
        if self.nodes.len() < MOST_NODES && (idle.is_empty() || self.chance(1, 4)) {
            return Some(self.new_node(None));
        }
        self.pick(&idle)
    }

    /// Starts a node with an empty disk, at an address of its own or at that of a node that is gone.
    fn new_node(&mut self, address_of: Option<NodeId>) -> NodeId {
        let id = NodeId::new(self.nodes.len() as u64 + 1);
        let address = match address_of {
            Some(gone) => self.members.addresses[&gone].clone(),
            None => model::member(id).address,
        };
        self.members.addresses.insert(id, address);
        let store = Store::new(self.members.first.clone(), self.plan.results);
        self.nodes.insert(id, Node::new(store));
        self.note(|_| format!("{id} is new"));
        self.start(id);
        id
    }

    fn request_change(&mut self, at: NodeId, change: Change, force: bool) {
        self.members.sequence += 1;
        let (sequence, keeps_floor) = (self.members.sequence, self.rng.bool());
        let request = RequestId { client: ClientId::new(1_000_000), sequence };
        let floor = if keeps_floor { sequence.saturating_sub(5).max(1) } else { sequence };
        let since = Version::new(self.invariants.committed_entries());
        self.ask_for_change(at, ChangeRequest { request, floor, since, change, force });
    }

    fn ask_for_change(&mut self, at: NodeId, request: ChangeRequest) {
        if self.nodes[&at].process.is_none() {
            return;
        }
        self.members.asked += 1;
        let token = Token(self.members.asked);
        // A forced request was checked against what the node holds now, so nobody sends it again later.
        if !request.force && self.chance(1, 4) {
            let later = self.rng.u64(100..400_000);
            self.schedule(later, Event::RetryChange(request.clone()));
        }
        self.members.open.insert(token, (at, request.clone()));
        let deadline = self.time_at(at) + Duration::from_micros(self.rng.u64(50_000..1_500_000));
        self.input(at, Input::Change { token, request, dry_run: false, deadline });
    }

    /// The same request comes again, to whoever leads by then.
    pub(crate) fn retry_change(&mut self, request: ChangeRequest) {
        if let Some(leader) = self.leader().filter(|_| !self.healed) {
            self.ask_for_change(leader, request);
        }
    }

    /// A node answered the administrator. False if the answer is not for him.
    pub(crate) fn change_answered(&mut self, token: Token, reply: &Reply) -> bool {
        let Some((_, request)) = self.members.open.remove(&token) else { return false };
        self.note(|_| {
            format!("the administrator hears of {:?}: {}", request.change, model::render::reply(reply))
        });
        match reply {
            Reply::Written { version, .. } => {
                self.summary.changes += 1;
                self.invariants.change_acknowledged(&request, *version);
            }
            Reply::Refused(_) => self.summary.refusals += 1,
            Reply::NotLeader { .. } | Reply::Failed { .. } => {}
            Reply::Read { .. } | Reply::Ready | Reply::Permitted => {
                panic!("{token:?} was answered with something else: {reply:?}")
            }
        }
        true
    }

    /// A node was told that it belongs to the cluster no longer: its process ends. Somebody may start it again.
    pub(crate) fn retire(&mut self, id: NodeId, since: EntryId) {
        self.invariants.removed(id, since);
        self.summary.removals += 1;
        self.crash(id);
        let is_member = |configuration: &Configuration| configuration.member(id).is_some();
        let again = self.leader().and_then(|leader| self.configuration_of(leader)).is_some_and(is_member);
        if again || (!self.healed && self.chance(1, 4)) {
            let delay = self.rng.u64(10_000..1_000_000);
            self.schedule(delay, Event::Restart(id));
        }
    }

    /// A node loses its disk. Another starts at its address, and wants its place.
    pub(crate) fn lose_a_disk(&mut self) {
        let present: Vec<NodeId> =
            self.nodes.iter().filter(|(_, node)| !node.gone).map(|(&id, _)| id).collect();
        let Some(id) = self.pick(&present) else { return };
        if self.nodes.len() >= MOST_NODES || !self.can_do_without(id) {
            return;
        }
        self.crash(id);
        if Mutant::AmnesiacVotes.on() {
            let (first, results) = (self.members.first.clone(), self.plan.results);
            *self.node(id) = Node::new(Store::new(first, results));
            return self.start(id);
        }
        self.summary.amnesias += 1;
        self.note(|_| format!("{id} has lost its disk"));
        self.is_gone(id);
    }

    fn is_gone(&mut self, id: NodeId) {
        self.node(id).gone = true;
        let delay = self.rng.u64(1_000..300_000);
        self.schedule(delay, Event::ComeBack(id));
    }

    /// Something happens to the log of a node. It must be noticed when the log is opened: then the node is as good as gone.
    pub(crate) fn damage_a_log(&mut self) {
        let running = self.running();
        let Some(id) = self.pick(&running) else { return };
        if self.nodes.len() >= MOST_NODES || !self.can_do_without(id) {
            return;
        }
        self.crash(id);
        let mut rng = self.rng.fork();
        let node = self.node(id);
        if !node.journal.damage(&mut rng) {
            return self.start(id);
        }
        match node.journal.open() {
            Err(error) => {
                assert!(error.is_loss(), "damage is taken for something else: {error}");
                self.summary.log_damages += 1;
                self.note(|_| format!("{id} finds its log damaged: {error}"));
                self.is_gone(id);
            }
            Ok(found) => {
                let is_harmless = node.disk.crash_to(&found);
                assert!(is_harmless, "damage of the log of {id} is not noticed: it holds {found:?}");
                self.start(id);
            }
        }
    }

    pub(crate) fn come_back(&mut self, gone: NodeId) {
        if self.nodes.len() < MOST_NODES {
            let id = self.new_node(Some(gone));
            self.schedule(1_000, Event::Rejoin(id));
        }
    }

    /// A node without a place asks for that of the node which had its address.
    pub(crate) fn rejoin(&mut self, id: NodeId) {
        if self.nodes[&id].gone {
            return;
        }
        let again = self.rng.u64(50_000..400_000);
        self.schedule(again, Event::Rejoin(id));
        let Some(process) = &self.nodes[&id].process else { return };
        if process.replica.status().membership != Membership::Outsider {
            return;
        }
        let address = self.members.addresses[&id].clone();
        let Some(leader) = self.leader() else { return };
        let Some(configuration) = self.configuration_of(leader) else { return };
        let has_it = |member: &&Member| member.address == address && self.nodes[&member.node].gone;
        let old = configuration.members().find(has_it).map(|member| member.node);
        if let Some(old) = old {
            let new = self.members.member(id);
            self.request_change(leader, Change::Replace { old, new }, false);
        }
    }

    /// When all is well again somebody sees to it that members run, and removes those whose disks are gone and that nobody
    /// replaces.
    pub(crate) fn tidy_up(&mut self, leader: NodeId) {
        for node in self.all() {
            let configuration = self.configuration_of(leader);
            if configuration.is_some_and(|configuration| configuration.member(node).is_some()) {
                self.start(node);
            }
        }
        let Some(configuration) = self.configuration_of(leader) else { return };
        let is_replaced = |node: NodeId| configuration.replacements.iter().any(|one| one.old == node);
        let gone = configuration
            .members()
            .map(|member| member.node)
            .find(|&node| self.nodes[&node].gone && !is_replaced(node));
        if let Some(gone) = gone {
            self.request_change(leader, Change::Remove(gone), false);
        }
    }

    /// Whether every configuration that may yet count keeps a quorum with disks when this node loses its own. What is asked for
    /// and not logged yet could be another.
    fn can_do_without(&self, id: NodeId) -> bool {
        let keeps = |voter: NodeId| voter != id && !self.nodes[&voter].gone;
        self.members.open.is_empty()
            && self.possible_configurations().all(|configuration| configuration.is_quorum(keeps))
    }

    /// The newest configuration that is committed, and all that may be.
    fn possible_configurations(&self) -> impl Iterator<Item = &Configuration> {
        let committed = self.invariants.committed_configuration().id;
        self.members.logged.values().filter(move |configuration| {
            let version = configuration.id.version.get();
            configuration.id == committed || version > self.invariants.committed_entries()
        })
    }

    /// Whether a change that is forced leaves a quorum that can come back.
    fn is_bearable(&self, configuration: &Configuration, change: &Change) -> bool {
        let mut next = configuration.clone();
        match change {
            Change::Remove(node) => next.voters.retain(|voter| voter.node != *node),
            Change::Promote(node) => next.voters.push(self.members.member(*node)),
            Change::AddLearner(_) | Change::Replace { .. } => {}
        }
        next.is_quorum(|voter| !self.nodes[&voter].gone)
    }
}
