//! What nodes hold, and comparing it.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use quorumkv_client::{Client, Consistency, GetOptions, ReadError, ScanOptions, Version, Versioned};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};

/// A copy of all that a node, or the cluster, holds.
pub(crate) type Contents = BTreeMap<Vec<u8>, Versioned>;

/// Reads without asking anybody else.
pub(crate) const LOCAL: GetOptions = GetOptions { consistency: Consistency::Local, evidence: false };

/// All keys, by pages.
pub(crate) async fn contents(client: &Client, consistency: Consistency) -> Result<Contents, ReadError> {
    let mut contents = Contents::new();
    let options = ScanOptions { consistency, limit: 5_000, ..ScanOptions::default() };
    let mut pages = client.pages("", options);
    while let Some(page) = pages.next().await {
        contents.extend(page?.items.into_iter().map(|item| (item.key.to_vec(), item.value)));
    }
    Ok(contents)
}

/// Waits until every running node holds in its own state what the cluster holds, and returns that. Nobody may be
/// writing.
pub(crate) async fn wait_identical(cluster: &Cluster) -> Result<Contents> {
    let expected = contents(&cluster.client_of(&cluster.running()), Consistency::Quorum).await?;
    for i in cluster.running() {
        let client = cluster.client_of(&[i]);
        let identical = async || -> Result<()> {
            let held = contents(&client, Consistency::Local).await?;
            ensure!(held == expected, "{}", difference(&expected, &held));
            Ok(())
        };
        wait_until(PATIENCE, &format!("node {i} holds what the cluster does"), identical).await?;
    }
    Ok(expected)
}

/// How many keys differ, and the first of them, for people.
fn difference(expected: &Contents, held: &Contents) -> String {
    let keys = expected.keys().chain(held.keys());
    let different: Vec<_> = keys.filter(|key| expected.get(*key) != held.get(*key)).collect();
    let Some(key) = different.first() else { return "nothing differs".to_owned() };
    let version = |contents: &Contents| contents.get(*key).map(|value| value.version);
    format!(
        "{} of {} keys differ; the first, {}, is at {:?} and should be at {:?}",
        different.len(),
        expected.len(),
        String::from_utf8_lossy(key),
        version(held),
        version(expected),
    )
}

/// Checks that a client is answered with this value and version, linearizably.
pub(crate) async fn check(client: &Client, key: &str, value: &str, version: Version) -> Result<()> {
    let got = client.get(key.to_owned()).await?;
    let expected = Versioned { version, value: value.to_owned().into() };
    ensure!(got.value.as_ref() == Some(&expected), "{key} is {:?}, not {expected:?}", got.value);
    Ok(())
}

/// Checks that each of these nodes serves a write and a read, each through a client that knows only that node.
pub(crate) async fn check_serving(cluster: &Cluster, nodes: &[usize]) -> Result<()> {
    for &i in nodes {
        let client = cluster.client_of(&[i]);
        let key = format!("served by {i}");
        let written = client.put(key.clone(), "yes").await?;
        check(&client, &key, "yes", written.version).await?;
        client.close().await;
    }
    Ok(())
}
