//! Who leads: the lowest znode, and what happens when it goes.

use kvd::coordination::{Event, SessionState};
use zookeeper_client::{Acls, CreateMode};

use crate::node::{LONG_SESSION, Node, Observer, PATIENCE};
use crate::shared_zookeeper;

/// Three nodes that have enrolled in the order of their ports, the first elected.
async fn three(observer: &Observer) -> [Node; 3] {
    let mut a = Node::start(&observer.place, 5000).await;
    a.until(&Event::Elected).await;
    let b = Node::start(&observer.place, 5001).await;
    observer.until_contenders(&[&a, &b]).await;
    let c = Node::start(&observer.place, 5002).await;
    observer.until_contenders(&[&a, &b, &c]).await;
    [a, b, c]
}

fn leader(node: &Node) -> Event {
    Event::Leader(Some(node.address.to_string()))
}

#[tokio::test]
async fn lowest_leads_and_each_departure_elects_the_next() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "departures").await;
    let [mut a, mut b, mut c] = three(&observer).await;
    a.until(&leader(&a)).await;
    assert!(!b.until(&leader(&a)).await.contains(&Event::Elected));
    assert!(!c.until(&leader(&a)).await.contains(&Event::Elected));

    // A withdrawn node's znode is gone when the call returns: nobody waits for a session to expire.
    a.withdraw().await;
    observer.until_contenders(&[&b, &c]).await;
    b.until(&Event::Elected).await;

    b.coordinator.resign(PATIENCE).await.expect("resign");
    c.until(&Event::Elected).await;
    observer.until_contenders(&[&c, &b]).await;
    b.until(&Event::Unseated).await;
    b.until(&leader(&c)).await;

    c.withdraw().await;
    assert!(!b.until(&Event::Elected).await.contains(&Event::Unseated), "each Unseated ends one Elected");
    b.withdraw().await;
    assert_eq!(observer.contenders().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_node_alone_that_resigns_leads_again() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "alone").await;
    let mut a = Node::start(&observer.place, 5000).await;
    a.until(&Event::Elected).await;
    let first = observer.lowest().await;
    a.coordinator.resign(PATIENCE).await.expect("resign");
    a.until(&Event::Unseated).await;
    a.until(&Event::Elected).await;
    assert_ne!(observer.lowest().await, first);
    a.withdraw().await;
}

#[tokio::test]
async fn who_begins_anew_gets_another_session_and_enrols_at_the_tail() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "anew").await;
    let mut a = Node::start(&observer.place, 5000).await;
    let session = a.until_connected().await;
    a.until(&Event::Elected).await;
    let mut b = Node::start(&observer.place, 5001).await;
    observer.until_contenders(&[&a, &b]).await;
    a.coordinator.begin_anew();
    a.until(&Event::Session(SessionState::Lost)).await;
    assert_ne!(a.until_connected().await, session);
    b.until(&Event::Elected).await;
    observer.until_contenders(&[&b, &a]).await;
    for node in [a, b] {
        node.withdraw().await;
    }
}

#[tokio::test]
async fn a_znode_deleted_by_someone_else_unseats_and_its_node_enrols_at_the_tail() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "deleted").await;
    let [mut a, mut b, c] = three(&observer).await;
    observer.client.delete(&observer.lowest().await, None).await.expect("delete the leader's znode");
    a.until(&Event::Unseated).await;
    b.until(&Event::Elected).await;
    observer.until_contenders(&[&b, &c, &a]).await;
    for node in [a, b, c] {
        node.withdraw().await;
    }
}

#[tokio::test]
async fn a_follower_that_goes_elects_nobody_and_the_one_behind_it_watches_on() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "middle").await;
    let [a, b, mut c] = three(&observer).await;
    b.withdraw().await;
    observer.until_contenders(&[&a, &c]).await;
    a.withdraw().await;
    c.until(&Event::Elected).await;
    c.withdraw().await;
}

#[tokio::test]
async fn a_restarted_node_removes_the_znode_of_its_former_session() {
    let zookeeper = shared_zookeeper();
    let mut observer = Observer::connect(&zookeeper.connect_string(), "restarted").await;
    observer.place.session_timeout = LONG_SESSION;
    let mut former = Node::start(&observer.place, 5000).await;
    former.until(&Event::Elected).await;
    let left_behind = observer.lowest().await;
    former.proxy.cut();

    let mut restarted = Node::start(&observer.place, 5000).await;
    restarted.until(&Event::Elected).await;
    observer.until_contenders(&[&restarted]).await;
    assert_ne!(observer.lowest().await, left_behind);
    restarted.withdraw().await;
}

#[tokio::test]
async fn znodes_that_are_not_contenders_are_ignored() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "foreign").await;
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for name in ["lock", "kv_0000000000", "kv:5000_1"] {
        let path = format!("{}/election", observer.place.root);
        observer.client.mkdir(&path, &options).await.expect("make the folder");
        observer.client.create(&format!("{path}/{name}"), &[], &options).await.expect("create");
    }
    let mut a = Node::start(&observer.place, 5000).await;
    a.until(&Event::Elected).await;
    a.withdraw().await;
}
