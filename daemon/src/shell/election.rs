//! Between ZooKeeper's election and the replica: who is elected gets an epoch, who should not lead resigns.

use std::sync::Arc;
use std::time::Duration;

use quorumkv_protocol::NodeId;
use quorumkv_protocol::client::NodeRole;
use quorumkv_replica::{Membership, Notice, Status, Timestamp, Unwell};
use tokio::sync::mpsc::UnboundedSender;

use super::node::CONNECTED;
use super::{Done, Node};
use crate::coordination::{Coordinator, EnrolPolicy, Event, SessionState};

/// Longest that ZooKeeper may take to allocate an epoch or to take a resignation.
const PATIENCE: Duration = Duration::from_secs(5);

/// After this time without a leader, the node with the lowest znode leads although ZooKeeper has not said so anew.
const LEADERLESS: Duration = Duration::from_secs(3);

/// A leader that comes to lead again within this time after it gave up for want of room stays.
const CONTENT: Duration = Duration::from_secs(60);

/// Pause before something that ZooKeeper did not do is asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// A leader heard within this time is let enrol first after all sessions were lost.
const INCUMBENT_SILENCE: Duration = Duration::from_secs(1);

/// What the election asks of the replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Lead an epoch with this counter.
    Lead(u64),
    /// Stop leading or contending.
    StandDown,
}

/// This node's part in the election.
#[derive(Debug)]
pub(super) struct Election {
    node: Arc<Node>,
    coordinator: Coordinator,
    done: UnboundedSender<Done>,
    /// How long the others wait for an incumbent to enrol.
    grace: Duration,
    /// Whether our znode is the lowest.
    seated: bool,
    allocating: bool,
    resigning: bool,
    impeaching: bool,
    /// Since when this node's znode is the lowest while nobody leads.
    idle_since: Timestamp,
    /// Since when another znode is the lowest while nobody leads.
    stuck_since: Timestamp,
}

impl Election {
    pub(super) fn new(
        node: Arc<Node>,
        coordinator: Coordinator,
        done: UnboundedSender<Done>,
        session_timeout: Duration,
    ) -> Self {
        let grace = session_timeout * 2;
        Self {
            node,
            coordinator,
            done,
            grace,
            seated: false,
            allocating: false,
            resigning: false,
            impeaching: false,
            idle_since: Timestamp::ZERO,
            stuck_since: Timestamp::ZERO,
        }
    }

    /// ZooKeeper says something.
    pub(super) fn on_event(&mut self, event: Event, status: &Status) -> Option<Order> {
        match event {
            Event::Session(session) => {
                self.node.set_zookeeper(Self::session_name(session));
                None
            }
            Event::Elected => {
                if self.node.is_drained() || status.damaged {
                    self.seated = true;
                    self.resign();
                    return None;
                }
                tracing::info!("elected: this node's znode is the lowest");
                self.node.metrics.elected();
                (self.seated, self.resigning) = (true, false);
                // Who leads already, and outlived its session, simply goes on.
                if status.role == NodeRole::Follower {
                    self.allocate(status);
                }
                None
            }
            Event::Unseated => {
                self.seated = false;
                // A leader goes on as long as it holds a quorum. A contender has nothing to lose.
                (status.role == NodeRole::Contender).then_some(Order::StandDown)
            }
            Event::Leader(address) => {
                tracing::debug!(znode = address.unwrap_or_default(), "lowest znode");
                None
            }
        }
    }

    /// ZooKeeper allocated an epoch, or could not.
    pub(super) fn on_epoch(&mut self, counter: Option<u64>, status: &Status) -> Option<Order> {
        self.allocating = false;
        match counter {
            _ if !self.seated || status.role != NodeRole::Follower => None,
            Some(counter) => Some(Order::Lead(counter)),
            None => {
                self.allocate(status);
                None
            }
        }
    }

    /// The replica says something that concerns the election.
    pub(super) fn on_notice(&mut self, notice: &Notice, status: &Status) -> Option<Order> {
        match notice {
            Notice::EpochTooLow { .. } if self.seated => {
                self.allocate(status);
                None
            }
            // Somebody else has a higher epoch, although our znode is the lowest: let them settle it. Who has no vote cannot
            // lead at all.
            Notice::StoodDown { .. } | Notice::NotAVoter => {
                self.resign();
                None
            }
            // While ZooKeeper is away nobody else could be elected: then a leader in trouble is better than none.
            // It was elected again, so those with more room do not want to lead; and asking again would cost an election each time.
            Notice::Unwell(Unwell::DiskFull) if self.node.gave_up_within(CONTENT) => None,
            Notice::Unwell(unwell) if self.node.has_zookeeper() => {
                let why = describe(unwell);
                tracing::warn!("stands down: {why}");
                self.node.give_up(status.promise, &why);
                self.resign();
                Some(Order::StandDown)
            }
            Notice::Unwell(unwell) => {
                tracing::warn!("{}; ZooKeeper is away, so this node goes on", describe(unwell));
                None
            }
            Notice::Impeach { epoch } => {
                self.impeach(epoch.node());
                None
            }
            Notice::Established { .. } | Notice::Following { .. } => {
                self.node.set_well();
                None
            }
            _ => None,
        }
    }

    /// Time has passed: tells the coordination whether an incumbent is to enrol before this node, leads if this node's znode is the
    /// lowest and yet nobody has led for a while, because a resignation failed, say, and doubts what ZooKeeper says if another's is.
    pub(super) fn tick(&mut self, status: &Status, now: Timestamp) {
        let heard = status.leader.filter(|_| now.since(status.leader_heard) < INCUMBENT_SILENCE);
        let incumbent =
            heard.filter(|&leader| leader != self.node.id).and_then(|leader| self.node.address_of(leader));
        self.coordinator.set_enrolment(match incumbent {
            _ if status.membership != Membership::Voter || status.damaged || self.node.is_drained() => {
                EnrolPolicy::NEVER
            }
            Some(incumbent) => EnrolPolicy::Wait { incumbent, at_most: self.grace },
            None => EnrolPolicy::Enrol,
        });
        let is_idle = self.seated && !self.allocating && !self.resigning && status.role == NodeRole::Follower;
        if heard.is_some() || !is_idle {
            self.idle_since = now;
        } else if now.since(self.idle_since) >= LEADERLESS {
            tracing::info!("nobody leads, and this node's znode is the lowest");
            self.idle_since = now;
            self.allocate(status);
        }
        if self.is_stuck(status, heard.is_some(), now) {
            tracing::warn!(
                "nobody leads, and ZooKeeper names another node: asks it anew, with a new session"
            );
            self.coordinator.begin_anew();
        }
    }

    /// Whether another node is first in the election and has not led for so long that what this node sees of the election may be
    /// wrong. A ZooKeeper server that was killed at a bad moment can show, for ever and alone of all, ephemeral znodes of sessions
    /// that have ended. Then whoever reads there waits for them, and the others wait for him.
    fn is_stuck(&mut self, status: &Status, hears_a_leader: bool, now: Timestamp) -> bool {
        let waits = status.role == NodeRole::Follower
            && status.membership == Membership::Voter
            && self.node.has_zookeeper()
            && !(hears_a_leader || self.seated || status.damaged || self.node.is_drained());
        let is_stuck = waits && now.since(self.stuck_since) >= self.grace * 2;
        if !waits || is_stuck {
            self.stuck_since = now;
        }
        is_stuck
    }

    /// A resignation came to its end. One that failed is tried again for as long as this node's znode keeps the place
    /// of a successor, and this node does not lead with it after all.
    pub(super) fn on_resigned(&mut self, is_done: bool, status: &Status) {
        self.resigning = false;
        if !is_done && (status.role != NodeRole::Leader || self.node.is_drained()) {
            self.resign();
        }
    }

    /// An attempt to impeach the leader came to its end.
    pub(super) fn on_impeached(&mut self) {
        self.impeaching = false;
    }

    /// Leaves the election until told otherwise, or takes part in it again. A leader goes on until its successor's epoch fences it,
    /// so that there is hardly a moment without one.
    pub(super) fn drain(&mut self, drained: bool) {
        self.node.set_drained(drained);
        if drained {
            self.coordinator.set_enrolment(EnrolPolicy::NEVER);
            self.resign();
        }
    }

    /// Leaves the election for good, so that a successor takes over at once.
    pub(super) async fn withdraw(coordinator: Coordinator) {
        if let Err(error) = coordinator.withdraw(PATIENCE.min(Duration::from_secs(2))).await {
            tracing::warn!("{error}");
        }
    }

    pub(super) const fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    fn allocate(&mut self, status: &Status) {
        if std::mem::replace(&mut self.allocating, true) {
            return;
        }
        let (coordinator, done, above) =
            (self.coordinator.clone(), self.done.clone(), status.highest_seen.counter());
        self.node.tasks.spawn(async move {
            let counter = match coordinator.allocate_epoch(above, PATIENCE).await {
                Ok(counter) => Some(counter),
                Err(error) => {
                    tracing::warn!("no epoch was allocated: {error}");
                    tokio::time::sleep(PAUSE).await;
                    None
                }
            };
            let _ = done.send(Done::Epoch(counter));
        });
    }

    /// A majority no longer hears `leader`. If this node is the next in line, it takes the leader's znode out of the election.
    fn impeach(&mut self, leader: NodeId) {
        let Some(address) = self.node.address_of(leader) else { return };
        if self.seated || !self.node.has_zookeeper() || std::mem::replace(&mut self.impeaching, true) {
            return;
        }
        let (node, coordinator, done) = (Arc::clone(&self.node), self.coordinator.clone(), self.done.clone());
        self.node.tasks.spawn(async move {
            match coordinator.impeach(address.clone(), PATIENCE).await {
                Ok(true) => {
                    node.metrics.impeached();
                    tracing::warn!(leader = address, "impeached the leader, whom a majority does not hear");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(leader = address, "cannot impeach the leader: {error}"),
            }
            let _ = done.send(Done::Impeached);
        });
    }

    fn resign(&mut self) {
        let has_place = self.seated || self.node.is_drained();
        if !has_place || std::mem::replace(&mut self.resigning, true) {
            return;
        }
        let (coordinator, done) = (self.coordinator.clone(), self.done.clone());
        self.node.tasks.spawn(async move {
            let resigned = coordinator.resign(PATIENCE).await;
            match &resigned {
                Ok(()) => tracing::info!("resigned: this node has given up its place in the election"),
                Err(error) => {
                    tracing::warn!("cannot resign yet: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            let _ = done.send(Done::Resigned(resigned.is_ok()));
        });
    }
}

impl Election {
    /// What people call the state of a session.
    pub(super) const fn session_name(session: SessionState) -> &'static str {
        match session {
            SessionState::Connecting => "connecting",
            SessionState::Connected { .. } => CONNECTED,
            SessionState::Disconnected => "disconnected",
            SessionState::Lost => "lost",
        }
    }
}

fn describe(unwell: &Unwell) -> String {
    match unwell {
        Unwell::NoQuorum { heard, needed } => {
            format!("only {heard} of the {needed} members needed for a quorum answer")
        }
        Unwell::DiskFull => "the disk is nearly full, and another node has room".to_owned(),
        Unwell::LogStalled(time) => format!("the log has not synced for {} ms", time.as_millis()),
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
