//! What the tasks of a node share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use quorumkv_protocol::client::{DamageFound, DamagedPart, GaveUp, NodeRole, NodeStatus, Takeover};
use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::{ClusterId, Epoch, NodeId, Version};
use quorumkv_replica::{Membership, Status, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Event;
use crate::metrics::Metrics;
use crate::net::Routes;
use crate::state::State;

/// What people call the state of a ZooKeeper session with which all is well.
pub(super) const CONNECTED: &str = "connected";

/// A leader that was not heard for this long is not counted on.
const LEADER_SILENCE: Duration = Duration::from_secs(2);

/// States that were found to differ are spoken of for this long: they are compared again meanwhile.
const UNDECIDED: Duration = Duration::from_secs(300);

/// A node, as its tasks know it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Where other nodes reach this one.
    pub(crate) address: String,
    pub(crate) started: Instant,
    pub(crate) read_timeout: Duration,
    pub(crate) allow_remote_kill: bool,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: TaskTracker,
    /// Writes that the leader is to answer, and this node is to hand on.
    pub(crate) forwarded: TaskTracker,
    /// The node has been told to stop.
    pub(crate) stopping: CancellationToken,
    pub(crate) disk_full: AtomicBool,
    /// Whether this node does not belong to its cluster, or not yet.
    outsider: AtomicBool,
    /// Whether it was told to serve no clients.
    drained: AtomicBool,
    /// Whether its state is damaged, and not used until it is repaired.
    quarantined: AtomicBool,
    /// Whether it has lost what it had, and is no voter again yet.
    begins_anew: AtomicBool,
    state: State,
    cluster: OnceLock<ClusterId>,
    configurations: RwLock<Arc<Configurations>>,
    leadership: watch::Sender<Leadership>,
    committed: AtomicU64,
    published: RwLock<Published>,
}

/// What the owner and the election last said of themselves.
#[derive(Clone, Debug)]
struct Published {
    replica: Option<(Status, Timestamp)>,
    zookeeper: &'static str,
    forming: String,
    unwell: Option<String>,
    takeover: Option<Takeover>,
    gave_up: Option<(Epoch, String, Instant)>,
    damage: Option<Found>,
    /// Whose states were found to differ, as this node leads, and when that was last found.
    undecided: Option<(String, Instant)>,
}

/// Damage that was found on the disk.
#[derive(Clone, Debug)]
struct Found {
    part: DamagedPart,
    what: String,
    at: Instant,
    repaired: Option<Instant>,
}

/// The configurations of this node's log that say who is where.
#[derive(Debug)]
pub(crate) struct Configurations {
    /// The newest, which counts.
    pub(crate) latest: Configuration,
    /// The newest that is known to be committed. It may have members that are about to go.
    pub(crate) committed: Configuration,
}

impl Configurations {
    /// The member with this identity.
    pub(crate) fn member(&self, node: NodeId) -> Option<&Member> {
        self.latest.member(node).or_else(|| self.committed.member(node))
    }
}

/// Who leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Leadership {
    /// Nobody that this node knows of.
    Unknown,
    /// This node.
    Leading,
    /// Another node.
    Following {
        /// Its epoch: a leader that comes again with a new one is another leader.
        epoch: Epoch,
        /// Where it is reached.
        address: String,
    },
}

impl Leadership {
    /// Where the other node that leads is reached.
    pub(crate) fn address(&self) -> Option<&str> {
        match self {
            Self::Following { address, .. } => Some(address),
            Self::Unknown | Self::Leading => None,
        }
    }
}

/// What a node is made of; see [`Node`].
pub(crate) struct Parts {
    pub(crate) id: NodeId,
    pub(crate) config: crate::config::Config,
    pub(crate) state: State,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Self {
        let published = Published {
            replica: None,
            zookeeper: "connecting",
            forming: "the node has just started".to_owned(),
            unwell: None,
            takeover: None,
            gave_up: None,
            damage: None,
            undecided: None,
        };
        Self {
            id: parts.id,
            address: parts.config.advertise.to_string(),
            started: Instant::now(),
            read_timeout: parts.config.read_timeout,
            allow_remote_kill: parts.config.allow_remote_kill,
            events: parts.events,
            routes: parts.routes,
            metrics: parts.metrics,
            tasks: parts.tasks,
            forwarded: TaskTracker::new(),
            stopping: parts.stopping,
            disk_full: AtomicBool::new(false),
            outsider: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            // Until the owner knows better.
            begins_anew: AtomicBool::new(false),
            quarantined: AtomicBool::new(parts.state.is_marked_damaged()),
            state: parts.state,
            cluster: OnceLock::new(),
            configurations: RwLock::new(Arc::new(Configurations {
                latest: Configuration::UNKNOWN,
                committed: Configuration::UNKNOWN,
            })),
            leadership: watch::Sender::new(Leadership::Unknown),
            committed: AtomicU64::new(0),
            published: RwLock::new(published),
        }
    }

    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// The cluster whose protocol this node runs, once it does.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.cluster.get().copied()
    }

    /// This node begins to run the protocol of this cluster.
    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        // It is set once.
        let _ = self.cluster.set(cluster);
    }

    /// The configurations of this node's log.
    pub(crate) fn configurations(&self) -> Arc<Configurations> {
        Arc::clone(&self.configurations.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The owner says who the members are.
    pub(crate) fn set_configurations(&self, configurations: Configurations) {
        *self.configurations.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(configurations);
    }

    /// The address of a member.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<String> {
        self.configurations().member(node).map(|member| member.address.clone())
    }

    pub(crate) fn leadership(&self) -> Leadership {
        self.leadership.borrow().clone()
    }

    pub(crate) fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// A version that is committed.
    pub(crate) fn committed(&self) -> Version {
        Version::new(self.committed.load(Ordering::Relaxed))
    }

    /// The owner says how the replica is at `now`.
    pub(crate) fn publish(&self, status: Status, now: Timestamp) {
        self.committed.store(status.committed.get(), Ordering::Relaxed);
        self.quarantined.store(status.damaged, Ordering::Relaxed);
        // A node that lost what it had is whole again when it votes.
        if self.begins_anew.load(Ordering::Relaxed) && status.membership == Membership::Voter {
            self.begins_anew.store(false, Ordering::Relaxed);
            self.damage_repaired(None);
        }
        self.outsider.store(role(&status) == NodeRole::Outsider, Ordering::Relaxed);
        let leadership = match (status.role, status.leader.and_then(|leader| self.address_of(leader))) {
            (NodeRole::Leader, _) => Leadership::Leading,
            (NodeRole::Follower, Some(address)) => Leadership::Following { epoch: status.promise, address },
            _ => Leadership::Unknown,
        };
        self.leadership.send_if_modified(|known| {
            let changed = *known != leadership;
            if changed {
                *known = leadership;
            }
            changed
        });
        self.metrics.replica(&status);
        self.change(|published| published.replica = Some((status, now)));
    }

    /// The election says how the ZooKeeper session is.
    pub(crate) fn set_zookeeper(&self, session: &'static str) {
        self.metrics.zookeeper(session == CONNECTED);
        self.change(|published| published.zookeeper = session);
    }

    /// Whether there is a session with ZooKeeper, and a connection.
    pub(crate) fn has_zookeeper(&self) -> bool {
        self.published.read().unwrap_or_else(PoisonError::into_inner).zookeeper == CONNECTED
    }

    /// What the forming of the cluster waits for.
    pub(crate) fn set_forming(&self, what: String) {
        self.change(|published| published.forming = what);
    }

    /// This node gives up its lead of `epoch`, because of what is wrong with it.
    pub(crate) fn give_up(&self, epoch: Epoch, why: &str) {
        self.metrics.gave_up();
        self.change(|published| {
            published.unwell = Some(why.to_owned());
            published.gave_up = Some((epoch, why.to_owned(), Instant::now()));
        });
    }

    /// Whether this node gave up the lead by itself within this time.
    pub(crate) fn gave_up_within(&self, time: Duration) -> bool {
        self.published().gave_up.is_some_and(|(_, _, at)| at.elapsed() < time)
    }

    /// Damage was found on the disk.
    pub(crate) fn damage_found(&self, part: DamagedPart, what: String) {
        self.metrics.damage_found(part);
        let found = Found { part, what, at: Instant::now(), repaired: None };
        self.change(|published| published.damage = Some(found));
    }

    /// There is damage, if that is not known already. Whether it is news.
    pub(crate) fn damage_noticed(&self, part: DamagedPart, what: &str) -> bool {
        let is_known = |found: Found| found.part == part && found.repaired.is_none();
        let is_news = !self.published().damage.is_some_and(is_known);
        if is_news {
            self.damage_found(part, what.to_owned());
        }
        is_news
    }

    /// The states of some replicas differ, and nobody can tell which is right.
    pub(crate) fn set_undecided(&self, what: String) {
        self.change(|published| published.undecided = Some((what, Instant::now())));
    }

    /// A part of what this node had was lost before it started, and so it begins anew.
    pub(crate) fn lost(&self, part: DamagedPart, what: String) {
        self.begins_anew.store(true, Ordering::Relaxed);
        self.damage_found(part, what);
    }

    /// The damage is gone: that of this part, or whatever it is.
    pub(crate) fn damage_repaired(&self, part: Option<DamagedPart>) {
        let is_of = |found: &&mut Found| part.is_none_or(|part| found.part == part);
        self.change(|published| {
            if let Some(found) = published.damage.as_mut().filter(is_of) {
                self.metrics.damage_repaired(found.part);
                found.repaired = Some(Instant::now());
            }
        });
    }

    /// Whether its state is damaged, and not used until it is repaired.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// There is a leader again, and so nothing is wrong with the one that gave up.
    pub(crate) fn set_well(&self) {
        self.change(|published| published.unwell = None);
    }

    pub(super) fn set_takeover(&self, takeover: Takeover) {
        self.change(|published| published.takeover = Some(takeover));
    }

    fn change(&self, change: impl FnOnce(&mut Published)) {
        change(&mut self.published.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn published(&self) -> Published {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Milliseconds since this node last held everything that was known to be committed.
    pub(crate) fn age_ms(&self) -> Option<u64> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let (status, now) = published.replica.as_ref()?;
        u64::try_from(now.since(status.fresh?).as_millis()).ok()
    }

    /// Whether this node does not belong to its cluster, or not yet.
    pub(crate) fn is_outsider(&self) -> bool {
        self.outsider.load(Ordering::Relaxed)
    }

    /// Whether this node was told to serve no clients, and not to lead.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    pub(super) fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Why this node is not ready or not well; empty if it is both.
    pub(crate) fn remarks(&self) -> String {
        let published = self.published();
        let Some((status, now)) = published.replica else {
            return format!("the cluster is being formed: {}", published.forming);
        };
        match status.membership {
            Membership::Removed { .. } => return "this node was removed from the cluster".to_owned(),
            Membership::Outsider => {
                return format!(
                    "this node is no member of the cluster: add it with `kvctl member add {}`",
                    self.address
                );
            }
            Membership::Voter | Membership::Learner | Membership::Leaving => {}
        }
        if self.is_drained() {
            return "this node is drained: it serves no clients and does not lead (kvctl drain --undo ends that)".to_owned();
        }
        if let Some(found) = published.damage.filter(|found| found.repaired.is_none()) {
            let remedy = match found.part {
                _ if self.begins_anew.load(Ordering::Relaxed) => "; it is restored from the other nodes",
                DamagedPart::State if status.damaged => {
                    "; it is not used, and about to be replaced by the leader's"
                }
                DamagedPart::State => "",
                DamagedPart::Log => "; it goes as soon as the state holds durably what is in it",
            };
            return format!("damage in the {}: {}{remedy}", found.part.name(), found.what);
        }
        if status.damaged {
            return "the state is damaged, as this node found before it was restarted: it is not used, and about to be replaced by \
                    the leader's"
                .to_owned();
        }
        let is_recent = |(_, at): &(String, Instant)| at.elapsed() < UNDECIDED;
        if let Some((what, _)) = published.undecided.filter(is_recent) {
            return what;
        }
        if let Some(unwell) = published.unwell {
            return unwell;
        }
        if self.disk_full.load(Ordering::Relaxed) {
            return "the disk is nearly full: writes are refused".to_owned();
        }
        if status.leader.is_none() {
            return match published.zookeeper {
                "connected" => {
                    "there is no leader: an election is under way, or too few members are up".to_owned()
                }
                session => format!("there is no leader, and ZooKeeper is {session}"),
            };
        }
        let silence = now.since(status.leader_heard);
        if silence > LEADER_SILENCE {
            return format!("the leader has not been heard for {} s", silence.as_secs());
        }
        if status.restoring {
            return "a snapshot is being received".to_owned();
        }
        String::new()
    }

    /// Whether this node can serve writes and quorum reads.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_drained()
            && self.published().replica.is_some_and(|(status, now)| {
                status.leader.is_some()
                    && now.since(status.leader_heard) <= LEADER_SILENCE
                    && !status.restoring
                    && !status.damaged
            })
    }

    /// This node's account of itself.
    pub(crate) fn status(&self) -> NodeStatus {
        let published = self.published();
        let replica = published.replica.map(|(status, _)| status);
        let heard = |(status, now): (Status, Timestamp)| now.since(status.leader_heard) <= LEADER_SILENCE;
        let leader =
            published.replica.filter(|&replica| heard(replica)).and_then(|(status, _)| status.leader);
        NodeStatus {
            node: self.id,
            address: self.address.clone(),
            cluster: self.cluster(),
            role: replica.map_or(NodeRole::Forming, |status| role(&status)),
            epoch: replica.map_or(Epoch::ZERO, |status| status.promise),
            leader,
            leader_address: leader.and_then(|leader| self.address_of(leader)),
            last: replica.map_or(Version::ZERO, |status| status.last.version),
            committed: replica.map_or(Version::ZERO, |status| status.committed),
            applied: replica.map_or(Version::ZERO, |status| status.applied),
            lag: replica.map_or(0, |status| status.lag),
            sync_p99_us: self.metrics.sync_p99_us(),
            zookeeper: published.zookeeper.to_owned(),
            ready: self.is_ready(),
            remarks: self.remarks(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            members: self.configurations().latest.members().cloned().collect(),
            takeover: published.takeover,
            gave_up: published.gave_up.map(|(epoch, why, at)| GaveUp {
                epoch,
                why,
                ago_s: at.elapsed().as_secs(),
            }),
            damage: published.damage.map(|found| DamageFound {
                part: found.part,
                what: found.what,
                ago_s: found.at.elapsed().as_secs(),
                repaired_s: found.repaired.map(|at| at.elapsed().as_secs()),
            }),
        }
    }
}

/// What a node is doing, and what it is to its cluster, in one word.
const fn role(status: &Status) -> NodeRole {
    match (status.role, status.membership) {
        (NodeRole::Follower, Membership::Learner) => NodeRole::Learner,
        (NodeRole::Follower, Membership::Outsider | Membership::Removed { .. }) => NodeRole::Outsider,
        (role, _) => role,
    }
}
