//! ZooKeeper's own servers stop, lose everything, or elect another of them.

use std::sync::Arc;
use std::time::Duration;

use kvd::coordination::{Event, SessionState};
use quorumkv_tests::zookeeper::{ZooKeeper, ZooKeeperError};

use crate::node::{LONG_SESSION, Node, Observer, PATIENCE};

/// Runs one of the harness's functions, all of which block, beside the nodes.
async fn control(
    zookeeper: &Arc<ZooKeeper>,
    action: impl FnOnce(&ZooKeeper) -> Result<(), ZooKeeperError> + Send + 'static,
) {
    let zookeeper = zookeeper.clone();
    let done = tokio::task::spawn_blocking(move || action(&zookeeper)).await;
    done.expect("no panic").expect("control ZooKeeper");
}

async fn start() -> Arc<ZooKeeper> {
    let started = tokio::task::spawn_blocking(|| ZooKeeper::start(1)).await;
    Arc::new(started.expect("no panic").expect("start ZooKeeper"))
}

/// Nodes that have enrolled one after the other; the sessions, the first one elected.
async fn enrol(observer: &Observer) -> (Vec<Node>, Vec<i64>) {
    let (mut nodes, mut sessions) = (Vec::new(), Vec::new());
    for port in 5000..5003 {
        let mut node = Node::start(&observer.place, port).await;
        sessions.push(node.until_connected().await);
        node.until(&Event::Leader(Some("127.0.0.1:5000".to_owned()))).await;
        nodes.push(node);
    }
    (nodes, sessions)
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_stopped_for_longer_than_every_session_change_nothing() {
    let zookeeper = start().await;
    let mut observer = Observer::connect(&zookeeper.connect_string(), "stopped").await;
    // The nodes have this long from the servers' restart, on a machine that may be busy.
    observer.place.session_timeout = Duration::from_secs(5);
    let (mut nodes, sessions) = enrol(&observer).await;
    observer.until_contenders(&nodes.iter().collect::<Vec<_>>()).await;

    control(&zookeeper, ZooKeeper::stop_all).await;
    for node in &mut nodes {
        node.until(&Event::Session(SessionState::Lost)).await;
    }
    assert_eq!(nodes[0].event().await, Event::Unseated);
    control(&zookeeper, ZooKeeper::start_all).await;

    // The servers still know the sessions, and each node asks for its own before it asks for a new one.
    for (node, session) in nodes.iter_mut().zip(sessions) {
        assert_eq!(node.until_connected().await, session);
    }
    nodes[0].until(&Event::Elected).await;
    let observer = observer.elsewhere(&zookeeper.connect_string()).await;
    observer.until_contenders(&nodes.iter().collect::<Vec<_>>()).await;
    for mut node in nodes.drain(1..) {
        assert!(!node.events_so_far().contains(&Event::Elected));
        node.withdraw().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zookeeper_that_has_lost_everything_is_filled_again() {
    let zookeeper = start().await;
    let observer = Observer::connect(&zookeeper.connect_string(), "wiped").await;
    let (mut nodes, _) = enrol(&observer).await;
    let epoch = nodes[0].coordinator.allocate_epoch(17, PATIENCE).await.expect("allocate an epoch");
    control(&zookeeper, ZooKeeper::stop_all).await;
    for node in &mut nodes {
        node.until(&Event::Session(SessionState::Lost)).await;
    }
    drop(zookeeper);

    let empty = start().await;
    for node in &mut nodes {
        node.proxy.retarget(&empty.connect_string());
        node.until_connected().await;
    }
    let observer = observer.elsewhere(&empty.connect_string()).await;
    while observer.contenders().await.len() < nodes.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let first = observer.contenders().await.remove(0);
    let elected = nodes.iter_mut().find(|node| node.address.to_string() == first).expect("one of ours leads");
    elected.until(&Event::Elected).await;
    // The counter begins again; what the caller has seen keeps it rising.
    assert_eq!(elected.coordinator.allocate_epoch(epoch, PATIENCE).await, Ok(epoch + 1));
    for node in &mut nodes {
        assert!(!node.events_so_far().contains(&Event::Elected), "only the lowest is elected");
    }
}

/// What needs several servers: with ZooKeeper in Docker in any case.
mod docker_only {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_ensemble_that_changes_its_leader_keeps_every_place() {
        let started = tokio::task::spawn_blocking(|| ZooKeeper::in_docker(3)).await;
        let zookeeper = Arc::new(started.expect("no panic").expect("start ZooKeeper"));
        let mut observer = Observer::connect(&zookeeper.connect_string(), "ensemble").await;
        // Long enough for the servers' own election on a busy machine.
        observer.place.session_timeout = LONG_SESSION;
        let (nodes, _) = enrol(&observer).await;
        let order: Vec<&Node> = nodes.iter().collect();
        observer.until_contenders(&order).await;

        control(&zookeeper, |zookeeper| {
            let leader = zookeeper.leader()?.expect("an ensemble that serves has a leader");
            zookeeper.kill(leader)
        })
        .await;
        let epochs = [
            nodes[0].coordinator.allocate_epoch(0, PATIENCE).await,
            nodes[1].coordinator.allocate_epoch(0, PATIENCE).await,
            nodes[2].coordinator.allocate_epoch(0, PATIENCE).await,
        ];
        assert!(
            epochs.iter().all(Result::is_ok) && epochs.is_sorted_by_key(|epoch| epoch.clone().ok()),
            "{epochs:?}"
        );
        observer.until_contenders(&order).await;
    }
}
