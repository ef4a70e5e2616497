//! Members come and go while the cluster serves.

use std::fs;

use anyhow::{Context, Result, ensure};
use quorumkv_client::{Members, NodeId};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::{LOCAL, wait_identical};
use crate::load::Load;

/// What a node ends with that was removed.
const REMOVED: i32 = 3;

/// What a node ends with whose data directory is a copy of a running one's.
const DUPLICATE: i32 = 4;

/// Runs `kvctl member …`, which has to succeed.
async fn member(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let output = cluster.kvctl(&[&["member"], arguments].concat()).await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "kvctl member {arguments:?} ended with {}: {err}", output.status);
    Ok(out.into_owned())
}

/// Waits for these voters, in any order, and no other member.
async fn wait_voters(cluster: &Cluster, nodes: &[usize]) -> Result<Members> {
    let client = cluster.client_of(nodes);
    let mut expected: Vec<&str> = nodes.iter().map(|&i| cluster.endpoint(i)).collect();
    expected.sort_unstable();
    let as_expected = async || -> Result<Members> {
        let members = client.members().await?;
        let mut found: Vec<&str> =
            members.members.iter().map(|known| known.member.address.as_str()).collect();
        found.sort_unstable();
        let all_vote = members.members.iter().all(|known| known.votes);
        ensure!(all_vote && members.committed && found == expected, "the members are {:?}", members.members);
        Ok(members)
    };
    Ok(wait_until(PATIENCE * 2, &format!("the voters are {nodes:?}"), as_expected).await?)
}

fn id_at(members: &Members, address: &str) -> Result<NodeId> {
    let known = members.members.iter().find(|known| known.member.address == address);
    Ok(known.with_context(|| format!("nobody is at {address}"))?.member.node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_from_one_to_five_and_shrinks_to_three_under_load() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(1).spares(4).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 8, 32);
    load.progress(200).await?;
    for new in 1..5 {
        cluster.start_node(new)?;
        let told = member(&cluster, &["add", cluster.endpoint(new), "-o", "table"]).await?;
        ensure!(told.contains("is a voter"), "{told}");
        let nodes: Vec<_> = (0..=new).collect();
        wait_voters(&cluster, &nodes).await?;
        load.progress(100).await?;
    }
    // The one that leads goes, and then another.
    for _ in 0..2 {
        let leader = cluster.leader().await?;
        member(&cluster, &["remove", cluster.endpoint(leader)]).await?;
        let ended = cluster.wait_ended(leader).await?;
        ensure!(ended.code() == Some(REMOVED), "a removed node ended with {ended}");
        cluster.start_node(leader)?;
        let ended = cluster.wait_ended(leader).await?;
        ensure!(ended.code() == Some(REMOVED), "started again, it ended with {ended}");
        wait_voters(&cluster, &cluster.running()).await?;
        load.progress(100).await?;
    }
    ensure!(cluster.running().len() == 3);
    let record = load.stop().await?;
    record.verify_without_failures(&wait_identical(&cluster).await?)?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_comes_back_under_a_new_identity_during_writes() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 32, 32);
    load.reach(3_000).await?;
    let lost = (cluster.leader().await? + 1) % 3;
    let before = id_at(&wait_voters(&cluster, &[0, 1, 2]).await?, cluster.endpoint(lost))?;
    cluster.kill(lost)?;
    fs::remove_dir_all(cluster.data_dir(lost))?;
    cluster.start_node(lost)?;
    load.reach(10_000).await?;
    let members = wait_voters(&cluster, &[0, 1, 2]).await?;
    wait_until(PATIENCE, "the old identity is gone", async || {
        let members = cluster.client().members().await?;
        ensure!(id_at(&members, cluster.endpoint(lost))? != before, "{before:?} is still there");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    ensure!(members.members.len() == 3);
    cluster.wait_ready().await?;
    let record = load.stop().await?;
    record.verify_without_failures(&wait_identical(&cluster).await?)?;
    // Its vote counts: with it and one other the cluster serves.
    let other = (0..3).find(|&i| i != lost && i != 0).unwrap_or(0);
    cluster.kill(other)?;
    cluster.client().put("after", "all").await?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_is_damaged_is_restored_and_what_it_had_is_kept() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    let client = cluster.client();
    for i in 0..50 {
        client.put(format!("key-{i}"), format!("the value of number {i}")).await?;
    }
    let members = wait_voters(&cluster, &[0, 1, 2]).await?;
    let old = id_at(&members, cluster.endpoint(1))?;
    wait_identical(&cluster).await?;
    cluster.kill(1)?;
    let value = b"the value of number 20";
    let find = |bytes: &[u8]| bytes.windows(value.len()).position(|window| window == value);
    let mut files = fs::read_dir(cluster.data_dir(1).join("log"))?.map(|file| Ok(file?.path()));
    let files = files.by_ref().collect::<Result<Vec<_>>>()?;
    let holds = |path: &std::path::PathBuf| fs::read(path).is_ok_and(|bytes| find(&bytes).is_some());
    let log = files.into_iter().find(holds).context("it is not in the log")?;
    let mut bytes = fs::read(&log)?;
    let at = find(&bytes).context("it was there")?;
    bytes[at] ^= 1;
    fs::write(&log, &bytes)?;
    cluster.start_node(1)?;
    wait_until(PATIENCE, "it has another identity", async || {
        let members = wait_voters(&cluster, &[0, 1, 2]).await?;
        ensure!(id_at(&members, cluster.endpoint(1))? != old, "it is who it was");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    ensure!(cluster.log(1)?.contains("a part of what this node had on disk is lost"), "it does not say so");
    let aside = cluster.data_dir(1).join("damaged-1").join("log");
    let kept = fs::read(aside.join(log.file_name().context("a name")?))?;
    ensure!(kept == bytes, "the damaged log was changed");
    cluster.wait_ready().await?;
    wait_identical(&cluster).await?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_replaced_by_a_node_elsewhere() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).spares(1).start(&zookeeper).await?;
    let load = Load::start(&cluster, "load", 8, 32);
    load.progress(200).await?;
    let dead = (cluster.leader().await? + 1) % 3;
    cluster.kill(dead)?;
    cluster.start_node(3)?;
    let told =
        member(&cluster, &["replace", cluster.endpoint(dead), cluster.endpoint(3), "-o", "json"]).await?;
    ensure!(told.contains("\"quorum\":2"), "{told}");
    let left: Vec<_> = (0..4).filter(|&i| i != dead).collect();
    wait_voters(&cluster, &left).await?;
    load.progress(100).await?;
    let record = load.stop().await?;
    record.verify_without_failures(&wait_identical(&cluster).await?)?;
    // The dead one comes back, and learns that it belongs here no longer.
    cluster.start_node(dead)?;
    let ended = cluster.wait_ended(dead).await?;
    ensure!(ended.code() == Some(REMOVED), "it ended with {ended}");
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_disk_knows_nothing_until_it_is_restored() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).memory().start(&zookeeper).await?;
    cluster.client().put("key", "value").await?;
    let first = wait_voters(&cluster, &[0, 1, 2]).await?;
    let back = 2;
    // While the others do not answer, it cannot be restored.
    [0, 1].into_iter().try_for_each(|i| cluster.pause(i))?;
    cluster.kill(back)?;
    cluster.start_node(back)?;
    let local = cluster.client_of(&[back]);
    let read = async || Ok::<_, anyhow::Error>(local.get_with("key", LOCAL).await?.value);
    let value = wait_until(PATIENCE, "it answers what it has", read).await?;
    ensure!(value.is_none(), "it remembers {value:?}");
    [0, 1].into_iter().try_for_each(|i| cluster.resume(i))?;
    wait_until(PATIENCE, "it is restored", async || {
        let value = read().await?.context("it does not know the key")?;
        ensure!(value.value == "value");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let members = wait_voters(&cluster, &[0, 1, 2]).await?;
    ensure!(id_at(&members, cluster.endpoint(back))? != id_at(&first, cluster.endpoint(back))?);
    cluster.wait_ready().await?;

    // Nobody is left: what comes back is another cluster, and says so.
    (0..3).try_for_each(|i| cluster.kill(i))?;
    (0..3).try_for_each(|i| cluster.start_node(i))?;
    // A client that knew the old one would refuse to speak with them.
    let client = cluster.client();
    client.put("other", "value").await?;
    ensure!(client.members().await?.cluster != first.cluster, "it is said to be the same cluster");
    ensure!(client.get("key").await?.value.is_none(), "the data is still there");
    let logs = (0..3).map(|i| cluster.log(i)).collect::<Result<Vec<_>, _>>()?;
    ensure!(logs.iter().any(|log| log.contains("begins a new cluster")), "nobody says so");
    client.put("key", "another").await?;
    // In good order they leave nothing in memory.
    for i in 0..3 {
        cluster.terminate(i).await?;
    }
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_data_directory_is_refused() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).spares(1).start(&zookeeper).await?;
    cluster.client().put("key", "value").await?;
    let (original, copy) = (cluster.data_dir(0), cluster.data_dir(3));
    let copied = std::process::Command::new("cp").arg("-a").args([original, copy]).status()?;
    ensure!(copied.success(), "cp ended with {copied}");
    cluster.start_node(3)?;
    let ended = cluster.wait_ended(3).await?;
    ensure!(ended.code() == Some(DUPLICATE), "it ended with {ended}");
    ensure!(cluster.log(3)?.contains("runs already at"), "it does not say why");
    // Where the original is not there to be asked, the address tells.
    cluster.kill(0)?;
    cluster.start_node(3)?;
    let ended = cluster.wait_ended(3).await?;
    ensure!(ended.code() == Some(1), "it ended with {ended}");
    cluster.start_node(0)?;
    cluster.wait_ready().await?;
    wait_voters(&cluster, &[0, 1, 2]).await?;
    Ok(cluster.end().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_make_no_sense_are_refused_and_change_nothing() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(3).spares(1).start(&zookeeper).await?;
    let other = Cluster::builder().nodes(1).root("/other").start(&zookeeper).await?;
    let before = wait_voters(&cluster, &[0, 1, 2]).await?;
    let nowhere = cluster.endpoint(3).to_owned();
    let member = cluster.endpoint(1).to_owned();
    for (arguments, code, words) in [
        (vec!["add", other.endpoint(0)], 1, "another cluster"),
        (vec!["add", &nowhere], 5, "no node answers"),
        (vec!["add", &member], 4, "already"),
        (vec!["add", "nonsense"], 2, "nonsense"),
        (vec!["remove", "ffff:1"], 3, "no member"),
        (vec!["replace", &member, &nowhere], 5, "no node answers"),
        (vec!["promote", &member], 4, "already"),
    ] {
        let output = cluster.kvctl(&[&["member"], &arguments[..]].concat()).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(code) && said.contains(words) && said.lines().count() == 1,
            "kvctl member {arguments:?} ended with {}: {said}",
            output.status
        );
    }
    // Two of three would be left, of which one answers.
    let dead = (cluster.leader().await? + 1) % 3;
    let alive = (dead + 1) % 3;
    cluster.kill(dead)?;
    wait_until(PATIENCE, "the dead one is missed", async || {
        let members = cluster.client().members().await?;
        let missed = members.members.iter().any(|known| !known.live);
        ensure!(missed, "all of them are live");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    for arguments in
        [vec!["remove", cluster.endpoint(alive)], vec!["remove", "--dry-run", cluster.endpoint(alive)]]
    {
        let output = cluster.kvctl(&[&["member"], &arguments[..]].concat()).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(4) && said.contains("--force"), "{arguments:?}: {said}");
    }
    cluster.start_node(dead)?;
    cluster.wait_ready().await?;
    let after = wait_voters(&cluster, &[0, 1, 2]).await?;
    ensure!(after.configuration == before.configuration, "the configuration was changed");
    let last = other.kvctl(&["member", "remove", other.endpoint(0)]).await?;
    ensure!(last.status.code() == Some(4), "the last voter was removed");
    other.client().put("key", "value").await?;
    other.end().await?;
    Ok(cluster.end().await?)
}
