//! The check by versions: time passes, and with it the version that is known to have been reached.
//!
//! Every operation has a place in the log: a write its version, a read anything from the version that it saw to the next one
//! of its key. What has been answered has taken place, so whatever is called later must have a place that is not before. If
//! each operation's last place lies after the first place of all that were answered before it was called, giving
//! everybody the first place that is left is one order for all of them. So each contradiction is between two operations.

use crate::Outcome;
use crate::facts::{Facts, Link, Role};
use crate::gaps::{Deletes, Gap};
use crate::stale::Stale;
use crate::unanswered::Needs;
use crate::violation::Violation;
use crate::{Action, Operation};

/// What reads promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reads {
    /// Linearizable.
    Fresh,
    /// A state that was there at some time before the answer. They are counted instead.
    Old,
}

/// What the passing of time has shown.
pub(crate) struct Passed {
    pub(crate) stale: Stale,
    /// What must be owed to requests that were not answered.
    pub(crate) needs: Needs,
}

/// Where absences are put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Absences {
    /// At the first place that is left: what contradicts that contradicts everything.
    Early,
    /// After a known delete where there is one that fits, so that few are owed to requests that were not answered. What
    /// contradicts that may fit otherwise.
    Cheap,
}

/// Lets time pass.
pub(crate) fn pass(facts: &Facts<'_>, reads: Reads, absences: Absences) -> Result<Passed, Box<Violation>> {
    Passing::new(facts, reads, absences).run()
}

/// The highest version known to have been reached, and who proved it.
type Reached = Option<(u64, usize)>;

struct Passing<'a> {
    facts: &'a Facts<'a>,
    reads: Reads,
    /// By all, and for each key by operations on it: these make the better examples.
    reached: Reached,
    reached_on: Vec<Reached>,
    /// For each operation, what had been reached at its call, and what it proved to have been reached when it was answered.
    at_call: Vec<u64>,
    proves: Vec<u64>,
    deletes: Deletes,
    /// For each link, an absence that was answered and cost a delete after it: nobody may find the link later.
    gone: Vec<Option<usize>>,
    stale: Stale,
    needs: Needs,
    /// Where absences may be put late.
    latest: Option<Latest>,
}

impl<'a> Passing<'a> {
    fn new(facts: &'a Facts<'a>, reads: Reads, absences: Absences) -> Self {
        Self {
            facts,
            reads,
            reached: None,
            reached_on: vec![None; facts.chains.len()],
            at_call: vec![0; facts.operations.len()],
            proves: vec![0; facts.operations.len()],
            deletes: Deletes::new(facts),
            gone: vec![None; facts.links.len()],
            stale: Stale::default(),
            needs: Needs::default(),
            latest: (absences == Absences::Cheap).then(|| Latest::new(facts)),
        }
    }

    fn run(mut self) -> Result<Passed, Box<Violation>> {
        // What is called at the moment of an answer is concurrent with it: calls come first.
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * self.facts.operations.len());
        for (index, operation) in self.facts.operations.iter().enumerate() {
            if self.facts.roles[index] != Role::Nothing {
                events.push((operation.called, false, index));
                let end = self.facts.end(index);
                if end < u64::MAX {
                    events.push((end, true, index));
                }
            }
        }
        events.sort_unstable();
        for (_, is_answer, index) in events {
            if is_answer { self.answered(index)? } else { self.called(index)? }
        }
        for link in 0..self.facts.links.len() {
            self.fits_its_predecessor(link)?;
        }
        Ok(Passed { stale: self.stale, needs: self.needs })
    }

    fn called(&mut self, index: usize) -> Result<(), Box<Violation>> {
        let reached = self.reached.map_or(0, |(version, _)| version);
        self.at_call[index] = reached;
        let key = self.facts.keys[index];
        match self.facts.roles[index] {
            Role::Write(link) if reached >= self.facts.links[link].version => {
                Err(self.wrote_too_low(index, link))
            }
            Role::Present(link) if self.is_old(index) => {
                if let Some(next) = self.facts.next(link)
                    && self.facts.links[next].version <= reached
                {
                    let chain = &self.facts.chains[key];
                    let newest = chain.partition_point(|&l| self.facts.links[l].version <= reached);
                    let newest = self.facts.links[chain[newest - 1]].version;
                    self.stale.note(newest - self.facts.links[link].version);
                }
                Ok(())
            }
            Role::Present(link) => self.still_there(index, link, reached),
            Role::MaybeDelete => {
                self.deletes.called(key, reached);
                Ok(())
            }
            Role::Write(_) | Role::Absent | Role::MaybePut | Role::Nothing => Ok(()),
        }
    }

    /// What was found must not have been replaced before it was asked for.
    fn still_there(&self, index: usize, link: usize, reached: u64) -> Result<(), Box<Violation>> {
        let operations = self.facts.operations;
        if let Some(next) = self.facts.next(link)
            && self.facts.links[next].version <= reached
        {
            let Link { version, .. } = self.facts.links[link];
            let newer = self.facts.links[next];
            let (seen, by) = self.proof(self.facts.keys[index], newer.version);
            let what = if newer.is_delete { "deleted at" } else { "replaced at" };
            let reason = format!(
                "An operation found version {version}, which had been {what} version {}: version {seen} had been \
                 answered before it was called.",
                newer.version
            );
            let states = [link, next].into_iter().flat_map(|link| self.facts.shown(link));
            return Err(Violation::new(
                reason,
                self.reasons(by).into_iter().chain(states).chain([&operations[index]]),
            ));
        }
        if let Some(absence) = self.gone[link] {
            let version = self.facts.links[link].version;
            let reason = format!(
                "An operation found version {version}, which had been found to be gone before it was called."
            );
            let involved = self.facts.shown(link).chain([&operations[index]]).chain(self.reasons(absence));
            return Err(Violation::new(reason, involved));
        }
        Ok(())
    }

    fn answered(&mut self, index: usize) -> Result<(), Box<Violation>> {
        match self.facts.roles[index] {
            Role::Write(link) | Role::Present(link) => {
                self.reaches(index, self.facts.links[link].version);
            }
            Role::Absent => self.was_absent(index)?,
            Role::MaybeDelete | Role::MaybePut | Role::Nothing => {}
        }
        if self.is_old(index) {
            self.stale.reads += 1;
        }
        Ok(())
    }

    fn was_absent(&mut self, index: usize) -> Result<(), Box<Violation>> {
        let facts = self.facts;
        if self.is_old(index) {
            self.count_absence(index);
            return Ok(());
        }
        match self.place(index) {
            Some(Gap::Free(version)) => self.reaches(index, version),
            Some(Gap::Costs(link)) => {
                self.reaches(index, facts.links[link].version);
                self.gone[link].get_or_insert(index);
                self.needs.delete_after(link, facts.end(index), false);
                if let Some(next) = facts.next(link)
                    && facts.links[next].is_delete
                {
                    // That one found something, which must have been put after the first.
                    self.needs.put_before(next, false);
                }
            }
            None => return Err(self.absent_for_no_reason(index)),
        }
        Ok(())
    }

    /// A place for an absence.
    fn place(&self, index: usize) -> Option<Gap> {
        let (facts, key, reached) = (self.facts, self.facts.keys[index], self.at_call[index]);
        let first = self.deletes.place(facts, key, reached);
        let (Some(Gap::Costs(_)), Some(latest)) = (first, &self.latest) else { return first };
        let before = latest.before(facts.end(index));
        let chain = &facts.chains[key];
        let from = chain.partition_point(|&link| facts.links[link].version <= reached);
        let to = chain.partition_point(|&link| facts.links[link].version < before);
        let delete = chain[from..to.max(from)].iter().find(|&&link| facts.links[link].is_delete);
        delete.map_or(first, |&link| Some(Gap::Free(facts.links[link].version)))
    }

    /// An absence that may be old: everything was absent in the beginning.
    fn count_absence(&mut self, index: usize) {
        let (facts, key, reached) = (self.facts, self.facts.keys[index], self.at_call[index]);
        let chain = &facts.chains[key];
        let had_begun = |link: usize| facts.origin(link).called <= facts.end(index);
        let is_fresh = match self.deletes.place(facts, key, reached) {
            Some(Gap::Free(version)) => {
                let after = chain.partition_point(|&link| facts.links[link].version <= version);
                after == 0 || had_begun(chain[after - 1])
            }
            Some(Gap::Costs(link)) => had_begun(link),
            None => false,
        };
        if is_fresh {
            return;
        }
        let at = chain.partition_point(|&link| facts.links[link].version <= reached);
        let newest = facts.links[chain[at - 1]].version;
        let absent = (0..at).rev().find(|&gap| self.deletes.gap(facts, key, gap).is_some());
        let replaced = absent.map_or(1, |gap| facts.links[chain[gap]].version);
        self.stale.note(newest + 1 - replaced);
    }

    /// A condition must have held, and a delete must have found something.
    fn fits_its_predecessor(&mut self, link: usize) -> Result<(), Box<Violation>> {
        let facts = self.facts;
        let Link { version, writer, is_delete, .. } = facts.links[link];
        let before = facts.previous(link);
        let is_absent = before.is_none_or(|before| facts.links[before].is_delete);
        match (facts.expected(link), before) {
            (Some(0), Some(before)) if !is_absent => self.needs.delete_after(before, u64::MAX, true),
            (Some(expected @ 1..), before)
                if before.is_none_or(|before| facts.links[before].version != expected) =>
            {
                let between = before.into_iter().flat_map(|before| facts.shown(before));
                let reason = format!(
                    "A write that needed its key to be at version {expected} was applied at version {version}, and \
                     another came between."
                );
                return Err(Violation::new(reason, between.chain(facts.shown(link))));
            }
            _ => {}
        }
        if is_delete && is_absent {
            self.needs.put_before(link, true);
        }
        if writer.is_none() {
            self.needs.put_as(link);
        }
        Ok(())
    }

    /// Whether it is a read that may be old.
    fn is_old(&self, index: usize) -> bool {
        self.reads == Reads::Old && self.facts.operations[index].action == Action::Get
    }

    /// An operation has been answered, so the log has come this far.
    fn reaches(&mut self, index: usize, version: u64) {
        self.needs.reached(version, self.facts.end(index));
        self.proves[index] = version;
        for reached in [&mut self.reached, &mut self.reached_on[self.facts.keys[index]]] {
            if reached.is_none_or(|(highest, _)| highest < version) {
                *reached = Some((version, index));
            }
        }
    }

    /// An answered operation that proves that a version had been reached, and what it proves; on this key if there is one.
    fn proof(&self, key: usize, version: u64) -> (u64, usize) {
        let known = self.reached_on[key].filter(|(reached, _)| *reached >= version).or(self.reached);
        known.expect("something was answered that has come so far")
    }

    /// Why this answer proves what it does: the operation itself, and what an absence needs besides. It says that a delete had taken place
    /// if the value that this deleted was there when the absence was asked for, for which there is an earlier proof.
    fn reasons(&self, by: usize) -> Vec<&'a Operation> {
        let facts = self.facts;
        let (mut reasons, mut next) = (Vec::new(), Some(by));
        while let Some(index) = next.take() {
            reasons.push(&facts.operations[index]);
            if facts.roles[index] != Role::Absent {
                continue;
            }
            let chain = &facts.chains[facts.keys[index]];
            let at = |version: u64| chain.partition_point(|&link| facts.links[link].version <= version);
            let (before, upto) = (at(self.at_call[index]), at(self.proves[index]));
            let Some(&there) = chain[..before].last().filter(|_| upto > before) else {
                // It was no sooner than what had been answered before it.
                next = Some(self.proves[index])
                    .filter(|proved| *proved > 0)
                    .and_then(|proved| self.proof_before(index, proved));
                continue;
            };
            reasons.extend([there, chain[upto - 1]].into_iter().flat_map(|link| facts.shown(link)));
            next = self.proof_before(index, facts.links[there].version);
        }
        reasons
    }

    /// An answer from before an operation's call that proves that a version had been reached: absences only if need be, on the same key if
    /// there is one, the highest. Only for the one violation that is told.
    fn proof_before(&self, index: usize, version: u64) -> Option<usize> {
        let (facts, called) = (self.facts, self.facts.operations[index].called);
        let before = (0..facts.operations.len()).filter(|&other| facts.end(other) < called);
        before.filter(|&other| self.proves[other] >= version).max_by_key(|&other| {
            let is_on_key = facts.keys[other] == facts.keys[index];
            (facts.roles[other] != Role::Absent, is_on_key, self.proves[other])
        })
    }

    fn wrote_too_low(&self, index: usize, link: usize) -> Box<Violation> {
        let version = self.facts.links[link].version;
        let (seen, by) = self.proof(self.facts.keys[index], version);
        let operation = &self.facts.operations[index];
        let reason = match (self.facts.operations[by].outcome.clone(), operation.outcome.clone()) {
            (Outcome::Found { .. }, _) if seen == version => {
                format!("Version {version} was read before the write was called that wrote it.")
            }
            (_, Outcome::Unknown) => format!(
                "A write took effect at version {version} although version {seen} had been answered before it was called."
            ),
            _ => format!(
                "A write was applied at version {version} although version {seen} had been answered before it was called."
            ),
        };
        let witness = &self.facts.operations[self.facts.links[link].witness];
        Violation::new(reason, self.reasons(by).into_iter().chain([operation, witness]))
    }

    fn absent_for_no_reason(&self, index: usize) -> Box<Violation> {
        let (facts, key) = (self.facts, self.facts.keys[index]);
        let chain = &facts.chains[key];
        let at = chain.partition_point(|&link| facts.links[link].version <= self.at_call[index]);
        let last = chain[at - 1];
        let version = facts.links[last].version;
        let by = self.reached_on[key]
            .filter(|(reached, by)| *reached >= version && facts.end(*by) < facts.operations[index].called);
        let proof = by.map(|(_, by)| by).or_else(|| self.proof_before(index, version));
        let reason = format!(
            "A key was found absent although version {version} of it had been answered before, and nothing can have \
             deleted it since."
        );
        Violation::new(
            reason,
            facts
                .shown(last)
                .chain([&facts.operations[index]])
                .chain(proof.into_iter().flat_map(|by| self.reasons(by))),
        )
    }
}

/// For each moment, the version before which all must take place that was answered by then.
struct Latest {
    /// Times of calls, and the lowest version before which one of them or of those after them must take place.
    calls: Vec<(u64, u64)>,
}

impl Latest {
    fn new(facts: &Facts<'_>) -> Self {
        let mut calls: Vec<(u64, u64)> = Vec::new();
        for (operation, role) in facts.operations.iter().zip(&facts.roles) {
            let before = match *role {
                Role::Write(link) => Some(link),
                Role::Present(link) => facts.next(link),
                Role::Absent | Role::MaybeDelete | Role::MaybePut | Role::Nothing => None,
            };
            calls.extend(before.map(|link| (operation.called, facts.links[link].version)));
        }
        calls.sort_unstable();
        let mut lowest = u64::MAX;
        for (_, before) in calls.iter_mut().rev() {
            lowest = lowest.min(*before);
            *before = lowest;
        }
        Self { calls }
    }

    /// What is answered at this time must take place before this version.
    fn before(&self, time: u64) -> u64 {
        let later = self.calls.partition_point(|(called, _)| *called <= time);
        self.calls.get(later).map_or(u64::MAX, |(_, before)| *before)
    }
}
