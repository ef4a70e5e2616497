//! Promises, the best log among them, and the entry that opens an epoch (DESIGN 7).

use crate::config::{Bug, Config};
use crate::events::{Event, Events};
use crate::log::{Entry, Epoch, Log};
use crate::properties::Violation;
use crate::state::{Opened, Phase, Role, State};
use crate::steps::Action;

/// What a contender can do.
pub(crate) fn actions(config: &Config, state: &State, node: usize, actions: &mut Vec<Action>) {
    let replica = &state.replicas[node];
    if promises(config, state, replica.promise) < config.write_quorum {
        return;
    }
    let is_adopted = config.has(Bug::BestLogOwn) || replica.log == best(state, replica.promise);
    actions.push(if is_adopted { Action::Open { node } } else { Action::Adopt { node } });
}

/// The best log among those that promised an epoch.
fn best(state: &State, epoch: Epoch) -> Log {
    state.epoch(epoch).log
}

/// Promises that a contender has: its own, and those of others that have reached it.
fn promises(config: &Config, state: &State, epoch: Epoch) -> usize {
    let bit = 1 << (epoch - 1);
    let is_other = |peer: &crate::state::Replica| !(peer.role == Role::Contender && peer.promise == epoch);
    let replicas = &state.replicas[..config.nodes];
    1 + replicas.iter().filter(|peer| peer.granted & bit != 0 && is_other(peer)).count()
}

pub(crate) fn contend(state: &mut State, node: usize, epoch: Epoch) {
    let replica = &mut state.replicas[node];
    replica.promise = epoch;
    replica.durable_promise = epoch;
    replica.durable = replica.log;
    replica.role = Role::Contender;
    let (log, committed) = (replica.log, replica.committed);
    if epoch > state.begun {
        state.begun = epoch;
        *state.epoch_mut(epoch) = Opened { phase: Phase::Gathering, log, committed };
    }
}

/// Whether the promise of a replica would help a contender. A promise that does not reach it would change nothing but what
/// the replica refuses from then on, which is as if that were lost; and one more than a quorum is not needed: the best of
/// several logs is the best of some quorum of them.
pub(crate) fn may_promise(config: &Config, state: &State, node: usize, epoch: Epoch) -> bool {
    state.replicas[node].promise < epoch && promises(config, state, epoch) < config.write_quorum
}

pub(crate) fn promise(config: &Config, state: &mut State, node: usize, epoch: Epoch, events: &mut Events) {
    let replica = &mut state.replicas[node];
    if replica.role == Role::Leader {
        events.note(Event::Fenced);
    }
    replica.role = Role::Follower;
    replica.promise = epoch;
    replica.granted |= 1 << (epoch - 1);
    let told = if config.has(Bug::PromiseOmitsUnsynced) { replica.durable } else { replica.log };
    if !config.has(Bug::PromiseOmitsUnsynced) {
        // The promise goes through the same log as the entries.
        replica.durable = replica.log;
    }
    if !config.has(Bug::PromiseNotDurable) {
        replica.durable_promise = epoch;
    }
    let committed = replica.committed;
    let opened = state.epoch_mut(epoch);
    let is_better = if config.has(Bug::BestLogLongest) {
        told.last() > opened.log.last()
    } else {
        told.last_id() > opened.log.last_id()
    };
    if is_better && !config.has(Bug::BestLogOwn) {
        opened.log = told;
    }
    opened.committed = opened.committed.max(committed);
}

pub(crate) fn adopt(state: &mut State, node: usize, events: &mut Events) {
    let best = best(state, state.replicas[node].promise);
    let replica = &mut state.replicas[node];
    let common = replica.log.common(best);
    if common < replica.log.last() {
        events.note(Event::Truncated);
    }
    events.note(Event::Adopted);
    replica.log = if common < best.last() { best.upto(common + 1) } else { best };
    // Its own log is durable before it goes on.
    replica.durable = replica.log;
}

pub(crate) fn open(state: &mut State, node: usize) -> Result<(), Violation> {
    let replica = &mut state.replicas[node];
    let epoch = replica.promise;
    let opened = &mut state.epochs[usize::from(epoch - 1)];
    if opened.phase == Phase::Open {
        return Err(Violation::TwoLeaders);
    }
    replica.committed = replica.committed.max(opened.committed.min(replica.log.last()));
    replica.log = replica.log.with(Entry { epoch, write: 0 });
    replica.role = Role::Leader;
    *opened = Opened { phase: Phase::Open, log: replica.log, committed: replica.committed };
    Ok(())
}
