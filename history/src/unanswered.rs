//! What is owed to requests that were not answered, and whether there are enough of them: each takes effect once at most.

use std::collections::{BTreeMap, BTreeSet};

use crate::Action;
use crate::facts::{Facts, Link, Role};
use crate::violation::Violation;

/// What must have been done by requests that were not answered.
#[derive(Default)]
pub(crate) struct Needs {
    /// Deletes, by the link that they came after.
    deletes: BTreeMap<usize, Need>,
    /// Puts before a delete that found something where nothing was, by its link. Nobody saw their values.
    unseen: BTreeMap<usize, Need>,
    /// Puts of which only the version was seen, by their link.
    seen: BTreeSet<usize>,
    /// How far the log had come when operations were answered: version and time.
    reached: Vec<(u64, u64)>,
}

#[derive(Clone, Copy)]
struct Need {
    /// It was done by then.
    by: u64,
    /// There is no other way to explain what was heard.
    is_certain: bool,
}

impl Needs {
    /// The key of a link was found absent by an operation that was answered at `by`.
    pub(crate) fn delete_after(&mut self, link: usize, by: u64, is_certain: bool) {
        let need = self.deletes.entry(link).or_insert(Need { by, is_certain });
        need.by = need.by.min(by);
        need.is_certain |= is_certain;
    }

    /// The delete that made this link found something.
    pub(crate) fn put_before(&mut self, link: usize, is_certain: bool) {
        let need = self.unseen.entry(link).or_insert(Need { by: u64::MAX, is_certain });
        need.is_certain |= is_certain;
    }

    /// This link's writer is not known.
    pub(crate) fn put_as(&mut self, link: usize) {
        self.seen.insert(link);
    }

    /// An operation that was answered at `time` shows that the log had come to `version`.
    pub(crate) fn reached(&mut self, version: u64, time: u64) {
        self.reached.push((version, time));
    }

    /// Finds a request for each need. Returns the keys for which it is not clear that there are enough.
    pub(crate) fn assign(mut self, facts: &Facts<'_>) -> Result<BTreeSet<usize>, Box<Violation>> {
        let mut doubtful = BTreeSet::new();
        if self.deletes.is_empty() && self.unseen.is_empty() && self.seen.is_empty() {
            return Ok(doubtful);
        }
        let deadlines = Deadlines::new(&mut self.reached);
        let mut supplies = Supplies::new(facts);
        for (key, wishes) in self.wishes(facts, &deadlines) {
            for wish in wishes {
                if supplies.is_bare(key, &wish) {
                    if wish.is_certain {
                        return Err(wish.violation(facts));
                    }
                    doubtful.insert(key);
                } else if !supplies.take(key, &wish) {
                    doubtful.insert(key);
                }
            }
        }
        Ok(doubtful)
    }

    /// The needs of each key, in the order of their deadlines.
    fn wishes(&self, facts: &Facts<'_>, deadlines: &Deadlines) -> BTreeMap<usize, Vec<Wish>> {
        let mut wishes: BTreeMap<usize, Vec<Wish>> = BTreeMap::new();
        let mut add = |kind, link: usize, by: u64, is_certain| {
            wishes.entry(facts.links[link].key).or_default().push(Wish { kind, link, by, is_certain });
        };
        for (&link, need) in &self.deletes {
            let next = facts.next(link).map_or(u64::MAX, |next| deadlines.of(facts.links[next].version));
            add(Kind::Delete, link, need.by.min(next), need.is_certain);
        }
        for (&link, need) in &self.unseen {
            let by = need.by.min(deadlines.of(facts.links[link].version));
            add(Kind::Put { expected: 0 }, link, by, need.is_certain);
        }
        for &link in &self.seen {
            // What was deleted meanwhile meets no condition any more.
            let before = facts.previous(link).filter(|before| !self.deletes.contains_key(before));
            let before = before.map(|before| facts.links[before]).filter(|before| !before.is_delete);
            let expected = before.map_or(0, |before| before.version);
            add(Kind::Put { expected }, link, deadlines.of(facts.links[link].version), true);
        }
        wishes.values_mut().for_each(|wishes| wishes.sort_by_key(|wish| wish.by));
        wishes
    }
}

/// The time by which the log had come to a version for certain.
struct Deadlines {
    /// Ascending in both.
    reached: Vec<(u64, u64)>,
}

impl Deadlines {
    fn new(reached: &mut Vec<(u64, u64)>) -> Self {
        let mut reached = std::mem::take(reached);
        reached.sort_unstable();
        let mut earliest = u64::MAX;
        for (_, time) in reached.iter_mut().rev() {
            earliest = earliest.min(*time);
            *time = earliest;
        }
        Self { reached }
    }

    fn of(&self, version: u64) -> u64 {
        let first = self.reached.partition_point(|(reached, _)| *reached < version);
        self.reached.get(first).map_or(u64::MAX, |(_, time)| *time)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Delete,
    /// A put, or a compare-and-set that expects this version.
    Put {
        expected: u64,
    },
}

/// Something that an unanswered request is to have done.
struct Wish {
    kind: Kind,
    link: usize,
    by: u64,
    is_certain: bool,
}

impl Wish {
    fn violation(&self, facts: &Facts<'_>) -> Box<Violation> {
        let Link { version, witness, .. } = facts.links[self.link];
        let shown = facts.shown(self.link);
        match self.kind {
            Kind::Delete => {
                let reason = format!(
                    "A write that needed the key to be absent was applied, and nothing can have deleted version {version}."
                );
                let next = facts.next(self.link).into_iter().flat_map(|next| facts.shown(next));
                Violation::new(reason, shown.chain(next))
            }
            Kind::Put { .. } if facts.links[self.link].is_delete => {
                let reason = format!(
                    "A delete was applied at version {version}, and nothing can have put the key before it."
                );
                let before = facts.previous(self.link).into_iter().flat_map(|before| facts.shown(before));
                Violation::new(reason, before.chain(shown))
            }
            Kind::Put { .. } => {
                let reason =
                    format!("A key was found at version {version}, and nothing can have written that.");
                Violation::new(reason, [&facts.operations[witness]])
            }
        }
    }
}

/// The unanswered requests of each key, by the times of their calls.
struct Supplies {
    deletes: Vec<Vec<u64>>,
    puts: Vec<Vec<u64>>,
    /// Compare-and-sets, with what they expect.
    conditional: Vec<Vec<(u64, u64)>>,
    /// When the first of either kind was called.
    first: Vec<[u64; 2]>,
}

impl Supplies {
    fn new(facts: &Facts<'_>) -> Self {
        let keys = facts.chains.len();
        let mut supplies = Self {
            deletes: vec![Vec::new(); keys],
            puts: vec![Vec::new(); keys],
            conditional: vec![Vec::new(); keys],
            first: vec![[u64::MAX; 2]; keys],
        };
        for (index, operation) in facts.operations.iter().enumerate() {
            let (key, called) = (facts.keys[index], operation.called);
            let first = match facts.roles[index] {
                Role::MaybeDelete => {
                    supplies.deletes[key].push(called);
                    &mut supplies.first[key][0]
                }
                Role::MaybePut => {
                    match operation.action {
                        Action::CompareAndSet { expected, .. } => {
                            supplies.conditional[key].push((expected, called));
                        }
                        Action::Put { .. } | Action::Get | Action::Delete => supplies.puts[key].push(called),
                    }
                    &mut supplies.first[key][1]
                }
                Role::Nothing | Role::Write(_) | Role::Present(_) | Role::Absent => continue,
            };
            *first = (*first).min(called);
        }
        supplies
    }

    /// Whether no request at all could have done it.
    fn is_bare(&self, key: usize, wish: &Wish) -> bool {
        let [delete, put] = self.first[key];
        wish.by < if wish.kind == Kind::Delete { delete } else { put }
    }

    /// Takes a request that could have done it. Wishes come in the order of their deadlines, so any that suits one suits all later ones.
    fn take(&mut self, key: usize, wish: &Wish) -> bool {
        let in_time = |called: &u64| *called <= wish.by;
        let from = match wish.kind {
            Kind::Delete => &mut self.deletes[key],
            Kind::Put { expected } => {
                let conditional = &mut self.conditional[key];
                let suits = |(expects, called): &(u64, u64)| *expects == expected && in_time(called);
                if let Some(found) = conditional.iter().position(suits) {
                    conditional.swap_remove(found);
                    return true;
                }
                &mut self.puts[key]
            }
        };
        let found = from.iter().position(in_time);
        found.map(|found| from.swap_remove(found)).is_some()
    }
}
