//! Epochs, members and the first configuration, with many nodes at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use kvd::coordination::{AllocateEpochError, Members};
use quorumkv_tests::zookeeper::ZooKeeper;
use tokio::task::JoinSet;

use crate::node::{Node, Observer, PATIENCE, Place};
use crate::shared_zookeeper;

const NODES: u16 = 8;

async fn nodes(zookeeper: &ZooKeeper, test: &str) -> Vec<Node> {
    let place = Place::new(&zookeeper.connect_string(), test);
    let mut nodes = Vec::new();
    for i in 0..NODES {
        nodes.push(Node::start(&place, 5000 + i).await);
    }
    nodes
}

#[tokio::test]
async fn concurrent_allocators_get_distinct_increasing_epochs_whatever_breaks() {
    const EACH: usize = 10;
    let zookeeper = shared_zookeeper();
    let nodes = nodes(&zookeeper, "epochs").await;
    let mut allocating = JoinSet::new();
    for node in &nodes {
        let coordinator = node.coordinator.clone();
        allocating.spawn(async move {
            let mut epochs = vec![100];
            for _ in 0..EACH {
                let above = epochs.last().copied().unwrap_or_default();
                epochs.push(coordinator.allocate_epoch(above, PATIENCE).await.expect("allocate an epoch"));
            }
            epochs.split_off(1)
        });
    }
    // Meanwhile one connection after the other breaks, so that replies get lost.
    let mut all = Vec::new();
    let mut turn = nodes.iter().cycle();
    while !allocating.is_empty() {
        let node = turn.next().expect("an endless cycle");
        node.proxy.cut();
        tokio::time::sleep(Duration::from_millis(1)).await;
        node.proxy.restore();
        tokio::time::sleep(Duration::from_millis(5)).await;
        while let Some(epochs) = allocating.try_join_next() {
            let epochs = epochs.expect("no panic");
            assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
            all.extend(epochs);
        }
    }
    assert_eq!(all.len(), EACH * usize::from(NODES));
    assert!(all.iter().all(|&epoch| epoch > 100));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "given out twice: {all:?}");
}

#[tokio::test]
async fn an_epoch_is_above_what_is_asked_and_what_is_stored() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "above").await;
    let node = Node::start(&observer.place, 5000).await;
    let path = format!("{}/epoch", observer.place.root);
    assert_eq!(node.coordinator.allocate_epoch(0, PATIENCE).await, Ok(1));
    assert_eq!(node.coordinator.allocate_epoch(0, PATIENCE).await, Ok(2));
    assert_eq!(node.coordinator.allocate_epoch(41, PATIENCE).await, Ok(42));
    assert_eq!(node.coordinator.allocate_epoch(7, PATIENCE).await, Ok(43));
    assert_eq!(observer.client.get_data(&path).await.expect("read").0, b"43");

    let exhausted = Err(AllocateEpochError::Exhausted(u64::MAX));
    assert_eq!(node.coordinator.allocate_epoch(u64::MAX, PATIENCE).await, exhausted);
    observer.client.set_data(&path, b"forty", None).await.expect("spoil it");
    let malformed = AllocateEpochError::Malformed { path, data: "forty".to_owned() };
    assert_eq!(node.coordinator.allocate_epoch(0, PATIENCE).await, Err(malformed));
    node.withdraw().await;
}

#[tokio::test]
async fn racing_creators_agree_on_one_configuration() {
    let zookeeper = shared_zookeeper();
    let nodes = nodes(&zookeeper, "configuration").await;
    assert_eq!(nodes[0].coordinator.configuration(PATIENCE).await, Ok(None));
    let mut creating = JoinSet::new();
    for (i, node) in nodes.iter().enumerate() {
        let coordinator = node.coordinator.clone();
        let mine = vec![u8::try_from(i).expect("a few nodes"); 100];
        creating.spawn(async move { coordinator.create_configuration_once(&mine, PATIENCE).await });
    }
    let agreed: BTreeSet<Vec<u8>> =
        creating.join_all().await.into_iter().map(|stored| stored.expect("create or read")).collect();
    assert_eq!(agreed.len(), 1, "{agreed:?}");
    for node in nodes {
        assert_eq!(node.coordinator.configuration(PATIENCE).await.expect("read").as_ref(), agreed.first());
        node.withdraw().await;
    }
}

#[tokio::test]
async fn nodes_register_once_and_are_awaited() {
    let zookeeper = shared_zookeeper();
    let nodes = nodes(&zookeeper, "members").await;
    assert_eq!(nodes[0].coordinator.members(PATIENCE).await, Ok(Members::new()));
    let mut awaiting = JoinSet::new();
    for node in &nodes {
        let coordinator = node.coordinator.clone();
        awaiting.spawn(async move { coordinator.await_members(usize::from(NODES), PATIENCE).await });
    }
    let mut expected = Members::new();
    for (i, node) in nodes.iter().enumerate() {
        let id = u64::MAX - u64::try_from(i).expect("a few nodes");
        for _ in 0..2 {
            node.coordinator.register(id, &node.address, PATIENCE).await.expect("register");
        }
        expected.insert(id, node.address.clone());
    }
    for members in awaiting.join_all().await {
        assert_eq!(members.as_ref(), Ok(&expected));
    }

    // A node that has moved says so under the id that it has.
    let moved = "[::1]:6000".parse().expect("an address");
    nodes[0].coordinator.register(u64::MAX, &moved, PATIENCE).await.expect("register again");
    expected.insert(u64::MAX, moved);
    assert_eq!(nodes[1].coordinator.members(PATIENCE).await, Ok(expected));
    for node in nodes {
        node.withdraw().await;
    }
}
