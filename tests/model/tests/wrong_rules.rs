//! Each wrong rule has a counterexample that clients can see, and the model finds it.

use std::io::Write;

use quorumkv_model::checker::{Verdict, explore};
use quorumkv_model::config::{Bug, Config, Reads, Start};
use quorumkv_model::properties::Violation;

/// More states than any of these explorations needs.
const MOST: usize = 10_000_000;

/// Explores until a property does not hold, and prints after how many steps that is; `what` is what clients see of it.
fn fails(name: &str, config: Config, what: &[Violation]) {
    let outcome = explore(config, MOST, |_| ()).expect("a model of this size");
    let Verdict::Violated(counterexample) = &outcome.verdict else {
        panic!("{name} is wrong, and nothing shows it within {config}")
    };
    let (length, violation) = (counterexample.steps.len(), counterexample.violation);
    let line = format!("model: {name}: counterexample of {length} steps ({config}): {violation}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("print the counterexample");
    assert!(what.contains(&violation), "{name}: another property was expected to fail:\n{counterexample}");
    assert!(violation.is_visible(), "{name}: clients see nothing of that:\n{counterexample}");
}

fn read_rule(bug: Bug, config: Config) {
    let what = [Violation::StaleRead, Violation::ReadLost];
    fails(&format!("{bug:?}"), Config { bug: Some(bug), ..config }, &what);
}

fn write_rule(bug: Bug, config: Config) {
    let what = [Violation::CommitsDiffer, Violation::AcknowledgedLost];
    fails(&format!("{bug:?}"), Config { bug: Some(bug), reads: Reads::None, ..config }, &what);
}

/// Figure 8 of Raft's paper: three epochs compete after the first.
const FIGURE_8: Config = Config { start: Start::Established, crashes: false, ..Config::new(3, 4, 1) };

mod reads {
    use super::*;

    /// Rule (a) of DESIGN 6.
    #[test]
    fn values_and_versions_without_the_epoch() {
        read_rule(Bug::ReadIgnoresEpochs, FIGURE_8);
    }

    /// Rule (b).
    #[test]
    fn fewer_answers_than_votes() {
        let config = Config { read_quorum: 2, ..Config::new(4, 1, 1) };
        fails("Nr < Nw", config, &[Violation::StaleRead, Violation::ReadLost]);
    }

    /// Rule (c).
    #[test]
    fn the_highest_version_among_present_values() {
        read_rule(Bug::ReadPrefersPresent, Config::new(3, 1, 2));
    }

    /// Rule (d).
    #[test]
    fn agreement_of_unsettled_logs() {
        read_rule(Bug::ReadCountsUnsettled, FIGURE_8);
    }

    /// Not found by the simulator in 30,000 runs.
    #[test]
    fn settled_logs_of_other_epochs() {
        read_rule(Bug::ReadCountsOtherEpochs, FIGURE_8);
    }

    #[test]
    fn the_longest_log_decides() {
        read_rule(Bug::ReadLongestDecides, Config { crashes: false, ..Config::new(3, 4, 1) });
    }

    #[test]
    fn entries_that_are_not_durable() {
        read_rule(Bug::ReadShowsUnsynced, Config::new(3, 2, 1));
    }
}

mod writes {
    use super::*;

    #[test]
    fn a_promise_that_a_crash_forgets() {
        write_rule(Bug::PromiseNotDurable, Config::new(3, 2, 2));
    }

    #[test]
    fn a_promise_that_omits_what_is_not_synced() {
        write_rule(Bug::PromiseOmitsUnsynced, Config::new(3, 2, 2));
    }

    #[test]
    fn votes_for_what_is_not_synced() {
        write_rule(Bug::VoteBeforeSync, Config::new(3, 2, 2));
    }

    #[test]
    fn the_leaders_own_log_before_it_is_synced() {
        write_rule(Bug::LeaderCountsUnsynced, Config::new(3, 2, 2));
    }

    #[test]
    fn an_entry_of_an_earlier_epoch_committed_by_counting() {
        write_rule(Bug::CommitOldEpoch, FIGURE_8);
    }

    #[test]
    fn the_longest_log_is_the_best() {
        write_rule(Bug::BestLogLongest, Config::new(3, 3, 2));
    }

    #[test]
    fn a_new_leader_goes_on_from_its_own_log() {
        write_rule(Bug::BestLogOwn, Config::new(3, 2, 2));
    }

    #[test]
    fn entries_of_a_lower_epoch_than_promised() {
        write_rule(Bug::AcceptBelowPromise, Config::new(3, 2, 2));
    }

    #[test]
    fn entries_that_differ_stay() {
        write_rule(Bug::NoTruncation, Config::new(3, 3, 2));
    }

    #[test]
    fn the_entry_before_is_not_compared() {
        write_rule(Bug::NoPreviousCheck, Config::new(3, 3, 2));
    }

    #[test]
    fn a_commit_beyond_what_matches() {
        write_rule(Bug::CommitUnmatched, Config::new(3, 2, 2));
    }

    #[test]
    fn two_nodes_with_one_epoch() {
        let config = Config { bug: Some(Bug::SharedEpoch), reads: Reads::None, ..Config::new(3, 2, 1) };
        fails("SharedEpoch", config, &[Violation::TwoLeaders]);
    }

    #[test]
    fn half_of_the_nodes_for_a_quorum() {
        let config = Config { write_quorum: 2, reads: Reads::None, ..Config::new(4, 2, 1) };
        fails("Nw = N / 2", config, &[Violation::CommitsDiffer, Violation::AcknowledgedLost]);
    }
}
