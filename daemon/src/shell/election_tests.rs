use clap::CommandFactory;
use quorumkv_protocol::{EntryId, Epoch, Version};
use quorumkv_replica::Membership;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, channel, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::config::Config;
use crate::config::flags::CommandLine;
use crate::coordination;
use crate::metrics::Metrics;
use crate::shell::node::Parts;
use crate::state::{Options, State};

/// An election whose ZooKeeper does not answer, with this node's znode the lowest.
struct Seat {
    election: Election,
    done: UnboundedReceiver<Done>,
    _directory: TempDir,
}

fn seat() -> Seat {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().to_str().expect("a path in UTF-8");
    let flags = ["kvd", "--data-dir", path, "--zookeeper", "127.0.0.1:1"];
    let matches = CommandLine::command().try_get_matches_from(flags).expect("flags");
    let config = Config::from_matches(&matches).expect("settings");
    let state = State::open(&directory.path().join("state"), Options::with_cache(1 << 20)).expect("a state");
    let tasks = TaskTracker::new();
    let of_coordination = coordination::Config::new(config.zookeeper.clone(), config.advertise.clone());
    let (coordinator, _) = Coordinator::start(of_coordination, &tasks);
    let node = Node::new(Parts {
        id: NodeId::new(1),
        config,
        state,
        events: channel(1).0,
        routes: Arc::default(),
        metrics: Arc::new(Metrics::new()),
        tasks,
        stopping: CancellationToken::new(),
    });
    #[allow(clippy::disallowed_methods, reason = "a test sends a handful")]
    let (done_in, done) = unbounded_channel();
    let mut election = Election::new(Arc::new(node), coordinator, done_in, Duration::from_secs(1));
    election.seated = true;
    Seat { election, done, _directory: directory }
}

fn status(role: NodeRole) -> Status {
    Status {
        role,
        promise: Epoch::ZERO,
        highest_seen: Epoch::ZERO,
        leader: None,
        leader_heard: Timestamp::ZERO,
        last: EntryId::ZERO,
        committed: Version::ZERO,
        applied: Version::ZERO,
        lag: 0,
        fresh: None,
        restoring: false,
        damaged: false,
        reachable: 1,
        membership: Membership::Voter,
    }
}

#[tokio::test]
async fn a_resignation_that_failed_is_repeated() {
    let mut seat = seat();
    seat.election.resign();
    let event = seat.done.recv().await.expect("an outcome");
    assert!(matches!(event, Done::Resigned(false)), "{event:?}");
    seat.election.on_resigned(false, &status(NodeRole::Follower));
    assert!(seat.election.resigning, "it was the last attempt");
    seat.election.on_resigned(true, &status(NodeRole::Follower));
    assert!(!seat.election.resigning, "it succeeded");
}

#[tokio::test]
async fn a_resignation_is_not_repeated_by_who_lost_the_place_or_leads_again() {
    let mut seat = seat();
    seat.election.resign();
    seat.election.on_resigned(false, &status(NodeRole::Leader));
    assert!(!seat.election.resigning, "it leads with this place");
    seat.election.seated = false;
    seat.election.on_resigned(false, &status(NodeRole::Follower));
    assert!(!seat.election.resigning, "there is no place to give up");
}

#[tokio::test]
async fn who_waits_for_another_in_vain_doubts_what_zookeeper_says() {
    let mut seat = seat();
    let (follower, leader) = (status(NodeRole::Follower), status(NodeRole::Leader));
    let election = &mut seat.election;
    election.seated = false;
    let after = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);
    assert!(!election.is_stuck(&follower, false, after(100)), "without a session there is nothing to doubt");
    election.node.set_zookeeper(CONNECTED);
    assert!(!election.is_stuck(&follower, false, after(103)));
    assert!(
        election.is_stuck(&follower, false, after(104)),
        "two graces of two session timeouts of a second"
    );
    assert!(!election.is_stuck(&follower, false, after(107)), "it has begun anew just now");
    assert!(!election.is_stuck(&follower, true, after(107)), "it hears a leader");
    assert!(!election.is_stuck(&follower, false, after(110)));
    assert!(!election.is_stuck(&leader, false, after(200)), "it leads");
    election.seated = true;
    assert!(!election.is_stuck(&follower, false, after(300)), "it is first itself");
}
