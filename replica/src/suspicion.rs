//! When a majority no longer hears the leader, and its successor need not wait for ZooKeeper to notice (DESIGN 7,
//! impeachment).
//!
//! A follower *doubts* the leader of the epoch that it promised when nothing has come from it for
//! [`Settings::failover`](crate::Settings::failover), or at once when its port refuses a connection: then the process is
//! gone. Whoever doubts tells the other voters, and again as long as it does; a doubt that is not repeated is forgotten.
//! Where a quorum of voters doubts, each of them that does is told to [impeach](Notice::Impeach) the leader: the election
//! has only the next in line do so. Who has promised and not followed yet counts the contender's requests as signs of life. A node that is alone in its doubt does nothing, and one that stood still itself does not
//! hold that silence against others.
//!
//! All of this gives progress only. A leader that was merely slow is fenced by its successor's epoch, as ever.

use std::collections::BTreeMap;
use std::time::Duration;

use quorumkv_protocol::peer::PeerMessage;
use quorumkv_protocol::{Epoch, NodeId};

use crate::effects::Notice;
use crate::replica::{Replica, Role};
use crate::state::StateView;
use crate::time::Timestamp;

/// How often a doubt is repeated, and the impeachment that it leads to.
const REPEAT: Duration = Duration::from_millis(100);

/// How long a doubt of another node counts.
const LASTS: Duration = Duration::from_millis(350);

/// Ticks that come further apart than this show that this very node stood still.
const STALL: Duration = Duration::from_millis(100);

/// What this replica knows of doubts in the leader of the epoch that it promised.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    /// When this epoch was promised, or its contender last said that it goes on.
    contended: Timestamp,
    /// When the leader's port last refused a connection.
    refused: Option<Timestamp>,
    /// When time was last told, and since when it was told regularly.
    ticked: Timestamp,
    awake: Timestamp,
    /// When other nodes last said that they doubt.
    doubts: BTreeMap<NodeId, Timestamp>,
    /// When this node last said so.
    said: Option<Timestamp>,
    /// When the leader was last impeached.
    impeached: Option<Timestamp>,
}

impl Suspicion {
    /// Another epoch was promised: what was known of the leader of the one before is of no use.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        let Self { ticked, awake, .. } = *self;
        *self = Self { contended: now, ticked, awake, ..Self::default() };
    }

    /// The node that is to lead the promised epoch has asked for the promise again.
    pub(crate) const fn spoke(&mut self, now: Timestamp) {
        self.contended = now;
    }
}

impl<S: StateView> Replica<S> {
    /// A node's port has refused a connection.
    pub(crate) fn peer_refused(&mut self, node: NodeId) {
        if node == self.promise.node() {
            self.suspicion.refused = Some(self.now);
            self.doubt();
        }
    }

    /// Another node does not hear the leader of `epoch`.
    pub(crate) fn on_doubt(&mut self, from: NodeId, epoch: Epoch) {
        if epoch == self.promise && from != epoch.node() && self.configuration().is_voter(from) {
            self.suspicion.doubts.insert(from, self.now);
            self.impeach();
        }
    }

    pub(crate) fn tick_suspicion(&mut self) {
        if self.now.since(self.suspicion.ticked) > STALL {
            self.suspicion.awake = self.now;
        }
        self.suspicion.ticked = self.now;
        self.doubt();
    }

    /// Says that this node doubts, if it does and has not said so lately.
    fn doubt(&mut self) {
        if !self.doubts_leader() {
            self.suspicion.said = None;
            return;
        }
        if self.suspicion.said.is_none_or(|said| self.now.since(said) >= REPEAT) {
            self.suspicion.said = Some(self.now);
            let epoch = self.promise;
            let others = self.configuration().voters.iter().map(|voter| voter.node);
            let others: Vec<_> =
                others.filter(|&node| node != epoch.node() && self.links.contains(&node)).collect();
            for node in others {
                self.out.send(node, PeerMessage::Doubt { epoch });
            }
        }
        self.impeach();
    }

    /// Whether this node, by itself, thinks that the leader is gone.
    fn doubts_leader(&self) -> bool {
        let leader = self.promise.node();
        let is_concerned = matches!(self.role, Role::Follower)
            && self.promise != Epoch::ZERO
            && leader != self.me
            && self.configuration().is_voter(self.me);
        let Suspicion { contended, refused, awake, .. } = self.suspicion;
        let heard = self.following.heard.max(contended);
        let is_gone = refused.is_some_and(|refused| refused >= heard) && !self.links.contains(&leader);
        let is_silent = self.now.since(heard.max(awake)) >= self.settings.failover;
        is_concerned && (is_gone || is_silent)
    }

    /// Impeaches the leader if a quorum of voters doubts, and this node is one of them.
    fn impeach(&mut self) {
        if !self.doubts_leader()
            || self.suspicion.impeached.is_some_and(|impeached| self.now.since(impeached) < REPEAT)
        {
            return;
        }
        let doubts = |node: NodeId| {
            let said = self.suspicion.doubts.get(&node);
            node == self.me || said.is_some_and(|&said| self.now.since(said) <= LASTS)
        };
        if self.configuration().is_quorum(doubts) {
            self.suspicion.impeached = Some(self.now);
            self.out.notice(Notice::Impeach { epoch: self.promise });
        }
    }
}
