//! Whether anything is wrong with what came of a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use quorumkv_client::{Client, Consistency, ScanOptions};
use quorumkv_history::{Action, Checked, Operation, Outcome};
use quorumkv_tests::cluster::wait_until;

use crate::clients::read;
use crate::cluster::{Cluster, without_names};
use crate::recorder::Recorder;

/// How long one of the last reads may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long nodes may take until all have applied the same.
const IDENTICAL: Duration = Duration::from_secs(60);

/// Clients of the last reads: the history knows none with such numbers.
const LAST_CLIENTS: u32 = 1 << 31;

/// Reads every key at every node, into the history as well, and compares what the nodes have. Returns what is wrong.
///
/// # Errors
/// The history cannot be written.
pub(crate) async fn read_everything(
    cluster: &Arc<Cluster>,
    recorder: &Arc<Recorder>,
    keys: &[String],
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for number in cluster.members() {
        let client = client_of(cluster, number)?;
        for key in keys {
            let called = recorder.now();
            let outcome = read(&client, key).await;
            let failed = outcome == Outcome::Failed;
            if failed {
                problems.push(format!("n{number} does not answer a read of {key} although nothing is wrong"));
            }
            let returned = Some(recorder.now());
            let client = LAST_CLIENTS + u32::try_from(number).context("few nodes")?;
            let action = Action::Get;
            recorder.add(Operation { client, key: key.clone(), called, returned, action, outcome })?;
            if failed {
                // The other keys would only take as long.
                break;
            }
        }
        client.close().await;
    }
    if let Err(error) = identical(cluster).await {
        problems.push(format!("the nodes do not hold the same: {error:#}"));
    }
    Ok(problems)
}

/// Waits until every node has applied the same.
async fn identical(cluster: &Arc<Cluster>) -> Result<()> {
    let same = async || -> Result<()> {
        let mut first = None;
        for number in cluster.members() {
            let contents = contents(cluster, number).await?;
            let expected = first.get_or_insert_with(|| contents.clone());
            if let Some(key) =
                expected.keys().chain(contents.keys()).find(|&key| expected.get(key) != contents.get(key))
            {
                anyhow::bail!("n{number} has another {key}");
            }
        }
        Ok(())
    };
    Ok(wait_until(IDENTICAL, "all nodes have applied the same", same).await?)
}

/// What a node has applied: keys with their versions and values.
async fn contents(cluster: &Cluster, number: usize) -> Result<BTreeMap<String, (u64, Vec<u8>)>> {
    let client = client_of(cluster, number)?;
    let mut pages =
        client.pages("", ScanOptions { consistency: Consistency::Local, ..ScanOptions::default() });
    let mut contents = BTreeMap::new();
    while let Some(page) = pages.next().await {
        for item in page?.items {
            let key = String::from_utf8_lossy(&item.key).into_owned();
            contents.insert(key, (item.value.version.get(), item.value.value.to_vec()));
        }
    }
    client.close().await;
    Ok(contents)
}

fn client_of(cluster: &Cluster, number: usize) -> Result<Client> {
    let builder = Client::builder([cluster.node(number).endpoint()]).name("chaos-last");
    Ok(builder.timeout(TIMEOUT).connect()?)
}

/// Nodes that have found a contradiction in themselves.
pub(crate) fn panics(cluster: &Cluster) -> Vec<String> {
    let panics = cluster.testbed().nodes().iter().flat_map(|node| {
        let log = node.logged();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect();
        lines.into_iter().map(move |line| format!("n{} panicked: {line}", node.number()))
    });
    panics.collect()
}

/// Why nodes have given up who they were, and how often.
pub(crate) fn losses(cluster: &Cluster) -> BTreeMap<String, u64> {
    const WORDS: &str = "a part of what this node had on disk is lost: ";
    let mut losses = BTreeMap::new();
    for node in cluster.testbed().nodes() {
        for line in node.logged().lines() {
            let why = line.split_once(WORDS).and_then(|(_, rest)| rest.split_once(". It begins anew"));
            if let Some((why, _)) = why {
                *losses.entry(without_names(why)).or_default() += 1;
            }
        }
    }
    losses
}

/// Checks a history. A violation is shown on a page of its own, and returned as text.
///
/// # Errors
/// The page cannot be written.
pub(crate) fn check(operations: &[Operation], page: &Path) -> Result<Result<Checked, String>> {
    match quorumkv_history::check(operations) {
        Ok(checked) => Ok(Ok(checked)),
        Err(violation) => {
            let html = quorumkv_history::html(&violation, operations);
            fs::write(page, html).with_context(|| format!("write {}", page.display()))?;
            Ok(Err(format!("{violation}\nThe timeline is in {}.", page.display())))
        }
    }
}
