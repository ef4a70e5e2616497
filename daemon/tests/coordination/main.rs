//! The coordination against a real ZooKeeper: election, outages, epochs and registration.

mod election;
mod node;
mod outage;
mod proxy;
mod registry;
mod servers;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use quorumkv_tests::zookeeper::ZooKeeper;

/// One ZooKeeper for all tests that leave it alone: started by the first, removed by the last that still uses it.
fn shared_zookeeper() -> Arc<ZooKeeper> {
    static SHARED: Mutex<Weak<ZooKeeper>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let started = Arc::new(ZooKeeper::start(1).expect("start a ZooKeeper"));
        *shared = Arc::downgrade(&started);
        started
    })
}
