//! The check by trying all orders (Wing and Gong 1993), with a memory of what was tried (Lowe 2017).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::facts::end;
use crate::{Action, Operation, Outcome};

/// What the orders that are tried must respect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Writes stand in the order of their versions, over all keys.
    Versions,
    /// Versions are never compared: each value must only be read while it is there.
    Values,
}

/// Whether some order of all operations explains their answers. The time may grow exponentially with their number.
#[must_use]
pub fn search(operations: &[Operation], order: Order) -> bool {
    within(operations, order, u64::MAX).expect("there is no bound")
}

/// The same within so many steps; `None` if they do not suffice.
pub(crate) fn within(operations: &[Operation], order: Order, steps: u64) -> Option<bool> {
    Search::new(operations, order).run(steps)
}

/// What a key is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Cell {
    Absent,
    /// Written by this operation, at this version if that is known or assumed.
    Present(usize, Option<u64>),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    cells: Vec<Cell>,
    /// The highest version so far.
    last: u64,
}

struct Search<'a> {
    /// By the times of their calls.
    operations: Vec<&'a Operation>,
    keys: Vec<usize>,
    key_count: usize,
    order: Order,
    /// Where each value was written.
    writers: HashMap<&'a str, usize>,
    /// The versions of values, as far as somebody tells.
    versions: HashMap<usize, u64>,
    /// Versions of each key that somebody speaks of without a value.
    nameless: Vec<BTreeSet<u64>>,
}

/// A state that has been reached, and what can be done next.
struct Step {
    done: Vec<u64>,
    /// Operations that were answered and are not done.
    left: usize,
    state: State,
    choices: Vec<(usize, State)>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation], order: Order) -> Self {
        let is_told = |operation: &&Operation| {
            operation.outcome != Outcome::Failed
                && !(operation.action == Action::Get && operation.outcome == Outcome::Unknown)
        };
        let mut operations: Vec<&Operation> = operations.iter().filter(is_told).collect();
        operations.sort_by_key(|operation| operation.called);
        let mut names = BTreeMap::new();
        let mut keys = Vec::new();
        let (mut writers, mut versions) = (HashMap::new(), HashMap::new());
        for (index, operation) in operations.iter().enumerate() {
            let next = names.len();
            keys.push(*names.entry(operation.key.as_str()).or_insert(next));
            if let Some(value) = written(operation) {
                writers.insert(value, index);
                if let Outcome::Applied { version } = operation.outcome {
                    versions.insert(index, version);
                }
            }
        }
        let mut nameless = vec![BTreeSet::new(); names.len()];
        for (operation, &key) in operations.iter().zip(&keys) {
            if let Outcome::Found { value, version } = &operation.outcome
                && let Some(writer) = writers.get(value.as_str())
            {
                versions.entry(*writer).or_insert(*version);
            }
            let expected = match operation.action {
                Action::CompareAndSet { expected, .. } => Some(expected),
                Action::Get | Action::Put { .. } | Action::Delete => None,
            };
            let actual = match operation.outcome {
                Outcome::Mismatch { actual } => Some(actual),
                _ => None,
            };
            nameless[key].extend(expected.into_iter().chain(actual).filter(|version| *version > 0));
        }
        for named in versions.values() {
            nameless.iter_mut().for_each(|nameless| {
                nameless.remove(named);
            });
        }
        let key_count = names.len();
        Self { operations, keys, key_count, order, writers, versions, nameless }
    }

    fn run(&self, mut steps: u64) -> Option<bool> {
        let words = self.operations.len().div_ceil(64);
        let state = State { cells: vec![Cell::Absent; self.key_count], last: 0 };
        let left = self.operations.iter().filter(|operation| end(operation) < u64::MAX).count();
        let mut stack = vec![self.step(vec![0; words], left, state)];
        let mut tried: HashSet<(Vec<u64>, State)> = HashSet::new();
        while let Some(step) = stack.last_mut() {
            if step.left == 0 {
                return Some(true);
            }
            let Some((index, state)) = step.choices.pop() else {
                stack.pop();
                continue;
            };
            steps = steps.checked_sub(1)?;
            let mut done = step.done.clone();
            done[index / 64] |= 1 << (index % 64);
            let answered = usize::from(end(self.operations[index]) < u64::MAX);
            let next = self.step(done, step.left - answered, state);
            // Where there is no choice, there is nothing to come back to.
            if next.choices.len() < 2 || tried.insert((next.done.clone(), next.state.clone())) {
                stack.push(next);
            }
        }
        Some(false)
    }

    /// Does all that changes nothing and can be done now, and finds what else can be.
    fn step(&self, done: Vec<u64>, left: usize, state: State) -> Step {
        let mut step = Step { done, left, state, choices: Vec::new() };
        loop {
            let candidates = self.candidates(&step.done);
            let fits = |index: &&usize| self.observes(**index, &step.state);
            let Some(&index) = candidates.iter().find(fits) else {
                for index in candidates {
                    let states = self.after(index, &step.state);
                    step.choices.extend(states.into_iter().map(|state| (index, state)));
                }
                return step;
            };
            // An observation that holds now can be made now in every order that goes on from here.
            step.done[index / 64] |= 1 << (index % 64);
            step.left -= 1;
        }
    }

    /// The operations before which no other has to come.
    fn candidates(&self, done: &[u64]) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut first_end = u64::MAX;
        for (word, bits) in done.iter().enumerate().filter(|(_, bits)| **bits != u64::MAX) {
            for index in (0..64).filter(|bit| bits & (1 << bit) == 0).map(|bit| word * 64 + bit) {
                match self.operations.get(index) {
                    Some(operation) if operation.called <= first_end => {
                        first_end = first_end.min(end(operation));
                        candidates.push(index);
                    }
                    Some(_) | None => return candidates,
                }
            }
        }
        candidates
    }

    /// Whether the operation is an observation that holds.
    fn observes(&self, index: usize, state: &State) -> bool {
        let operation = self.operations[index];
        match (&operation.action, &operation.outcome, state.cells[self.keys[index]]) {
            (_, Outcome::Found { value, version }, Cell::Present(writer, at)) => {
                self.writers.get(value.as_str()) == Some(&writer) && at == Some(*version)
            }
            (Action::CompareAndSet { expected, .. }, Outcome::Mismatch { actual }, cell) => {
                *expected != *actual
                    && match cell {
                        Cell::Absent => *actual == 0,
                        Cell::Present(_, at) => at == Some(*actual),
                    }
            }
            (_, Outcome::Absent, cell) => cell == Cell::Absent,
            _ => false,
        }
    }

    /// The states that the operation can lead to, if it is a write that can take effect.
    fn after(&self, index: usize, state: &State) -> Vec<State> {
        let (operation, key) = (self.operations[index], self.keys[index]);
        let cell = state.cells[key];
        let acknowledged = match operation.outcome {
            Outcome::Applied { version } => Some(version),
            Outcome::Unknown => None,
            Outcome::Found { .. } | Outcome::Absent | Outcome::Mismatch { .. } | Outcome::Failed => {
                return Vec::new();
            }
        };
        let holds = match (&operation.action, cell) {
            (Action::Get, _) => false,
            (Action::Put { .. }, _) => true,
            (Action::Delete, cell) => cell != Cell::Absent,
            (Action::CompareAndSet { expected, .. }, Cell::Absent) => *expected == 0,
            (Action::CompareAndSet { expected, .. }, Cell::Present(_, at)) => {
                *expected > 0 && at == Some(*expected)
            }
        };
        if !holds {
            return Vec::new();
        }
        if operation.action == Action::Delete {
            return self.advance(state, key, Cell::Absent, acknowledged).into_iter().collect();
        }
        let versions: Vec<Option<u64>> = match self.versions.get(&index) {
            Some(version) => vec![Some(*version)],
            // It may be the one that somebody speaks of.
            None => self.nameless[key].iter().copied().map(Some).chain([None]).collect(),
        };
        let cells = versions.into_iter().map(|version| (Cell::Present(index, version), version));
        cells.filter_map(|(cell, version)| self.advance(state, key, cell, version)).collect()
    }

    /// A key becomes something else, at a version if that is known.
    fn advance(&self, state: &State, key: usize, cell: Cell, version: Option<u64>) -> Option<State> {
        let mut next = state.clone();
        next.cells[key] = cell;
        if let (Order::Versions, Some(version)) = (self.order, version) {
            if version <= state.last {
                return None;
            }
            next.last = version;
        }
        Some(next)
    }
}

/// The value that an operation writes.
fn written(operation: &Operation) -> Option<&str> {
    match &operation.action {
        Action::Put { value } | Action::CompareAndSet { value, .. } => Some(value),
        Action::Get | Action::Delete => None,
    }
}
