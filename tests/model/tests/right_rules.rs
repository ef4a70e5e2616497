//! The rules of DESIGN 5 to 7: no state within these bounds breaks a property.

use std::io::Write;

use quorumkv_model::checker::{Verdict, explore};
use quorumkv_model::config::{Config, Reads, Start};
use quorumkv_model::events::Event;

/// More states than any of these models has.
const MOST: usize = 20_000_000;

/// Explores the whole model; prints what that came to, also where the output of tests is captured. What can happen at all
/// must have happened.
fn holds(config: Config) {
    let outcome = explore(config, MOST, |_| ()).expect("a model of this size");
    let line = format!("{outcome}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("print the outcome");
    match &outcome.verdict {
        Verdict::Holds => {}
        Verdict::Unfinished => panic!("there are more than {MOST} states"),
        Verdict::Violated(counterexample) => panic!("{config}:\n{counterexample}"),
    }
    let is_possible = |event: &Event| match event {
        Event::Established => config.start == Start::Empty,
        Event::EstablishedAgain | Event::Adopted | Event::Truncated | Event::Fenced => config.epochs > 1,
        Event::ReadChosen | Event::ReadKnownCommitted | Event::Conflict => config.reads != Reads::None,
        Event::UnsyncedLost => config.crashes,
        Event::WriteCommitted => true,
    };
    for event in Event::ALL.into_iter().filter(is_possible) {
        assert!(outcome.events.count(event) > 0, "{config}: {event:?} never happened");
    }
}

#[test]
fn three_nodes_two_epochs_two_writes() {
    holds(Config::new(3, 2, 2));
}

#[test]
fn reads_that_go_on_after_a_conflict() {
    holds(Config { reads: Reads::Contested, ..Config::new(3, 2, 1) });
}

#[test]
fn three_epochs_without_reads() {
    holds(Config { reads: Reads::None, ..Config::new(3, 3, 2) });
}

/// The bounds in which the figure 8 of Raft's paper happens to writers and readers with wrong rules.
#[test]
fn four_epochs_without_crashes() {
    holds(Config { start: Start::Established, crashes: false, ..Config::new(3, 4, 1) });
}

/// With four nodes a read quorum is more than what would meet every write quorum.
#[test]
fn four_nodes_one_epoch() {
    holds(Config::new(4, 1, 2));
}

#[test]
fn four_nodes_a_second_epoch() {
    holds(Config { start: Start::Established, ..Config::new(4, 2, 1) });
}

#[test]
fn four_nodes_two_epochs_without_reads() {
    holds(Config { reads: Reads::None, ..Config::new(4, 2, 2) });
}
