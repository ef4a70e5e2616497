//! A few replicas in which nothing happens by itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorumkv_protocol::client::{Write, WriteRequest};
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::{Change, ChangeRequest, Configuration, Member};
use quorumkv_protocol::peer::{PeerEnvelope, PropagateReply};
use quorumkv_protocol::{ClientId, EntryId, NodeId, RequestId, Version};
use quorumkv_replica::{
    DigestTask, Input, Membership, Outgoing, PersistId, Replica, Settings, Task, Timestamp, Token,
};

use crate::model::disk::Disk;
use crate::model::render;
use crate::model::store::{DAMAGED, Shared, Snapshot, Staged, Store};
use crate::model::{configuration, member};

/// Results of requests that the states remember, and pieces in one chunk of a snapshot.
const RESULTS: usize = 100;
const CHUNK: usize = 3;

/// How long clients wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a client asks.
pub(crate) enum Ask<'a> {
    Put(&'a str, &'a str),
    Delete(&'a str),
    CompareAndSet(&'a str, &'a str, u64),
    Read(&'a str),
    Scan,
}

/// A request that can be sent again.
#[derive(Clone)]
enum Asked {
    Write(WriteRequest),
    Change(ChangeRequest),
}

struct Node {
    replica: Replica<Shared>,
    store: Rc<RefCell<Store>>,
    saved: Store,
    disk: Disk,
    unsynced: Option<PersistId>,
    to_apply: VecDeque<Arc<Entry>>,
    digest: Option<DigestTask>,
    tasks: VecDeque<Task>,
    staged: Option<Staged>,
    serving: Option<Snapshot>,
}

/// All nodes, and the messages between them.
pub(crate) struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    messages: BTreeMap<(NodeId, NodeId), VecDeque<PeerEnvelope>>,
    now: Timestamp,
    asked: Vec<Option<Asked>>,
    first: Configuration,
    settings: Settings,
    output: Vec<String>,
}

/// Every append carries one entry, and no applied entry stays in memory. States are compared only where that is shown, a few
/// pieces at a time.
fn settings(compare: Option<Duration>) -> Settings {
    let compare = compare.unwrap_or(Duration::from_secs(1_000_000));
    Settings { cache_bytes: 0, append_bytes: 1, compare, compare_bytes: 4, ..Settings::default() }
}

impl Node {
    fn start(id: NodeId, mut disk: Disk, saved: Store, settings: Settings) -> Self {
        let recovered = disk.recover(saved.applied);
        let store = Rc::new(RefCell::new(saved.clone()));
        let shared = Shared(Rc::clone(&store));
        let replica = Replica::new(id, &recovered, shared, settings);
        Self {
            replica,
            store,
            saved,
            disk,
            unsynced: None,
            to_apply: VecDeque::new(),
            digest: None,
            tasks: VecDeque::new(),
            staged: None,
            serving: None,
        }
    }

    fn digested(&mut self) -> Option<Input> {
        self.store.borrow().digested(&mut self.digest)
    }
}

impl Cluster {
    pub(crate) fn new(count: u64, compare: Option<Duration>) -> Self {
        let (configuration, settings) = (configuration(count), settings(compare));
        let start = |member: &Member| {
            let store = Store::new(configuration.clone(), RESULTS);
            (member.node, Node::start(member.node, Disk::new(), store, settings.clone()))
        };
        let nodes = configuration.voters.iter().map(start).collect();
        let mut cluster = Self {
            nodes,
            messages: BTreeMap::new(),
            now: Timestamp::from_micros(1_000_000),
            asked: Vec::new(),
            first: configuration,
            settings,
            output: Vec::new(),
        };
        for one in cluster.members() {
            for other in cluster.members().into_iter().filter(|&other| other > one) {
                cluster.connect(one, other);
            }
        }
        cluster
    }

    fn members(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("there is such a node")
    }

    /// What happened since the last call.
    pub(crate) fn take_output(&mut self) -> Vec<String> {
        std::mem::take(&mut self.output)
    }

    pub(crate) fn input(&mut self, id: NodeId, input: Input) {
        self.inputs(id, [input]);
    }

    fn inputs(&mut self, id: NodeId, inputs: impl IntoIterator<Item = Input>) {
        let now = self.now;
        let node = self.node(id);
        for input in inputs {
            node.replica.handle(now, input);
        }
        let effects = node.replica.flush(0);
        let lines = render::effects(&effects);
        if let Some(batch) = effects.persist {
            node.disk.write(batch, effects.log, effects.when_durable);
            node.unsynced = Some(batch);
        }
        node.digest = effects.digest.or(node.digest.take());
        node.to_apply.extend(effects.apply);
        node.tasks.extend(effects.tasks);
        for message in effects.sends {
            self.send(id, message);
        }
        self.output.extend(lines.into_iter().map(|line| format!("{}: {line}", render::node(id))));
    }

    fn send(&mut self, from: NodeId, message: Outgoing) {
        if self.messages.contains_key(&(from, message.to)) {
            self.messages.entry((from, message.to)).or_default().push_back(message.envelope);
        }
    }

    pub(crate) fn ask(&mut self, id: NodeId, ask: &Ask<'_>) {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let write = match *ask {
            Ask::Put(key, value) => Write::Put { key: bytes(key), value: bytes(value) },
            Ask::Delete(key) => Write::Delete { key: bytes(key) },
            Ask::CompareAndSet(key, value, expected) => Write::CompareAndSet {
                key: bytes(key),
                expected: Version::new(expected),
                value: bytes(value),
            },
            Ask::Read(key) => {
                let (token, deadline) = (self.token(None), self.now + PATIENCE);
                return self.input(id, Input::Read { token, key: bytes(key), evidence: true, deadline });
            }
            Ask::Scan => {
                let (token, deadline) = (self.token(None), self.now + PATIENCE);
                return self.input(id, Input::Barrier { token, deadline });
            }
        };
        let request = self.next_request();
        self.request(id, Asked::Write(WriteRequest { request, floor: 1, since: Version::ZERO, write }));
    }

    pub(crate) fn change(&mut self, id: NodeId, change: Change, force: bool) {
        let (request, since) = (self.next_request(), Version::ZERO);
        self.request(id, Asked::Change(ChangeRequest { request, floor: 1, since, change, force }));
    }

    fn next_request(&self) -> RequestId {
        RequestId { client: ClientId::new(1), sequence: self.asked.len() as u64 + 1 }
    }

    /// A node that is to be a member: it is started and connected if it was not there.
    pub(crate) fn newcomer(&mut self, id: NodeId) -> Member {
        if !self.nodes.contains_key(&id) {
            let peers = self.members();
            let store = Store::new(self.first.clone(), RESULTS);
            self.nodes.insert(id, Node::start(id, Disk::new(), store, self.settings.clone()));
            for peer in peers {
                self.connect(peer, id);
            }
        }
        member(id)
    }

    /// Sends the request of an earlier token once more.
    pub(crate) fn retry(&mut self, id: NodeId, token: u64) {
        let index = usize::try_from(token - 1).expect("tokens are small");
        let request = self.asked[index].clone().expect("reads are not retried");
        self.request(id, request);
    }

    fn request(&mut self, id: NodeId, request: Asked) {
        let (token, deadline) = (self.token(Some(request.clone())), self.now + PATIENCE);
        self.input(
            id,
            match request {
                Asked::Write(request) => Input::Write { token, request, deadline },
                Asked::Change(request) => Input::Change { token, request, dry_run: false, deadline },
            },
        );
    }

    fn token(&mut self, request: Option<Asked>) -> Token {
        self.asked.push(request);
        Token(self.asked.len() as u64)
    }

    pub(crate) fn persist(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(batch) = node.unsynced.take() else { return };
        let mut messages = Vec::new();
        while let Some((_, released)) = node.disk.sync() {
            messages.extend(released);
        }
        for message in messages {
            self.send(id, message);
        }
        self.input(id, Input::Persisted(batch));
    }

    /// Applies what is committed, and on the way digests what is asked for.
    pub(crate) fn apply(&mut self, id: NodeId) {
        let node = self.node(id);
        let mut done = Vec::new();
        loop {
            done.extend(node.digested());
            let Some(entry) = node.to_apply.pop_front() else { break };
            node.store.borrow_mut().apply(&entry);
            done.push(Input::Applied(entry.id.version));
        }
        if !done.is_empty() {
            self.inputs(id, done);
        }
    }

    /// Something happens to the value of a key.
    pub(crate) fn damage(&mut self, id: NodeId, key: &str, is_readable: bool) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let is_there =
            self.node(id).store.borrow_mut().damage(&key, is_readable.then_some(Bytes::from_static(DAMAGED)));
        assert!(is_there, "only what is there can be damaged");
    }

    /// Does the oldest background task.
    pub(crate) fn work(&mut self, id: NodeId) {
        if let Some(task) = self.node(id).tasks.pop_front() {
            self.perform(id, task);
        }
    }

    fn perform(&mut self, id: NodeId, task: Task) {
        let node = self.node(id);
        let done = match task {
            Task::ReadLog(read) => {
                let entries = node.disk.written.read(read.from, read.max_bytes);
                Input::LogRead { read, entries }
            }
            Task::ServeChunk { to, correlation, epoch, resume } => {
                let cursor = resume.map_or(Bytes::new(), |position| position.cursor);
                if cursor.is_empty() {
                    node.serving = node.store.borrow().snapshot();
                }
                let snapshot = node.serving.as_ref().expect("a snapshot was begun");
                let body = PropagateReply::Chunk { epoch, chunk: snapshot.chunk(&cursor, CHUNK) }.into();
                self.output.push(format!(
                    "{}: -> {}: {}",
                    render::node(id),
                    render::node(to),
                    render::message(&body)
                ));
                return self.send(id, Outgoing { to, envelope: PeerEnvelope { correlation, body } });
            }
            Task::WriteChunk(chunk) => {
                Staged::take(&mut node.staged, &chunk);
                Input::ChunkWritten { snapshot: chunk.position.snapshot, next: chunk.next }
            }
            Task::Install { snapshot } => {
                let staged = node.staged.take().expect("a snapshot was stored");
                let store = node.store.borrow().restored(&staged);
                node.saved = store.clone();
                *node.store.borrow_mut() = store;
                Input::Installed { snapshot }
            }
        };
        self.input(id, done);
    }

    pub(crate) fn trim(&mut self, id: NodeId, version: Version) {
        let node = self.node(id);
        node.saved = node.store.borrow().clone();
        let base = node.disk.written.id_at(version).expect("the log holds it");
        assert!(node.disk.trim(base), "what is trimmed is on disk");
        self.input(id, Input::Trimmed(base));
    }

    pub(crate) fn deliver(&mut self, from: NodeId, to: NodeId) {
        let messages = self.messages.get_mut(&(from, to)).map(std::mem::take).unwrap_or_default();
        self.inputs(to, messages.into_iter().map(|envelope| Input::Message { from, envelope }));
    }

    pub(crate) fn connect(&mut self, one: NodeId, other: NodeId) {
        for (from, to) in [(one, other), (other, one)] {
            self.messages.insert((from, to), VecDeque::new());
            self.input(from, Input::PeerUp(to));
        }
    }

    pub(crate) fn disconnect(&mut self, one: NodeId, other: NodeId) {
        for (from, to) in [(one, other), (other, one)] {
            self.messages.remove(&(from, to));
            self.input(from, Input::PeerDown(to));
        }
    }

    pub(crate) fn tick(&mut self, time: Duration) {
        self.now = self.now + time;
        for id in self.members() {
            self.input(id, Input::Tick);
        }
    }

    pub(crate) fn restart(&mut self, id: NodeId) {
        let mut node = self.nodes.remove(&id).expect("there is such a node");
        node.disk.crash(0);
        let peers: Vec<NodeId> =
            self.members().into_iter().filter(|&peer| self.messages.contains_key(&(peer, id))).collect();
        self.nodes.insert(id, Node::start(id, node.disk, node.saved, self.settings.clone()));
        for peer in peers {
            self.messages.remove(&(peer, id));
            self.input(peer, Input::PeerDown(id));
            self.connect(peer, id);
        }
        self.output.push(self.describe_node(id));
    }

    pub(crate) fn kill(&mut self, id: NodeId) {
        self.nodes.remove(&id).expect("there is such a node");
        for peer in self.members() {
            self.messages.remove(&(id, peer));
            if self.messages.remove(&(peer, id)).is_some() {
                self.input(peer, Input::PeerDown(id));
            }
        }
    }

    /// Lets these nodes, or all, do everything there is to do but wait. Says where they are then.
    pub(crate) fn settle(&mut self, nodes: &[NodeId]) -> Vec<String> {
        let nodes = if nodes.is_empty() { self.members() } else { nodes.to_vec() };
        while nodes.iter().any(|&id| self.has_something_to_do(id, &nodes)) {
            for &id in &nodes {
                self.persist(id);
                self.apply(id);
                self.work(id);
                for &peer in nodes.iter().filter(|&&peer| peer != id) {
                    self.deliver(id, peer);
                }
            }
        }
        self.output.clear();
        nodes.into_iter().map(|id| self.describe_node(id)).collect()
    }

    fn has_something_to_do(&self, id: NodeId, nodes: &[NodeId]) -> bool {
        let node = &self.nodes[&id];
        let sent = |peer| self.messages.get(&(id, peer)).is_some_and(|messages| !messages.is_empty());
        node.unsynced.is_some()
            || !node.to_apply.is_empty()
            || node
                .digest
                .as_ref()
                .is_some_and(|task| task.compare.version == node.store.borrow().applied.version)
            || !node.tasks.is_empty()
            || nodes.iter().any(|&peer| sent(peer))
    }

    /// Where all nodes are.
    pub(crate) fn describe(&self) -> Vec<String> {
        self.nodes.keys().map(|&id| self.describe_node(id)).collect()
    }

    fn describe_node(&self, id: NodeId) -> String {
        let node = &self.nodes[&id];
        let status = node.replica.status();
        let keys: Vec<String> = (node.store.borrow().keys.iter())
            .map(|(key, record)| {
                format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(&record.value))
            })
            .collect();
        let configuration = node.replica.configuration();
        let role = match status.membership {
            Membership::Voter if configuration.id == EntryId::ZERO => status.role.name().to_owned(),
            Membership::Voter => {
                format!("{} of {}", status.role.name(), render::configuration(configuration))
            }
            Membership::Learner => format!("learner of {}", render::configuration(configuration)),
            Membership::Leaving => format!("{}, leaving", status.role.name()),
            Membership::Removed { .. } => "removed".to_owned(),
            Membership::Outsider => "outsider".to_owned(),
        };
        format!(
            "{}: {role} in {}; log to {}, committed {}, applied {} [{}]",
            render::node(id),
            render::epoch(status.promise),
            render::id(status.last),
            status.committed,
            status.applied,
            keys.join(" ")
        )
    }
}
