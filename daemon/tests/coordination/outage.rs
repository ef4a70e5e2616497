//! Connections, sessions and servers that go and come back.

use std::time::Duration;

use kvd::coordination::{EnrolPolicy, Event, RegistryError, ResignError, SessionState};

use crate::node::{LONG_SESSION, Node, Observer, PATIENCE, Place};
use crate::shared_zookeeper;

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_connection_that_breaks_keeps_its_session_and_its_place() {
    let zookeeper = shared_zookeeper();
    let mut observer = Observer::connect(&zookeeper.connect_string(), "blip").await;
    observer.place.session_timeout = LONG_SESSION;
    let mut a = Node::start(&observer.place, 5000).await;
    let session = a.until_connected().await;
    a.until(&Event::Elected).await;
    let znode = observer.lowest().await;
    for _ in 0..5 {
        a.proxy.cut();
        a.until(&Event::Session(SessionState::Disconnected)).await;
        a.proxy.restore();
        assert_eq!(a.until_connected().await, session);
        // An answer shows that the connection serves again, and is not just accepted.
        a.coordinator.members(PATIENCE).await.expect("list members");
    }
    assert_eq!(observer.lowest().await, znode);
    a.coordinator.resign(PATIENCE).await.expect("resign");
    let lost = Event::Session(SessionState::Lost);
    assert!(!a.until(&Event::Unseated).await.contains(&lost), "the resignation alone unseats");
    a.withdraw().await;
}

#[tokio::test]
async fn resignations_amid_broken_connections_leave_one_znode() {
    let zookeeper = shared_zookeeper();
    let mut observer = Observer::connect(&zookeeper.connect_string(), "amid").await;
    observer.place.session_timeout = LONG_SESSION;
    // A create on the old connection can take effect after all that is done on the new one.
    observer.place.audit_interval = SHORT;
    let mut a = Node::start(&observer.place, 5000).await;
    let session = a.until_connected().await;
    for cut_after in 0..20 {
        // Delete, sync, list and create follow each other within milliseconds; the cut falls among them.
        let resign = a.coordinator.resign(SHORT);
        let cut = async {
            tokio::time::sleep(Duration::from_millis(cut_after)).await;
            a.proxy.cut();
        };
        let _whatever_came_of_it = tokio::join!(resign, cut);
        a.proxy.restore();
        a.coordinator.members(PATIENCE).await.expect("list members");
        observer.until_contenders(&[&a]).await;
        for event in a.events_so_far() {
            if let Event::Session(SessionState::Connected { session: again }) = event {
                assert_eq!(again, session);
            }
        }
    }
    a.withdraw().await;
}

#[tokio::test]
async fn a_node_cut_off_loses_its_place_when_its_session_expires() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "expired").await;
    let mut a = Node::start(&observer.place, 5000).await;
    let session = a.until_connected().await;
    a.until(&Event::Elected).await;
    let mut b = Node::start(&observer.place, 5001).await;
    observer.until_contenders(&[&a, &b]).await;

    a.proxy.cut();
    b.until(&Event::Elected).await;
    a.until(&Event::Session(SessionState::Disconnected)).await;
    a.until(&Event::Session(SessionState::Lost)).await;
    assert_eq!(a.event().await, Event::Unseated);

    assert!(matches!(a.coordinator.resign(SHORT).await, Err(ResignError::Deadline(_))));
    let refused = a.coordinator.members(SHORT).await;
    assert!(matches!(refused, Err(RegistryError::Deadline { .. })), "{refused:?}");

    a.proxy.restore();
    assert_ne!(a.until_connected().await, session);
    observer.until_contenders(&[&b, &a]).await;
    a.withdraw().await;
    b.withdraw().await;
}

#[tokio::test]
async fn when_every_session_is_lost_waiting_nodes_let_the_incumbent_enrol_first() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "incumbent").await;
    let mut incumbent = Node::start(&observer.place, 5000).await;
    incumbent.until(&Event::Elected).await;
    let mut others = Vec::new();
    for port in [5001, 5002] {
        let node = Node::start(&observer.place, port).await;
        node.coordinator
            .set_enrolment(EnrolPolicy::Wait { incumbent: incumbent.address.to_string(), at_most: PATIENCE });
        others.push(node);
    }
    // Neither waits, because the incumbent is in front.
    while observer.contenders().await.len() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    incumbent.proxy.cut();
    for node in &mut others {
        node.proxy.cut();
    }
    incumbent.until(&Event::Session(SessionState::Lost)).await;
    for node in &mut others {
        node.until(&Event::Session(SessionState::Lost)).await;
    }
    observer.until_contenders(&[]).await;

    for node in &mut others {
        node.proxy.restore();
        node.until_connected().await;
        // They are there, and see that nobody leads, and yet they wait.
        node.until(&Event::Leader(None)).await;
    }
    assert_eq!(observer.contenders().await, Vec::<String>::new());
    incumbent.proxy.restore();
    incumbent.until(&Event::Elected).await;
    while observer.contenders().await.len() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for mut node in others {
        assert!(!node.events_so_far().contains(&Event::Elected));
        node.withdraw().await;
    }
    incumbent.withdraw().await;
}

#[tokio::test]
async fn a_waiting_node_enrols_when_told_and_when_its_time_is_up() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "waiting").await;
    let wait = |at_most| EnrolPolicy::Wait { incumbent: "127.0.0.1:5009".to_owned(), at_most };

    let mut told = Node::start_cut_off(&observer.place, 5000).await;
    told.coordinator.set_enrolment(wait(PATIENCE * 100));
    told.proxy.restore();
    told.until(&Event::Leader(None)).await;
    assert_eq!(observer.contenders().await, Vec::<String>::new());
    told.coordinator.set_enrolment(EnrolPolicy::Enrol);
    told.until(&Event::Elected).await;
    told.withdraw().await;

    let mut late = Node::start_cut_off(&observer.place, 5001).await;
    late.coordinator.set_enrolment(wait(SHORT));
    late.proxy.restore();
    late.until(&Event::Leader(None)).await;
    late.until(&Event::Elected).await;
    late.withdraw().await;
}

#[tokio::test]
async fn without_a_zookeeper_a_node_keeps_trying_and_still_leaves_at_once() {
    let zookeeper = shared_zookeeper();
    let place = Place::new(&zookeeper.connect_string(), "nobody");
    let mut patient = Node::start_cut_off(&place, 5000).await;
    assert_eq!(patient.event().await, Event::Session(SessionState::Connecting));
    let refused = patient.coordinator.allocate_epoch(0, SHORT).await;
    assert!(refused.is_err(), "{refused:?}");
    patient.proxy.restore();
    patient.until(&Event::Elected).await;
    patient.withdraw().await;

    let leaving = Node::start_cut_off(&place, 5001).await;
    leaving.withdraw().await;
}

#[tokio::test]
async fn leaving_while_cut_off_says_that_the_session_is_left_to_expire() {
    let zookeeper = shared_zookeeper();
    let observer = Observer::connect(&zookeeper.connect_string(), "cut-off").await;
    let mut a = Node::start(&observer.place, 5000).await;
    a.until(&Event::Elected).await;
    a.proxy.cut();
    a.until(&Event::Session(SessionState::Disconnected)).await;
    assert!(a.coordinator.withdraw(PATIENCE).await.is_err());
    let refused = a.coordinator.members(PATIENCE).await;
    assert!(matches!(refused, Err(RegistryError::Withdrawn { .. })), "{refused:?}");
    observer.until_contenders(&[]).await;
}
