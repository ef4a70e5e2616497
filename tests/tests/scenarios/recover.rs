//! Most nodes of a cluster are lost for good: a new one is made from what is left, and what it lacks is known.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use quorumkv_client::Version;
use quorumkv_tests::cluster::Cluster;
use quorumkv_tests::zookeeper::ZooKeeper;
use serde_json::Value;

use crate::contents::{check_serving, wait_identical};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_which_one_old_node_is_left_goes_on_from_what_that_has() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let old = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&old, "load", 4, 100);
    load.progress(300).await?;
    let left = (old.leader().await? + 1) % 3;
    old.kill(left)?;
    load.progress(300).await?;
    let record = load.stop().await?;
    let lost = [(left + 1) % 3, (left + 2) % 3];
    lost.iter().try_for_each(|&i| old.kill(i))?;

    let new = Cluster::builder().nodes(1).spares(2).root("/new").prepare(&zookeeper.connect_string()).await?;
    let report = recover(&old, &[left], &new, &[]).await?;
    let kept_to: u64 = text(&report, "kept_to")?.parse()?;
    ensure!(text(&report, "may_be_lost_after")? == kept_to.to_string(), "{report}");
    let contents = grow(&new).await?;
    let (kept, missing) = record.kept_to(Version::new(kept_to), &contents);
    ensure!(kept >= 300 && missing >= 300, "{kept} writes are kept, {missing} are lost: {report}");
    check_serving(&new, &[0, 1, 2]).await?;
    Ok(new.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_four_nodes_hold_everything_that_was_acknowledged() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let old = Cluster::builder().nodes(4).start(&zookeeper).await?;
    let load = Load::start(&old, "load", 4, 100);
    load.progress(300).await?;
    let leader = old.leader().await?;
    // They die in the middle of writes.
    [leader, (leader + 1) % 4].iter().try_for_each(|&i| old.kill(i))?;
    let record = load.stop().await?;
    let left = [(leader + 2) % 4, (leader + 3) % 4];
    left.iter().try_for_each(|&i| old.kill(i))?;

    let new = Cluster::builder().nodes(1).spares(2).root("/new").prepare(&zookeeper.connect_string()).await?;
    let report = recover(&old, &left, &new, &[]).await?;
    ensure!(report["may_be_lost_after"].is_null(), "{report}");
    record.verify(&grow(&new).await?)?;
    Ok(new.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_should_not_be_recovered_is_refused_and_nothing_is_made() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let old = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let other = Cluster::builder().nodes(1).root("/other").start(&zookeeper).await?;
    old.client().put("key", "value").await?;
    let new = Cluster::builder().nodes(1).root("/new").prepare(&zookeeper.connect_string()).await?;
    let refused = async |directories: &[&Cluster], of: &[usize], more: &[&str], code: i32, why: &str| {
        let paths = directories.iter().zip(of).map(|(cluster, &i)| cluster.data_dir(i).display().to_string());
        let output = run(&paths.collect::<Vec<_>>(), &new, more).await?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(code) && told.contains(why), "{:?}: {told}", output.status);
        ensure!(told.trim_end().lines().count() == 1, "it is told in one line: {told}");
        ensure!(!new.data_dir(0).exists(), "something was made: {told}");
        Ok::<_, anyhow::Error>(())
    };
    refused(&[&old], &[0], &[], 4, "in use").await?;
    for i in 0..3 {
        old.terminate(i).await?;
    }
    refused(&[&old, &old], &[0, 1], &[], 4, "start them").await?;
    refused(&[&old, &old], &[0, 0], &[], 4, "of one node").await?;
    other.terminate(0).await?;
    refused(&[&old, &other], &[0, 0], &[], 4, "recover one cluster at a time").await?;
    let output = run(&["/".to_owned()], &new, &[]).await?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).starts_with("{\"error\":"), "{output:?}");

    let dry = recover(&old, &[0], &new, &["--dry-run"]).await?;
    ensure!(dry["made"].is_null() && !new.data_dir(0).exists(), "{dry}");
    let forced = recover(&old, &[0, 1], &new, &["--force"]).await?;
    ensure!(forced["may_be_lost_after"].is_null() && !forced["made"].is_null(), "{forced}");
    let output = run(&[old.data_dir(0).display().to_string()], &new, &[]).await?;
    ensure!(output.status.code() == Some(2), "a directory that is there is used: {output:?}");
    Ok(())
}

/// Makes the first node's directory of `new` from those of `left`; returns the report.
async fn recover(old: &Cluster, left: &[usize], new: &Cluster, more: &[&str]) -> Result<Value> {
    let paths: Vec<String> = left.iter().map(|&i| old.data_dir(i).display().to_string()).collect();
    let output = run(&paths, new, more).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

async fn run(directories: &[String], new: &Cluster, more: &[&str]) -> Result<Output> {
    let to = new.data_dir(0).display().to_string();
    let mut arguments = vec!["recover", "-o", "json", "--to", &to, "--address", new.endpoint(0)];
    arguments.extend(directories.iter().map(String::as_str));
    arguments.extend(more);
    Ok(new.kvctl(&arguments).await?)
}

/// Starts the new cluster, adds its other nodes, and returns what all of them hold.
async fn grow(new: &Cluster) -> Result<crate::contents::Contents> {
    new.start_node(0)?;
    new.wait_node_ready(0).await?;
    for i in 1..new.size() {
        new.start_node(i)?;
        let output = new.kvctl(&["-e", new.endpoint(0), "member", "add", new.endpoint(i)]).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    new.wait_ready().await?;
    wait_identical(new).await
}

fn text<'a>(report: &'a Value, name: &str) -> Result<&'a str> {
    report[name].as_str().with_context(|| format!("{name} in {report}"))
}
