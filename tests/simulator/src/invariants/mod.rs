//! What must hold at every moment of a run, and what must hold of its history.

mod accepts;
mod bounds;
mod commits;
mod durability;
mod entries;
pub(crate) mod history;
mod leaders;
mod membership;
mod progress;
mod promises;
mod reads;
mod repairs;
mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorumkv_protocol::client::{Evidence, Versioned};
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::{ChangeRequest, Configuration};
use quorumkv_protocol::peer::{PeerEnvelope, PeerMessage};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};
use quorumkv_replica::{LogRecord, Outgoing, Settings};

use crate::model::disk::Image;
use crate::model::store::Store;
use crate::node::{Node, Process};
use accepts::Accepts;
use commits::Commits;
use entries::Entries;
use history::History;
use progress::Progress;
use promises::Promises;
use repairs::Repairs;

/// All invariants.
pub(crate) struct Invariants {
    commits: Commits,
    promises: Promises,
    known: membership::Known,
    entries: Entries,
    progress: Progress,
    accepts: Accepts,
    repairs: Repairs,
}

impl Invariants {
    pub(crate) fn new(first: &Configuration, results: usize) -> Self {
        Self {
            commits: Commits::new(first.clone(), results),
            promises: Promises::default(),
            known: membership::Known::default(),
            entries: Entries::default(),
            progress: Progress::default(),
            accepts: Accepts::default(),
            repairs: Repairs::default(),
        }
    }

    /// A node decided that these entries are committed.
    pub(crate) fn committed(&mut self, id: NodeId, entries: &[Arc<Entry>], nodes: &BTreeMap<NodeId, Node>) {
        let process = nodes[&id].process.as_ref().expect("it has just decided that");
        let promise = process.replica.status().promise;
        for entry in entries {
            let before = self.commits.configuration().clone();
            if self.commits.commit(id, promise, entry) {
                durability::check_quorum(entry.id, counting(id, nodes), nodes);
                membership::check_step(&before, self.commits.configuration());
            }
        }
    }

    /// A node is about to hear a message.
    pub(crate) fn hears(&mut self, id: NodeId, promise: Epoch, envelope: &PeerEnvelope) {
        self.accepts.hears(id, promise, envelope);
    }

    /// A node is about to log these records.
    pub(crate) fn logged(&mut self, id: NodeId, before: &Image, records: &[LogRecord]) {
        self.entries.logged(id, before, records, &self.commits);
        for record in records {
            if let LogRecord::Entry(entry) = record
                && let Some(configuration) = entry.configuration()
            {
                self.known.look(id, configuration);
            }
        }
    }

    /// A node pulls the state of another.
    pub(crate) fn restoring(&mut self, id: NodeId, process: &Process) {
        let status = process.replica.status();
        if status.damaged {
            self.repairs.began(id, status.promise);
        }
    }

    /// A node is about to give its state to another.
    pub(crate) fn serves(&self, id: NodeId, node: &Node) {
        let Some(process) = &node.process else { return };
        let misleads = process.knows_damage() && process.store.borrow().is_readable();
        let is_wrong = misleads && !self.holds_what_is_committed(process);
        assert!(!is_wrong, "{id} gives away a state that it knows to be damaged");
    }

    /// A node has another state in the place of a damaged one.
    pub(crate) fn repaired(&mut self, id: NodeId) {
        self.repairs.over(id);
    }

    /// A node has applied an entry.
    pub(crate) fn applied(&self, id: NodeId, store: &Store) {
        if !store.is_spoiled {
            states::check(id, store, &self.commits);
        }
    }

    /// A read was answered.
    pub(crate) fn read(&self, evidence: &Evidence, value: Option<&Versioned>) {
        reads::check(evidence, value);
    }

    /// A node put a snapshot in the place of its state.
    pub(crate) fn installed(&self, id: NodeId, store: &Store) {
        self.commits.check_state(id, store);
    }

    /// Whether nothing has happened to what the node holds of the state, nor does it believe so.
    pub(crate) fn is_whole(&self, node: &Node) -> bool {
        let process = node.process.as_ref();
        !node.damaged
            && self.commits.is_whole(&node.saved)
            && process.is_none_or(|process| self.holds_what_is_committed(process))
    }

    /// The state as it would be if nothing had happened to it.
    pub(crate) fn as_committed(&self, store: &Store) -> Store {
        self.commits.state_at(store)
    }

    /// Whether nothing has happened to the state of a node that runs.
    pub(crate) fn holds_what_is_committed(&self, process: &Process) -> bool {
        self.commits.is_whole(&process.store.borrow())
    }

    /// A node sends a message.
    pub(crate) fn sent(&mut self, id: NodeId, message: &Outgoing, nodes: &BTreeMap<NodeId, Node>) {
        let knows_damage = nodes[&id].process.as_ref().is_some_and(Process::knows_damage);
        let shows = matches!(message.envelope.body, PeerMessage::ReadSampleReply(_));
        assert!(!(knows_damage && shows), "{id} shows a state that it knows to be damaged");
        self.promises.sent(id, message);
        self.accepts.sent(id, &message.envelope);
        durability::check_message(id, message, nodes);
        self.known.sent(id, message);
    }

    /// A node has started, with this promise.
    pub(crate) fn started(&mut self, id: NodeId, promise: Epoch, nodes: &BTreeMap<NodeId, Node>) {
        self.promises.started(id, promise);
        self.progress.started(id, &nodes[&id]);
        self.accepts.started(id);
        self.repairs.over(id);
    }

    /// A node's epoch is established.
    pub(crate) fn established(&mut self, id: NodeId, epoch: Epoch, nodes: &BTreeMap<NodeId, Node>) {
        let knows_damage = nodes[&id].process.as_ref().is_some_and(Process::knows_damage);
        assert!(!knows_damage, "{id} leads with a state that it knows to be damaged");
        self.promises.established(id, epoch);
        leaders::check_holds_all(id, epoch, &nodes[&id], &self.commits);
        membership::check_leader(epoch, counting(id, nodes), nodes);
    }

    /// A node was told that it belongs to the cluster no longer.
    pub(crate) fn removed(&self, id: NodeId, since: EntryId) {
        let configuration = self.commits.configuration_of(since);
        assert!(configuration.member(id).is_none(), "{id} is told that it was removed by {configuration:?}");
        let newest = self.commits.configuration();
        assert!(!newest.is_voter(id), "{id} is told that it was removed, and votes by {newest:?}");
    }

    /// The administrator was told that his change is made by the entry at this version.
    pub(crate) fn change_acknowledged(&self, request: &ChangeRequest, version: Version) {
        let configuration = self.commits.entry(version).configuration();
        let configuration = configuration.expect("a change of the members came to something else");
        membership::check_acknowledged(request, configuration);
    }

    /// A node has taken in something.
    pub(crate) fn look(&mut self, id: NodeId, nodes: &BTreeMap<NodeId, Node>, settings: &Settings) {
        let Some(process) = &nodes[&id].process else { return };
        let status = process.replica.status();
        self.known.look(id, process.replica.configuration());
        self.known.look(id, process.replica.committed_configuration());
        self.promises.look(id, status.promise);
        self.progress.look(id, status.committed, &nodes[&id]);
        bounds::check(id, process, &nodes[&id].disk.written, settings);
        assert!(status.applied <= status.committed, "{id} applied more than is committed");
        assert!(status.committed <= status.last.version, "{id} committed more than it has");
    }

    /// All members have the same state now: that of everything that was ever committed.
    pub(crate) fn check_agreement(&self, nodes: &BTreeMap<NodeId, Node>, away: &BTreeSet<NodeId>) {
        for member in self.commits.configuration().members().filter(|member| !away.contains(&member.node)) {
            let id = member.node;
            let process = nodes[&id].process.as_ref().expect("all members run");
            let store = process.store.borrow();
            assert_eq!(
                usize::try_from(store.applied.version.get()).ok(),
                Some(self.commits.entries().len()),
                "{id} is not up to date"
            );
            self.commits.check_state(id, &store);
        }
    }

    pub(crate) fn check_history(&self, history: &History) {
        history.check(self.commits.entries());
    }

    pub(crate) fn committed_entries(&self) -> u64 {
        self.commits.entries().len() as u64
    }

    /// How many replacements have come to their end.
    pub(crate) fn replacements(&self) -> u64 {
        self.commits.replacements()
    }

    /// The newest configuration that was ever committed.
    pub(crate) const fn committed_configuration(&self) -> &Configuration {
        self.commits.configuration()
    }
}

/// The configuration in which a node counted votes when it was last awake.
fn counting(id: NodeId, nodes: &BTreeMap<NodeId, Node>) -> &Configuration {
    let process = nodes[&id].process.as_ref().expect("it counts votes");
    process.counted.last().expect("it was awake")
}
