//! What can happen, and what becomes of it. Reads have a file of their own.

use crate::config::{Bug, Config};
use crate::events::{Event, Events};
use crate::log::{Epoch, Version};
use crate::properties::Violation;
use crate::state::{Phase, Replica, Role, State};
use crate::{leading, reads, takeover};

/// Something that can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The election chooses a node for an epoch; its own promise is durable before it asks for others.
    Contend {
        /// Who contends.
        node: usize,
        /// For which epoch.
        epoch: Epoch,
    },
    /// A replica promises to follow an epoch, and says what its log holds; the contender hears of it.
    Promise {
        /// Who promises.
        node: usize,
        /// Which epoch.
        epoch: Epoch,
    },
    /// A contender with enough promises takes over one entry of the best log among them.
    Adopt {
        /// Who takes it.
        node: usize,
    },
    /// A contender that holds the best log opens its epoch.
    Open {
        /// Who opens it.
        node: usize,
    },
    /// An established leader takes in a client's write.
    Write {
        /// The leader.
        node: usize,
    },
    /// A replica gets the entry at `version` that the leader of `epoch` sent.
    Append {
        /// Who gets it.
        node: usize,
        /// From whose log.
        epoch: Epoch,
        /// Which entry.
        version: Version,
    },
    /// A replica's log and promise become durable; its votes go out.
    Sync {
        /// Whose.
        node: usize,
    },
    /// A leader has enough votes for all up to `version`: that is committed and acknowledged.
    Commit {
        /// The leader.
        node: usize,
        /// Up to where.
        version: Version,
    },
    /// A replica hears what the leader of `epoch` has called committed.
    Learn {
        /// Who hears it.
        node: usize,
        /// From which leader.
        epoch: Epoch,
    },
    /// A replica loses what is not durable, and starts again.
    Crash {
        /// Who.
        node: usize,
        /// Whether only the first part of what it was writing is there: that entries were dropped, not what follows.
        torn: bool,
    },
    /// A replica answers a read.
    Answer {
        /// Who answers.
        node: usize,
    },
}

/// The model: what can happen in a state, and what follows.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Its bounds and rules.
    pub config: Config,
}

impl Model {
    /// Everything that can happen in `state`, as far as its order matters.
    ///
    /// An answer to a read may as well be given later, as long as its replica does not change: then the read begins later, and
    /// more is demanded of it. So nothing happens elsewhere after an answer until its replica has changed, but for
    /// other answers.
    pub fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.clear();
        let is_fresh = |&node: &usize| reads::is_fresh(&self.config, state, node);
        let mut fresh = (0..self.config.nodes).filter(is_fresh);
        match (fresh.next(), fresh.next()) {
            (None, _) => (0..self.config.nodes).for_each(|node| self.actions_of(state, node, actions)),
            (Some(only), None) => self.actions_of(state, only, actions),
            (Some(_), Some(_)) => {}
        }
        let may_answer = |&node: &usize| reads::may_answer(&self.config, state, node);
        actions.extend((0..self.config.nodes).filter(may_answer).map(|node| Action::Answer { node }));
    }

    /// What a replica can do, but for answering.
    fn actions_of(&self, state: &State, node: usize, actions: &mut Vec<Action>) {
        let replica = &state.replicas[node];
        match replica.role {
            Role::Follower => {}
            Role::Contender => takeover::actions(&self.config, state, node, actions),
            Role::Leader => leading::actions(&self.config, state, node, actions),
        }
        self.contentions(state, node, actions);
        for epoch in 1..=state.begun {
            self.messages(state, node, epoch, actions);
        }
        if is_unsynced(replica) {
            actions.push(Action::Sync { node });
        }
        if self.config.crashes {
            crashes(state, node, actions);
        }
    }

    /// What becomes of `state` if that happens.
    ///
    /// # Errors
    /// What does not hold after it.
    pub fn step(&self, state: &State, action: Action, events: &mut Events) -> Result<State, Violation> {
        let mut next = *state;
        match action {
            Action::Contend { node, epoch } => takeover::contend(&mut next, node, epoch),
            Action::Promise { node, epoch } => {
                takeover::promise(&self.config, &mut next, node, epoch, events);
            }
            Action::Adopt { node } => takeover::adopt(&mut next, node, events),
            Action::Open { node } => takeover::open(&mut next, node)?,
            Action::Write { node } => leading::write(&mut next, node),
            Action::Append { node, epoch, version } => {
                self.append(&mut next, node, epoch, version, events);
            }
            Action::Sync { node } => self.sync(&mut next, node),
            Action::Commit { node, version } => leading::commit(&mut next, node, version, events)?,
            Action::Learn { node, epoch } => self.learn(&mut next, node, epoch),
            Action::Crash { node, torn } => crash(&mut next, node, torn, events),
            Action::Answer { node } => reads::answer(&self.config, &mut next, node, events)?,
        }
        if !self.config.crashes {
            self.sync_all(&mut next);
        }
        next.tidy(self.config.nodes);
        Ok(next)
    }

    /// The election names anybody, at any time, with a fresh epoch. A node that begins late, when a higher epoch has begun, is
    /// one whose messages are late.
    fn contentions(&self, state: &State, node: usize, actions: &mut Vec<Action>) {
        if state.begun < self.config.epochs {
            actions.push(Action::Contend { node, epoch: state.begun + 1 });
        }
        let epoch = state.begun;
        if self.config.has(Bug::SharedEpoch)
            && epoch > 0
            && state.epoch(epoch).phase != Phase::Closed
            && state.replicas[node].promise < epoch
        {
            actions.push(Action::Contend { node, epoch });
        }
    }

    /// The messages of an epoch that a replica may get.
    fn messages(&self, state: &State, node: usize, epoch: Epoch, actions: &mut Vec<Action>) {
        let (replica, opened) = (&state.replicas[node], state.epoch(epoch));
        let leads = replica.role != Role::Follower && replica.promise == epoch;
        match opened.phase {
            Phase::Gathering if takeover::may_promise(&self.config, state, node, epoch) => {
                actions.push(Action::Promise { node, epoch });
            }
            Phase::Open if !leads => {
                if replica.promise <= epoch || self.config.has(Bug::AcceptBelowPromise) {
                    self.appends(state, node, epoch, actions);
                }
                if replica.promise <= epoch && self.learned(state, node, epoch) > replica.committed {
                    actions.push(Action::Learn { node, epoch });
                }
            }
            Phase::Unused | Phase::Gathering | Phase::Open | Phase::Closed => {}
        }
    }

    /// The entries that a replica takes from a leader: the next after the version up to which their logs are equal. Several
    /// at once are the same as one after the other.
    fn appends(&self, state: &State, node: usize, epoch: Epoch, actions: &mut Vec<Action>) {
        let (replica, sent) = (&state.replicas[node], state.epoch(epoch).log);
        let next = if self.config.has(Bug::NoTruncation) {
            replica.log.last() + 1
        } else {
            replica.log.common(sent) + 1
        };
        let last = if self.config.has(Bug::NoPreviousCheck) { replica.log.last() + 1 } else { next };
        for version in next..=last.min(sent.last()) {
            actions.push(Action::Append { node, epoch, version });
        }
    }

    fn append(&self, state: &mut State, node: usize, epoch: Epoch, version: Version, events: &mut Events) {
        let entry = state.epoch(epoch).log.entry(version);
        let replica = &mut state.replicas[node];
        if replica.log.last() >= version {
            events.note(Event::Truncated);
        }
        replica.log = replica.log.upto(version - 1).with(entry);
        follow(replica, epoch, events);
        if self.config.has(Bug::VoteBeforeSync) {
            self.vote(state, node);
        }
    }

    fn sync(&self, state: &mut State, node: usize) {
        let replica = &mut state.replicas[node];
        replica.durable = replica.log;
        replica.durable_promise = replica.promise;
        self.vote(state, node);
    }

    fn sync_all(&self, state: &mut State) {
        for node in 0..self.config.nodes {
            if is_unsynced(&state.replicas[node]) {
                self.sync(state, node);
            }
        }
    }

    /// A replica's vote, for as much of its leader's log as it holds. The leader may count it at any later time, or never.
    fn vote(&self, state: &mut State, node: usize) {
        let replica = state.replicas[node];
        let held = if self.config.has(Bug::VoteBeforeSync) { replica.log } else { replica.durable };
        let unmatched = self.config.has(Bug::NoTruncation) || self.config.has(Bug::NoPreviousCheck);
        let epoch = if unmatched || self.config.has(Bug::CommitOldEpoch) {
            replica.promise
        } else {
            // Votes for entries of earlier epochs decide nothing.
            held.last_epoch()
        };
        let is_current = epoch == replica.promise && replica.role == Role::Follower;
        let is_late = self.config.has(Bug::PromiseOmitsUnsynced) && epoch < replica.promise;
        if epoch == 0 || !(is_current || is_late) || state.epoch(epoch).phase != Phase::Open {
            return;
        }
        let sent = state.epoch(epoch).log;
        let upto = if unmatched { held.last().min(sent.last()) } else { held.common(sent) };
        let vote = &mut state.replicas[node].votes[usize::from(epoch - 1)];
        *vote = upto.max(*vote);
    }

    /// Up to where a replica may take its log for committed, by what the leader of `epoch` said.
    fn learned(&self, state: &State, node: usize, epoch: Epoch) -> Version {
        let (log, opened) = (state.replicas[node].log, state.epoch(epoch));
        let equal = if self.config.has(Bug::CommitUnmatched) { log.last() } else { log.common(opened.log) };
        opened.committed.min(equal)
    }

    fn learn(&self, state: &mut State, node: usize, epoch: Epoch) {
        let committed = self.learned(state, node, epoch);
        let replica = &mut state.replicas[node];
        replica.committed = committed;
        follow(replica, epoch, &mut Events::default());
    }
}

/// Follows the leader of an epoch.
fn follow(replica: &mut Replica, epoch: Epoch, events: &mut Events) {
    if replica.role == Role::Leader {
        events.note(Event::Fenced);
    }
    replica.promise = epoch;
    replica.role = Role::Follower;
}

fn is_unsynced(replica: &Replica) -> bool {
    replica.durable != replica.log || replica.durable_promise != replica.promise
}

fn crashes(state: &State, node: usize, actions: &mut Vec<Action>) {
    let replica = &state.replicas[node];
    if is_unsynced(replica) || replica.role != Role::Follower {
        actions.push(Action::Crash { node, torn: false });
    }
    if torn(state, replica) < replica.durable.last() {
        actions.push(Action::Crash { node, torn: true });
    }
}

/// What is left of the durable log if the next that is written is that entries were dropped, and it is all that is written.
fn torn(state: &State, replica: &Replica) -> Version {
    if replica.role == Role::Contender {
        replica.durable.common(state.epoch(replica.promise).log)
    } else {
        replica.durable.common(replica.log)
    }
}

fn crash(state: &mut State, node: usize, is_torn: bool, events: &mut Events) {
    let left = torn(state, &state.replicas[node]);
    let replica = &mut state.replicas[node];
    if replica.log != replica.durable {
        events.note(Event::UnsyncedLost);
    }
    if is_torn {
        replica.durable = replica.durable.upto(left);
    }
    // What is lost of the committed part is committed elsewhere. If the state has kept it, that is as if the log had been
    // synced up to there.
    replica.committed = replica.committed.min(replica.durable.common(replica.log));
    replica.log = replica.durable;
    replica.promise = replica.durable_promise.max(replica.log.last_epoch());
    replica.durable_promise = replica.promise;
    replica.role = Role::Follower;
}
