//! What scenarios write, remember and compare.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use quorumkv_client::{Client, Consistency, GetOptions, ReadError, ScanOptions, Version, Versioned};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};

/// A copy of all that a node, or the cluster, holds.
pub(crate) type Contents = BTreeMap<Vec<u8>, Versioned>;

/// Reads without asking anybody else.
pub(crate) const LOCAL: GetOptions = GetOptions { consistency: Consistency::Local, evidence: false };

/// All keys that begin with `prefix`.
pub(crate) async fn contents(
    client: &Client,
    prefix: &str,
    consistency: Consistency,
) -> Result<Contents, ReadError> {
    let mut contents = Contents::new();
    let options = ScanOptions { consistency, ..ScanOptions::default() };
    let mut pages = client.pages(prefix.to_owned(), options);
    while let Some(page) = pages.next().await {
        contents.extend(page?.items.into_iter().map(|item| (item.key.to_vec(), item.value)));
    }
    Ok(contents)
}

/// Waits until each of these nodes holds exactly `expected` in its own state.
pub(crate) async fn wait_identical(cluster: &Cluster, nodes: &[usize], expected: &Contents) -> Result<()> {
    for &i in nodes {
        let client = cluster.client_of(&[i]);
        let identical = async || -> Result<()> {
            let held = contents(&client, "", Consistency::Local).await?;
            ensure!(held == *expected, "{}", difference(expected, &held));
            Ok(())
        };
        wait_until(PATIENCE, &format!("node {i} holds what the cluster does"), identical).await?;
    }
    Ok(())
}

/// The first key that differs, for people.
fn difference(expected: &Contents, held: &Contents) -> String {
    let version = |contents: &Contents, key: &[u8]| contents.get(key).map(|value| value.version);
    let keys = expected.keys().chain(held.keys());
    let different = keys.filter(|key| expected.get(*key) != held.get(*key)).collect::<Vec<_>>();
    let Some(key) = different.first() else { return "nothing differs".to_owned() };
    format!(
        "{} of {} keys differ; the first, {}, is at {:?} and should be at {:?}",
        different.len(),
        expected.len(),
        String::from_utf8_lossy(key),
        version(held, key),
        version(expected, key),
    )
}

/// Checks that a node answers `key` with this value and version, linearizably.
pub(crate) async fn check(client: &Client, key: &str, value: &str, version: Version) -> Result<()> {
    let got = client.get(key.to_owned()).await?;
    let expected = Versioned { version, value: value.to_owned().into() };
    ensure!(got.value.as_ref() == Some(&expected), "{key} is {:?}, not {expected:?}", got.value);
    Ok(())
}
