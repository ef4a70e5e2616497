//! Where absences can stand. Between two links of a key's chain there is a gap: a *free* one after a delete and at the
//! beginning, where the key is absent anyway, and one that *costs* a delete which was not answered after all others.

use crate::facts::{Facts, Link, Role};

/// A place for an absence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gap {
    /// The key is absent from this version on; 0: from the beginning.
    Free(u64),
    /// A delete that was not answered came after this link.
    Costs(usize),
}

/// What is known of the unanswered deletes of each key by a moment.
pub(crate) struct Deletes {
    /// For each key, the version that had been reached when the first of them was called.
    first: Vec<Option<u64>>,
    /// The keys that have puts which were not answered and which nobody saw.
    may_be_put: Vec<bool>,
}

impl Deletes {
    pub(crate) fn new(facts: &Facts<'_>) -> Self {
        let keys = facts.chains.len();
        let mut may_be_put = vec![false; keys];
        for (role, &key) in facts.roles.iter().zip(&facts.keys) {
            may_be_put[key] |= *role == Role::MaybePut;
        }
        Self { first: vec![None; keys], may_be_put }
    }

    /// One was called.
    pub(crate) fn called(&mut self, key: usize, reached: u64) {
        self.first[key].get_or_insert(reached);
    }

    /// The earliest place for an absence of the key that does not lie before the version `reached`. The earliest is the best: it
    /// obliges nobody else to anything that a later one would not.
    pub(crate) fn place(&self, facts: &Facts<'_>, key: usize, reached: u64) -> Option<Gap> {
        let chain = &facts.chains[key];
        let from = chain.partition_point(|&link| facts.links[link].version <= reached);
        (from..=chain.len()).find_map(|gap| self.gap(facts, key, gap))
    }

    /// The gap before the link at `place` of the chain, if an absence can stand there.
    pub(crate) fn gap(&self, facts: &Facts<'_>, key: usize, place: usize) -> Option<Gap> {
        let chain = &facts.chains[key];
        let Some(before) = place.checked_sub(1) else { return Some(Gap::Free(0)) };
        let Link { version, is_delete, .. } = facts.links[chain[before]];
        if is_delete {
            return Some(Gap::Free(version));
        }
        let reached = self.first[key]?;
        let Some(&after) = chain.get(place) else { return Some(Gap::Costs(chain[before])) };
        // What follows may need the key to be as the link before left it.
        let is_needed = facts.expected(after).is_some_and(|expected| expected > 0)
            || (facts.links[after].is_delete && !self.may_be_put[key]);
        (!is_needed && reached < facts.links[after].version).then_some(Gap::Costs(chain[before]))
    }
}
