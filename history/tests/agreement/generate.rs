//! Histories made by carrying operations out in some order, and what makes most of them wrong.

use fastrand::Rng;
use quorumkv_history::{Action, Operation, Outcome};

/// What a history is like.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) keys: usize,
    pub(crate) clients: u32,
    pub(crate) operations: usize,
    /// How many of a hundred writes are not answered.
    pub(crate) unanswered: u32,
    pub(crate) removes: bool,
    pub(crate) conditional: bool,
}

/// An operation and the moment at which it takes effect; `None`: never.
struct Planned {
    operation: Operation,
    moment: Option<(u64, u64)>,
}

/// A history that is linearizable, since it was made so.
pub(crate) fn good(random: &mut Rng, shape: Shape) -> Vec<Operation> {
    let mut free = vec![1; shape.clients as usize];
    let mut planned: Vec<Planned> =
        (0..shape.operations).map(|i| plan(random, shape, i, &mut free)).collect();
    planned.sort_by_key(|planned| planned.moment);
    let mut keys: Vec<Option<(String, u64)>> = vec![None; shape.keys];
    let mut version = 0;
    for Planned { operation, moment } in &mut planned {
        if moment.is_some() {
            // Others write, too.
            version += random.u64(1..3);
            let key = &mut keys[usize::from(operation.key == "b")];
            let outcome = carry_out(random, &mut operation.action, key, version);
            if operation.outcome != Outcome::Unknown {
                operation.outcome = outcome;
            }
        }
    }
    planned.into_iter().map(|planned| planned.operation).collect()
}

fn plan(random: &mut Rng, shape: Shape, index: usize, free: &mut [u64]) -> Planned {
    let client = random.u32(..shape.clients);
    let free = &mut free[client as usize];
    let called = *free + random.u64(..4);
    let moment = called + random.u64(..8);
    let returned = moment + random.u64(..5);
    let value = format!("v{index}");
    let action = match random.u32(..10) {
        0..=2 => Action::Put { value },
        3 | 4 if shape.removes => Action::Delete,
        5 | 6 if shape.conditional => Action::CompareAndSet { expected: 0, value },
        _ => Action::Get,
    };
    let key = if random.usize(..shape.keys) == 0 { "a" } else { "b" }.to_owned();
    let mut planned = Planned {
        operation: Operation {
            client,
            key,
            called,
            returned: Some(returned),
            action,
            outcome: Outcome::Failed,
        },
        moment: Some((moment, random.u64(..))),
    };
    *free = returned + random.u64(..3);
    let fate = random.u32(..100);
    if fate < shape.unanswered {
        planned.operation.outcome = Outcome::Unknown;
        planned.operation.returned = None;
        // It may take effect late, or never.
        planned.moment = random.bool().then(|| (called + random.u64(..30), random.u64(..)));
    } else if fate < shape.unanswered + 4 {
        planned.moment = None;
    }
    planned
}

fn carry_out(
    random: &mut Rng,
    action: &mut Action,
    key: &mut Option<(String, u64)>,
    version: u64,
) -> Outcome {
    let actual = key.as_ref().map_or(0, |(_, version)| *version);
    match action {
        Action::Get => match key {
            Some((value, version)) => Outcome::Found { value: value.clone(), version: *version },
            None => Outcome::Absent,
        },
        Action::Put { value } => {
            *key = Some((value.clone(), version));
            Outcome::Applied { version }
        }
        Action::Delete if key.is_none() => Outcome::Absent,
        Action::Delete => {
            *key = None;
            Outcome::Applied { version }
        }
        Action::CompareAndSet { expected, value } => {
            *expected = if random.u32(..3) > 0 { actual } else { random.u64(..=version) };
            if *expected != actual {
                return Outcome::Mismatch { actual };
            }
            *key = Some((value.clone(), version));
            Outcome::Applied { version }
        }
    }
}

/// Changes something that was heard, or when.
pub(crate) fn mutate(random: &mut Rng, history: &mut Vec<Operation>) {
    let index = random.usize(..history.len());
    let other = history[random.usize(..history.len())].clone();
    let version = random.u64(1..20);
    let operation = &mut history[index];
    match (random.u32(..8), &mut operation.outcome) {
        (0, _) => {
            history.remove(index);
        }
        (1, _) => {
            operation.called += 15;
            operation.returned = operation.returned.map(|returned| returned + 15);
        }
        (2, _) => {
            operation.called = operation.called.saturating_sub(15).max(1);
            operation.returned = operation.returned.map(|returned| returned.saturating_sub(12).max(3));
        }
        (3, _) => operation.returned = operation.returned.map(|_| operation.called + 1),
        (4, outcome @ (Outcome::Found { .. } | Outcome::Absent)) => match other.outcome {
            Outcome::Found { .. } if operation.action == Action::Get => *outcome = other.outcome,
            _ => *outcome = Outcome::Absent,
        },
        (4 | 5, Outcome::Applied { version: at } | Outcome::Mismatch { actual: at }) => *at = version,
        (6, Outcome::Found { .. }) => operation.outcome = Outcome::Absent,
        (6, outcome @ Outcome::Absent) if operation.action == Action::Get => {
            if let (Action::Put { value }, Outcome::Applied { version }) = (other.action, other.outcome) {
                *outcome = Outcome::Found { value, version };
            }
        }
        (7, outcome @ (Outcome::Unknown | Outcome::Applied { .. })) => *outcome = Outcome::Failed,
        (_, outcome @ Outcome::Applied { .. }) => *outcome = Outcome::Unknown,
        (_, Outcome::Found { version: at, .. }) => *at = version,
        _ => {}
    }
    // Whoever is not answered never is.
    for operation in history.iter_mut().filter(|operation| operation.outcome == Outcome::Unknown) {
        operation.returned = None;
    }
    for operation in history {
        operation.returned = operation.returned.map(|returned| returned.max(operation.called));
    }
}
