//! What must hold in every state, and after every step.

use std::fmt;

use crate::config::Config;
use crate::log::{Log, Version};
use crate::state::{Role, State};

/// A property that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Two replicas take different entries for committed at one version.
    CommitsDiffer,
    /// The log of an established leader lacks an acknowledged entry.
    AcknowledgedLost,
    /// A read returned something older than what was acknowledged, or read, before it began.
    StaleRead,
    /// What a read returned is not in the committed log.
    ReadLost,
    /// Two nodes opened one epoch.
    TwoLeaders,
    /// What is acknowledged, or was read, is not durable on a quorum.
    NotDurable,
    /// Two logs have one entry, but differ before it.
    LogsDiffer,
    /// A log goes on from an entry of an epoch that its replica has not promised, or is committed further than it reaches.
    Incoherent,
}

impl Violation {
    /// Whether clients can see it. The others are invariants from which it follows that they see none.
    pub const fn is_visible(self) -> bool {
        match self {
            Self::CommitsDiffer
            | Self::AcknowledgedLost
            | Self::StaleRead
            | Self::ReadLost
            | Self::TwoLeaders => true,
            Self::NotDurable | Self::LogsDiffer | Self::Incoherent => false,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommitsDiffer => "two entries are committed at one version",
            Self::AcknowledgedLost => "an established leader lacks an acknowledged entry",
            Self::StaleRead => "a read went back",
            Self::ReadLost => "what a read returned was replaced",
            Self::TwoLeaders => "an epoch has two leaders",
            Self::NotDurable => "what was acknowledged or read is not durable on a quorum",
            Self::LogsDiffer => "two logs share an entry but not all before it",
            Self::Incoherent => "a log does not fit its replica's promise or commit",
        })
    }
}

/// A leader takes its log up to `version` for committed. `establishes`: its epoch is established by that, which may become
/// known as late as when a later epoch has been established. Then its log ends before what that has committed.
pub(crate) fn committed(
    state: &mut State,
    log: Log,
    version: Version,
    establishes: bool,
) -> Result<(), Violation> {
    let prefix = log.upto(version);
    if !prefix.agrees_with(state.acknowledged) {
        return Err(if establishes { Violation::AcknowledgedLost } else { Violation::CommitsDiffer });
    }
    let epoch = log.last_epoch();
    let lacks = |shown: Log| establishes && !log.holds(shown.before(epoch));
    if lacks(state.acknowledged) {
        return Err(Violation::AcknowledgedLost);
    }
    if !prefix.agrees_with(state.seen) || lacks(state.seen) {
        return Err(Violation::ReadLost);
    }
    if version > state.acknowledged.last() {
        state.acknowledged = prefix;
    }
    Ok(())
}

/// A read returns the last entry of `prefix`, or that the key is absent if that is empty.
pub(crate) fn returned(state: &mut State, prefix: Log) -> Result<(), Violation> {
    if prefix.last() < state.floor {
        return Err(Violation::StaleRead);
    }
    if !prefix.agrees_with(state.acknowledged) || !prefix.agrees_with(state.seen) {
        return Err(Violation::ReadLost);
    }
    if prefix.last() > state.shown().last() {
        state.seen = prefix;
    }
    Ok(())
}

/// Whether everything that must hold in a state does.
///
/// # Errors
/// What does not. If a rule is wrong, only what clients can see.
pub fn check(config: &Config, state: &State) -> Result<(), Violation> {
    let replicas = &state.replicas[..config.nodes];
    if replicas.iter().any(|peer| !state.acknowledged.holds(peer.log.upto(peer.committed))) {
        return Err(Violation::CommitsDiffer);
    }
    if !config.is_right() {
        return Ok(());
    }
    for shown in [state.acknowledged, state.seen] {
        if replicas.iter().filter(|peer| peer.durable.holds(shown)).count() < config.write_quorum {
            return Err(Violation::NotDurable);
        }
    }
    for (index, peer) in replicas.iter().enumerate() {
        let coherent = peer.log.last_epoch() <= peer.promise
            && peer.durable.last_epoch() <= peer.durable_promise
            && peer.durable_promise <= peer.promise
            && peer.committed <= peer.log.last();
        if !coherent {
            return Err(Violation::Incoherent);
        }
        for other in &replicas[index + 1..] {
            if peer.role == Role::Leader && other.role == Role::Leader && peer.promise == other.promise {
                return Err(Violation::TwoLeaders);
            }
            if differ_before_shared(peer.log, other.log) {
                return Err(Violation::LogsDiffer);
            }
        }
    }
    Ok(())
}

/// Whether two logs have an entry with one id in common after the version where they first differ.
fn differ_before_shared(one: Log, other: Log) -> bool {
    (one.common(other) + 1..=one.last().min(other.last()))
        .any(|version| one.epoch_at(version) == other.epoch_at(version))
}
