use std::time::Duration;

use quorumkv_protocol::client::{NodeRole, NodeStatus};
use quorumkv_protocol::{Epoch, NodeId, Version};

use super::super::watch::{Seen, Sighting};
use super::{Afterwards, Ending, Reminder, Story};

fn story() -> Story {
    Story::new((0..3).map(|i| format!("127.0.0.1:500{i}")))
}

fn status(node: usize, role: NodeRole, epoch: u64, leader: u64) -> Sighting {
    let status = NodeStatus {
        node: NodeId::new(node as u64),
        address: String::new(),
        cluster: None,
        role,
        epoch: Epoch::new(epoch, NodeId::new(leader)),
        leader: None,
        leader_address: None,
        last: Version::ZERO,
        committed: Version::ZERO,
        applied: Version::ZERO,
        lag: 0,
        sync_p99_us: 0,
        zookeeper: String::new(),
        ready: role != NodeRole::Forming,
        remarks: if role == NodeRole::Forming { "1 of 3 nodes".to_owned() } else { String::new() },
        software: String::new(),
        uptime_s: 0,
        members: Vec::new(),
        takeover: None,
        gave_up: None,
        damage: None,
    };
    Sighting { node, seen: Seen::Status(Box::new(status)) }
}

fn gone(node: usize) -> Sighting {
    Sighting { node, seen: Seen::Gone }
}

/// Three nodes that serve, the first leading epoch 1.
fn begun() -> Story {
    let mut story = story();
    assert_eq!(story.seen(&status(0, NodeRole::Leader, 1, 0)), Vec::<String>::new());
    assert_eq!(story.seen(&status(1, NodeRole::Follower, 1, 0)), Vec::<String>::new());
    assert_eq!(story.seen(&status(2, NodeRole::Follower, 1, 0)), ["127.0.0.1:5000 leads (epoch 1)"]);
    assert!(story.has_begun());
    story
}

fn by_hand() -> Afterwards {
    Afterwards::ByHand("kvd --port 5000".to_owned())
}

#[test]
fn nothing_is_told_before_all_serve_but_what_they_wait_for() {
    let mut story = story();
    assert_eq!(story.seen(&gone(0)), Vec::<String>::new());
    assert_eq!(story.seen(&status(1, NodeRole::Forming, 0, 0)), Vec::<String>::new());
    assert_eq!(story.seen(&status(2, NodeRole::Follower, 1, 0)), Vec::<String>::new());
    assert_eq!(story.waits(), ["node 1 is not ready: 1 of 3 nodes", "node 0 is not ready: no answer yet"]);
    assert_eq!(story.seen(&status(0, NodeRole::Forming, 0, 0)), Vec::<String>::new());
    assert_eq!(story.waits(), ["nodes 0, 1 are not ready: 1 of 3 nodes"]);
    assert!(!story.has_begun());
}

#[test]
fn what_it_waits_for_is_told_at_once_when_it_changes_and_else_ever_more_seldom() {
    let mut reminder = Reminder::new();
    let told = |reminder: &mut Reminder, why: &str| !reminder.turn(vec![why.to_owned()]).is_empty();
    let turns: Vec<usize> = (1..=60).filter(|_| told(&mut reminder, "no ZooKeeper")).collect();
    assert_eq!(turns, [1, 3, 7, 15, 27, 39, 51]);
    assert!(told(&mut reminder, "1 of 3 nodes"), "news");
    assert!(!told(&mut reminder, "1 of 3 nodes"));
}

#[test]
fn a_leader_that_is_killed_is_told_and_so_is_its_successor_and_its_return() {
    let mut story = begun();
    let restart = Afterwards::Restart(Duration::from_secs(1));
    assert_eq!(
        story.ended(0, &Ending::Killed(9), &restart),
        ["node 0 (127.0.0.1:5000), the leader, was killed (SIGKILL)", "  it is started again in 1s"]
    );
    // What it said before its end comes late.
    assert_eq!(story.seen(&status(0, NodeRole::Leader, 1, 0)), Vec::<String>::new());
    assert_eq!(story.seen(&gone(0)), Vec::<String>::new());
    assert_eq!(story.seen(&status(1, NodeRole::Leader, 2, 1)), ["127.0.0.1:5001 leads (epoch 2)"]);
    assert_eq!(story.seen(&status(1, NodeRole::Leader, 2, 1)), Vec::<String>::new());
    story.started(0);
    assert_eq!(story.seen(&gone(0)), Vec::<String>::new());
    assert_eq!(story.seen(&status(0, NodeRole::Follower, 2, 1)), ["node 0 (127.0.0.1:5000) serves again"]);
}

#[test]
fn a_node_that_is_started_by_hand_comes_and_goes() {
    let mut story = begun();
    assert_eq!(
        story.ended(1, &Ending::InGoodOrder, &by_hand()),
        [
            "node 1 (127.0.0.1:5001) was told to stop, and has ended in good order",
            "  start it again with: kvd --port 5000"
        ]
    );
    assert_eq!(story.seen(&gone(1)), Vec::<String>::new());
    assert_eq!(
        story.seen(&status(1, NodeRole::Follower, 1, 0)),
        ["node 1 (127.0.0.1:5001) serves again, started by hand"]
    );
    assert_eq!(story.seen(&gone(1)), ["node 1 (127.0.0.1:5001) has ended, which was started by hand"]);
}

#[test]
fn it_is_told_when_too_few_are_left() {
    let mut story = begun();
    assert_eq!(
        story
            .ended(2, &Ending::Failed { reason: "no disk".to_owned(), log: "2.log".into() }, &by_hand())
            .len(),
        2
    );
    let lines = story.ended(1, &Ending::Killed(15), &by_hand());
    assert_eq!(
        lines,
        [
            "node 1 (127.0.0.1:5001) was ended by signal 15",
            "  start it again with: kvd --port 5000",
            "1 of 3 nodes run, and a majority is 2: writes and quorum reads wait for more of them"
        ]
    );
}

#[test]
fn a_leader_that_is_frozen_is_told_and_an_old_one_that_wakes_up_does_not_lead() {
    let mut story = begun();
    let silent = Sighting { node: 0, seen: Seen::Silent };
    assert_eq!(story.seen(&silent), ["node 0 (127.0.0.1:5000) does not answer, although it runs"]);
    assert_eq!(story.seen(&silent), Vec::<String>::new());
    assert_eq!(story.seen(&status(2, NodeRole::Leader, 2, 2)), ["127.0.0.1:5002 leads (epoch 2)"]);
    assert_eq!(story.seen(&status(0, NodeRole::Leader, 1, 0)), ["node 0 (127.0.0.1:5000) answers again"]);
    assert_eq!(story.seen(&status(0, NodeRole::Follower, 2, 2)), Vec::<String>::new());
}
