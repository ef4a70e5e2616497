//! Explores a model, the nearest states first, until there is no other.
//!
//! States are told apart by 64 bits of hash: with n states the chance that any was missed is about n² / 2⁶⁵, one in
//! four thousand for a hundred million.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use crate::config::{Config, TooLarge};
use crate::events::Events;
use crate::properties::{self, Violation};
use crate::state::State;
use crate::steps::{Action, Model};

/// What came of an exploration.
#[derive(Debug)]
pub struct Outcome {
    /// The model.
    pub config: Config,
    /// States that were found.
    pub states: usize,
    /// Steps that were tried.
    pub steps: u64,
    /// Most steps that it takes to reach a state.
    pub depth: usize,
    /// What happened.
    pub events: Events,
    /// How long it took.
    pub took: Duration,
    /// What was found.
    pub verdict: Verdict,
}

/// What was found.
#[derive(Debug)]
pub enum Verdict {
    /// All properties hold in all states.
    Holds,
    /// They hold in those that were explored; there are more.
    Unfinished,
    /// One does not hold.
    Violated(Counterexample),
}

/// The fewest steps after which a property does not hold.
#[derive(Debug)]
pub struct Counterexample {
    /// What does not hold.
    pub violation: Violation,
    /// Each step, with the state after it. The last has none if the step itself breaks a property.
    pub steps: Vec<(Action, Option<State>)>,
}

/// How an exploration goes on, told after each depth.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The depth that was finished.
    pub depth: usize,
    /// States found so far.
    pub states: usize,
    /// States of the next depth.
    pub frontier: usize,
    /// Time since the beginning.
    pub took: Duration,
}

/// Each state that was found, with the one before it.
type Visited = HashMap<u64, u64, BuildHasherDefault<Same>>;

/// Explores a model. Stops at a violation, or after a depth with more than `most` states.
///
/// # Errors
/// If there is no model of that size.
pub fn explore(config: Config, most: usize, mut progress: impl FnMut(Progress)) -> Result<Outcome, TooLarge> {
    config.check()?;
    let model = Model { config };
    let began = Instant::now();
    let initial = State::initial(&config).canonical(config.nodes);
    let mut search = Search { model, visited: Visited::default(), events: Events::default(), steps: 0 };
    search.visited.insert(initial.fingerprint(config.nodes), 0);
    let (mut frontier, mut next, mut depth) = (vec![initial], Vec::new(), 0);
    let verdict = loop {
        if let Some(counterexample) = search.expand(&mut frontier, &mut next) {
            break Verdict::Violated(counterexample);
        }
        let (states, took) = (search.visited.len(), began.elapsed());
        progress(Progress { depth, states, frontier: next.len(), took });
        if next.is_empty() {
            break Verdict::Holds;
        }
        if states > most {
            break Verdict::Unfinished;
        }
        depth += 1;
        std::mem::swap(&mut frontier, &mut next);
    };
    Ok(Outcome {
        config,
        states: search.visited.len(),
        steps: search.steps,
        depth,
        events: search.events,
        took: began.elapsed(),
        verdict,
    })
}

struct Search {
    model: Model,
    visited: Visited,
    events: Events,
    steps: u64,
}

impl Search {
    /// Tries every step from every state of `frontier`; puts the states that are new into `next`.
    fn expand(&mut self, frontier: &mut Vec<State>, next: &mut Vec<State>) -> Option<Counterexample> {
        let nodes = self.model.config.nodes;
        let mut actions = Vec::new();
        while let Some(state) = frontier.pop() {
            let fingerprint = state.fingerprint(nodes);
            self.model.actions(&state, &mut actions);
            for &action in &actions {
                self.steps += 1;
                let after = match self.model.step(&state, action, &mut self.events) {
                    Ok(after) => after.canonical(nodes),
                    Err(violation) => return Some(self.trace(fingerprint, violation)),
                };
                let reached = after.fingerprint(nodes);
                if let std::collections::hash_map::Entry::Vacant(new) = self.visited.entry(reached) {
                    new.insert(fingerprint);
                    if let Err(violation) = properties::check(&self.model.config, &after) {
                        return Some(self.trace(reached, violation));
                    }
                    next.push(after);
                }
            }
        }
        None
    }

    /// The steps that lead to the state with this fingerprint, and the one that breaks a property if it does not itself. They
    /// are found by trying again, without the canonical order, so that every replica keeps its number.
    fn trace(&self, reached: u64, violation: Violation) -> Counterexample {
        let mut path = vec![reached];
        while let Some(&before) = path.last().and_then(|fingerprint| self.visited.get(fingerprint))
            && before != 0
        {
            path.push(before);
        }
        let (model, nodes) = (&self.model, self.model.config.nodes);
        let mut state = State::initial(&model.config);
        let (mut steps, mut actions) = (Vec::new(), Vec::new());
        for fingerprint in path.into_iter().rev().skip(1) {
            model.actions(&state, &mut actions);
            let leads_there = |after: &State| after.canonical(nodes).fingerprint(nodes) == fingerprint;
            let found = actions.iter().find_map(|&action| {
                let after = model.step(&state, action, &mut Events::default()).ok()?;
                leads_there(&after).then_some((action, after))
            });
            let (action, after) = found.expect("every state was reached by a step from the one before");
            steps.push((action, Some(after)));
            state = after;
        }
        if properties::check(&model.config, &state).is_ok() {
            model.actions(&state, &mut actions);
            let breaks =
                |action: &&Action| model.step(&state, **action, &mut Events::default()) == Err(violation);
            let last = actions.iter().find(breaks).expect("one of the steps breaks the property");
            steps.push((*last, None));
        }
        Counterexample { violation, steps }
    }
}

/// Keeps what is a hash already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The search, with whole states in the place of their hashes.
    fn count(config: Config) -> usize {
        let model = Model { config };
        let initial = State::initial(&config).canonical(config.nodes);
        let (mut visited, mut waiting, mut actions) = (HashSet::from([initial]), vec![initial], Vec::new());
        while let Some(state) = waiting.pop() {
            model.actions(&state, &mut actions);
            for &action in &actions {
                let after = model.step(&state, action, &mut Events::default()).expect("the rules are right");
                let after = after.canonical(config.nodes);
                if visited.insert(after) {
                    waiting.push(after);
                }
            }
        }
        visited.len()
    }

    #[test]
    fn no_two_states_share_a_fingerprint() {
        for config in [Config::new(3, 1, 2), Config::new(3, 2, 0), Config::new(4, 1, 0)] {
            let outcome = explore(config, usize::MAX, |_| ()).expect("a model of this size");
            assert!(matches!(outcome.verdict, Verdict::Holds));
            assert_eq!(outcome.states, count(config), "{config}");
        }
    }

    #[test]
    fn a_counterexample_leads_step_by_step_to_what_it_shows() {
        let config = Config { bug: Some(crate::config::Bug::SharedEpoch), ..Config::new(3, 1, 0) };
        let outcome = explore(config, usize::MAX, |_| ()).expect("a model of this size");
        let Verdict::Violated(found) = outcome.verdict else { panic!("nothing was found") };
        assert_eq!(found.violation, Violation::TwoLeaders);
        let model = Model { config };
        let (mut state, mut actions) = (State::initial(&config), Vec::new());
        for (action, after) in found.steps {
            model.actions(&state, &mut actions);
            assert!(actions.contains(&action));
            match (model.step(&state, action, &mut Events::default()), after) {
                (Ok(next), Some(after)) => {
                    state = {
                        assert_eq!(next, after);
                        next
                    }
                }
                (Err(violation), None) => assert_eq!(violation, found.violation),
                (step, after) => panic!("{action:?} leads to {step:?}, not to {after:?}"),
            }
        }
    }
}
