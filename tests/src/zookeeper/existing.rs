//! A path of its own for a test, at a ZooKeeper that runs already.

use std::future::Future;
use std::thread;
use std::time::Duration;

use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::ZooKeeperError;
use super::reserve::random;

/// How long ZooKeeper may take to do as asked.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A path that is created for a test, and deleted with everything below it when dropped.
#[derive(Debug)]
pub(super) struct Existing {
    addresses: String,
    path: String,
    connect_string: String,
}

impl Existing {
    /// Creates the path at the ZooKeeper with these addresses (`host:port[,host:port…][/path]`).
    pub(super) fn connect(addresses: &str) -> Result<Self, ZooKeeperError> {
        let addresses = addresses.trim_end_matches('/').to_owned();
        let path = format!("/quorumkv-tests/{:016x}", random());
        block_on(create(&addresses, &path)).map_err(|source| {
            let (address, source) = (addresses.clone(), Box::new(source));
            ZooKeeperError::Existing { action: "create a path", address, source }
        })?;
        Ok(Self { connect_string: format!("{addresses}{path}"), addresses, path })
    }

    pub(super) fn connect_string(&self) -> &str {
        &self.connect_string
    }
}

impl Drop for Existing {
    fn drop(&mut self) {
        if let Err(source) = block_on(delete(&self.addresses, &self.path)) {
            eprintln!("the path {} stays behind at {}: {source}", self.path, self.addresses);
        }
    }
}

async fn create(addresses: &str, path: &str) -> Result<(), Error> {
    let client = Client::connect(addresses).await?;
    client.mkdir(path, &CreateMode::Persistent.with_acls(Acls::anyone_all())).await
}

/// Deletes a path and all below it, children before their parents.
async fn delete(addresses: &str, path: &str) -> Result<(), Error> {
    let client = Client::connect(addresses).await?;
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        next += 1;
        match client.list_children(&parent).await {
            Ok(children) => found.extend(children.into_iter().map(|child| format!("{parent}/{child}"))),
            Err(Error::NoNode) => {}
            Err(other) => return Err(other),
        }
    }
    for path in found.iter().rev() {
        match client.delete(path, None).await {
            // A daemon that was killed leaves ephemeral znodes; they may vanish by themselves meanwhile.
            Ok(()) | Err(Error::NoNode) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Runs a future to its end within [`TIMEOUT`], from inside a runtime or outside.
fn block_on<F>(future: F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>> + Send,
{
    thread::scope(|scope| {
        let run = || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("build a runtime");
            runtime.block_on(async {
                tokio::time::timeout(TIMEOUT, future).await.unwrap_or(Err(Error::Timeout))
            })
        };
        scope.spawn(run).join().expect("no panic in a ZooKeeper operation")
    })
}
