//! Every quorum read that shows its evidence is right by the rule of DESIGN 6, worked out here anew from what its witnesses said.

use quorumkv_protocol::client::{Evidence, Rule, Versioned, Witness};

/// A read was answered with this value.
pub(super) fn check(evidence: &Evidence, value: Option<&Versioned>) {
    let last = evidence.witnesses.iter().map(|witness| witness.last).max().expect("somebody has answered");
    let decider = evidence.witnesses.iter().find(|witness| witness.decided);
    let decider = decider.unwrap_or_else(|| panic!("nobody decided: {evidence:?}"));
    assert_eq!(decider.last.epoch, last.epoch, "the decider is not of the highest epoch: {evidence:?}");
    let Some(version) = value.map(|value| value.version) else { return };
    // By now the decider may have said more than when it decided: a later entry, or that the key is gone.
    let is_held = decider.touched.is_none_or(|touched| version <= touched.version);
    assert!(is_held, "the decider never held {version}: {evidence:?}");

    let from_epoch = || evidence.witnesses.iter().filter(|witness| witness.last.epoch == last.epoch);
    let is_known = from_epoch().any(|witness| version <= witness.committed);
    let votes = |witness: &&Witness| witness.promise == witness.last.epoch && witness.last.version >= version;
    let is_chosen = from_epoch().filter(votes).count() >= evidence.quorum as usize;
    let holds = match evidence.rule {
        Some(Rule::KnownCommitted) => is_known,
        Some(Rule::Chosen) => is_chosen,
        None => false,
    };
    assert!(
        holds,
        "{version} is returned, and its evidence does not prove that it is committed: {evidence:?}"
    );
}
