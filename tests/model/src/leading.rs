//! What a leader does: take in writes, and commit (DESIGN 5).

use crate::config::{Bug, Config};
use crate::events::{Event, Events};
use crate::log::{Entry, Version};
use crate::properties::{self, Violation};
use crate::state::State;
use crate::steps::Action;

/// What a leader can do.
pub(crate) fn actions(config: &Config, state: &State, node: usize, actions: &mut Vec<Action>) {
    let replica = &state.replicas[node];
    let is_established = replica.log.epoch_at(replica.committed) == replica.promise;
    if is_established && state.written < config.writes {
        actions.push(Action::Write { node });
    }
    for version in replica.committed + 1..=replica.log.last() {
        let is_own = replica.log.epoch_at(version) == replica.promise || config.has(Bug::CommitOldEpoch);
        if is_own && votes(config, state, node, version) >= config.write_quorum {
            actions.push(Action::Commit { node, version });
        }
    }
}

/// Replicas that hold the leader's log durably up to `version`, as far as it can know. Its own is not needed.
fn votes(config: &Config, state: &State, node: usize, version: Version) -> usize {
    let replica = &state.replicas[node];
    let slot = usize::from(replica.promise - 1);
    let own = if config.has(Bug::LeaderCountsUnsynced) {
        replica.log.last()
    } else {
        replica.durable.common(replica.log)
    };
    let others = state.replicas[..config.nodes].iter().filter(|peer| peer.votes[slot] >= version);
    others.count() + usize::from(own >= version)
}

pub(crate) fn write(state: &mut State, node: usize) {
    state.written += 1;
    let replica = &mut state.replicas[node];
    let epoch = replica.promise;
    replica.log = replica.log.with(Entry { epoch, write: state.written });
    state.epochs[usize::from(epoch - 1)].log = replica.log;
}

pub(crate) fn commit(
    state: &mut State,
    node: usize,
    version: Version,
    events: &mut Events,
) -> Result<(), Violation> {
    let replica = &mut state.replicas[node];
    let (log, epoch, before) = (replica.log, replica.promise, replica.committed);
    let establishes = log.epoch_at(version) == epoch && log.epoch_at(before) != epoch;
    replica.committed = version;
    state.epoch_mut(epoch).committed = version;
    if establishes {
        events.note(if state.acknowledged.last() > 0 { Event::EstablishedAgain } else { Event::Established });
    }
    if (before + 1..=version).any(|version| log.entry(version).write > 0) {
        events.note(Event::WriteCommitted);
    }
    properties::committed(state, log, version, establishes)
}
