//! The coordination against a real ZooKeeper: election, outages, epochs and registration.

mod election;
mod node;
mod outage;
mod proxy;
mod registry;

/// A root znode that no other test uses, in this run or another.
fn root(test: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("/{test}-{}", since.expect("a clock after 1970").as_nanos())
}

/// Address of the ZooKeeper that all tests of this binary share.
fn zookeeper() -> String {
    std::env::var("KV_TEST_ZOOKEEPER").expect("KV_TEST_ZOOKEEPER=host:port")
}
