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

/// What names of the log's segments end with.
const SEGMENT: &str = ".wal";

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
#[derive(Default, Debug)]
pub(crate) struct Losses {
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Those that nothing explains which was done to the disks.
    pub(crate) problems: Vec<String>,
}

/// What nodes have logged of losses. A wiped disk loses nothing that a node could know of, so all is from flipped bytes.
pub(crate) fn losses(cluster: &Cluster) -> Losses {
    let mut losses = Losses::default();
    for node in cluster.testbed().nodes() {
        let (log, number) = (node.logged(), node.number());
        let lost: Vec<&str> = lost(&log).collect();
        let unexplained = unexplained(&lost, &cluster.damaged(number));
        losses.problems.extend(
            unexplained.iter().map(|why| format!("n{number} gave up who it was without a reason: {why}")),
        );
        for why in lost {
            *losses.reasons.entry(without_names(why)).or_default() += 1;
        }
    }
    losses
}

/// What a log says of lost parts.
fn lost(log: &str) -> impl Iterator<Item = &str> {
    const WORDS: &str = "a part of what this node had on disk is lost: ";
    log.lines().filter_map(|line| {
        let (why, _) = line.split_once(WORDS)?.1.split_once(". It begins anew")?;
        Some(why)
    })
}

/// Of a node's losses those that no flipped byte explains: in another file, or more than there were flips. A node that dies
/// while it gives up who it was finds its log missing the next time, and has not spoken of it before.
fn unexplained<'a>(lost: &[&'a str], flipped: &[String]) -> Vec<&'a str> {
    let mut left = flipped.len();
    let mut explains = |why: &str| {
        let segment = why.split(['/', ' ']).find(|word| word.ends_with(SEGMENT));
        let is_of_the_log =
            why.starts_with("the log") && segment.is_none_or(|segment| flipped.iter().any(|f| f == segment));
        if is_of_the_log && left > 0 {
            left -= 1;
            return true;
        }
        false
    };
    lost.iter().copied().filter(|why| !explains(why)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2026-11-30T09:54:29Z ERROR a part of what this node had on disk is lost: the log: the log is damaged in \
        /tmp/n0/data/log/0000000000000002.wal at offset 553168. It begins anew under another identity, to be restored";

    #[test]
    fn a_loss_is_explained_by_one_flip_of_the_file_that_it_names() {
        let log = format!("starts\n{LINE}\nleads\n");
        let lost: Vec<&str> = lost(&log).collect();
        assert_eq!(lost.len(), 1);
        let flips = |names: &[&str]| names.iter().map(|name| format!("{name:0>16}.wal")).collect::<Vec<_>>();
        assert_eq!(unexplained(&lost, &flips(&["1", "2"])), [""; 0]);
        assert_eq!(unexplained(&lost, &flips(&["1"])), lost);
        assert_eq!(unexplained(&lost, &[]), lost);
        assert_eq!(unexplained(&[lost[0], lost[0]], &flips(&["2"])), lost, "one flip, two losses");
        // It died with its log aside and its identity still there.
        assert_eq!(unexplained(&["the log: there is none"], &flips(&["2"])), [""; 0]);
        assert_eq!(unexplained(&["the state: it is damaged"], &flips(&["2"])), ["the state: it is damaged"]);
    }
}
