//! The check by zones, which never compares versions (Gibbons and Korach 1997, section 4).
//!
//! All operations that speak of one value make a *zone*: from the first answer among them to the last call. If the first
//! answer comes before the last call, the value must have been there all that time (a *forward* zone). Otherwise they all
//! have a moment in common, and the value may have been there for that moment only (a *backward* zone). Values are unique,
//! so a key is linearizable if and only if no value is read before it is written, no two forward zones overlap, and no
//! backward zone lies within a forward one.
//!
//! An absence does not say whose it is, so each is a backward zone of its own, as is each delete; what is absent before
//! anything can have been deleted is one forward zone from the beginning.

use crate::Operation;
use crate::facts::{Facts, Role};
use crate::violation::Violation;

/// The operations on one value.
#[derive(Clone, Copy)]
struct Zone {
    /// The first answer, and whose it is. `None`: the beginning.
    first: (u64, Option<usize>),
    /// The last call, and whose it is.
    last: (u64, Option<usize>),
}

impl Zone {
    const EMPTY: Self = Self { first: (u64::MAX, None), last: (0, None) };

    fn add(&mut self, facts: &Facts<'_>, index: usize) {
        let (end, called) = (facts.end(index), facts.operations[index].called);
        if end <= self.first.0 {
            self.first = (end, Some(index));
        }
        if called >= self.last.0 {
            self.last = (called, Some(index));
        }
    }

    const fn is_forward(&self) -> bool {
        self.first.0 < self.last.0
    }

    fn witnesses(&self) -> impl Iterator<Item = usize> {
        [self.first.1, self.last.1].into_iter().flatten()
    }
}

/// Checks each key by its zones.
///
/// # Errors
/// The operations that contradict each other.
pub fn zones(operations: &[Operation]) -> Result<(), Box<Violation>> {
    check(&Facts::new(operations)?)
}

pub(crate) fn check(facts: &Facts<'_>) -> Result<(), Box<Violation>> {
    let mut values = vec![Zone::EMPTY; facts.links.len()];
    let mut keys = vec![Key::default(); facts.chains.len()];
    for (index, role) in facts.roles.iter().enumerate() {
        let key = &mut keys[facts.keys[index]];
        match *role {
            Role::Write(link) if facts.links[link].is_delete => key.deletes.push(index),
            Role::Write(link) | Role::Present(link) => values[link].add(facts, index),
            Role::Absent => key.absent.push(index),
            Role::MaybeDelete => {
                key.may_be_absent_from = key.may_be_absent_from.min(facts.operations[index].called);
            }
            Role::MaybePut | Role::Nothing => {}
        }
    }
    for (link, zone) in values.iter().enumerate() {
        if facts.links[link].is_delete {
            continue;
        }
        was_written_first(facts, link, zone)?;
        keys[facts.links[link].key].zones.push(*zone);
    }
    keys.into_iter().try_for_each(|key| key.check(facts))
}

/// No value may be read before it is written.
fn was_written_first(facts: &Facts<'_>, link: usize, zone: &Zone) -> Result<(), Box<Violation>> {
    let (Some(writer), (time, Some(reader))) = (facts.links[link].writer, zone.first) else { return Ok(()) };
    if facts.operations[writer].called <= time {
        return Ok(());
    }
    let version = facts.links[link].version;
    let reason = format!("Version {version} was read before the write was called that wrote it.");
    Err(Violation::new(reason, [&facts.operations[reader], &facts.operations[writer]]))
}

/// What there is of one key.
#[derive(Clone)]
struct Key {
    zones: Vec<Zone>,
    deletes: Vec<usize>,
    absent: Vec<usize>,
    /// When a delete was called first that is known to have had an effect or may have had one.
    may_be_absent_from: u64,
}

impl Default for Key {
    fn default() -> Self {
        Self { zones: Vec::new(), deletes: Vec::new(), absent: Vec::new(), may_be_absent_from: u64::MAX }
    }
}

impl Key {
    fn check(mut self, facts: &Facts<'_>) -> Result<(), Box<Violation>> {
        let called = |index: &usize| facts.operations[*index].called;
        let from = self.deletes.iter().map(called).min().unwrap_or(u64::MAX).min(self.may_be_absent_from);
        let mut beginning = Zone { first: (0, None), last: (0, None) };
        let (first, later): (Vec<usize>, Vec<usize>) =
            self.absent.iter().partition(|index| facts.end(**index) < from);
        first.into_iter().for_each(|index| beginning.add(facts, index));
        beginning.first = (0, None);
        self.zones.push(beginning);
        for &index in later.iter().chain(&self.deletes) {
            let mut zone = Zone::EMPTY;
            zone.add(facts, index);
            self.zones.push(zone);
        }
        let (mut forward, backward): (Vec<&Zone>, Vec<&Zone>) =
            self.zones.iter().partition(|zone| zone.is_forward());
        forward.sort_by_key(|zone: &&Zone| zone.first.0);
        for pair in forward.windows(2) {
            if pair[1].first.0 < pair[0].last.0 {
                return Err(contradiction(facts, pair[0], pair[1]));
            }
        }
        for zone in backward {
            // They do not overlap, so the last that begins before it ends after all others that do.
            let before = forward.partition_point(|other| other.first.0 < zone.last.0);
            if let Some(before) = before.checked_sub(1)
                && zone.first.0 < forward[before].last.0
            {
                return Err(contradiction(facts, forward[before], zone));
            }
        }
        Ok(())
    }
}

fn contradiction(facts: &Facts<'_>, one: &Zone, other: &Zone) -> Box<Violation> {
    let reason = "Neither of two states of a key can have come before the other: each was seen by an operation that \
                  had been answered before an operation was called that saw the other.";
    let witnesses = one.witnesses().chain(other.witnesses());
    Violation::new(reason, witnesses.map(|index| &facts.operations[index]))
}
