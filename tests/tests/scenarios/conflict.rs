//! Members that cannot agree: a read resamples until they can, or gives up with evidence.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorumkv_client::{Client, Evidence, GetOptions, Got, ReadError, Version, WriteError};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;
use tokio::task::JoinHandle;

use crate::contents::{LOCAL, check, wait_identical};

/// What a node counts when a round of a read has met a conflict.
const CONFLICTS: &str = "kvd_read_conflicts_total";

const EVIDENCE: GetOptions = GetOptions { consistency: quorumkv_client::Consistency::Quorum, evidence: true };

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_meets_a_held_back_replica_resamples_or_gives_up_with_evidence() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().proxied().arg("--read-timeout=8s").start(&zookeeper).await?;
    let old = cluster.client().put("key", "old").await?.version;
    wait_identical(&cluster).await?;
    let leader = cluster.leader().await?;
    let (reader, other) = ((leader + 1) % 3, (leader + 2) % 3);
    without_zookeeper_the_leader_stays(&cluster, &zookeeper, leader).await?;

    let writer = cluster.client_of(&[leader]).with_timeout(Duration::from_secs(3));
    writer.ready().await?;
    // An entry that only the leader has: it reaches nobody, and the reader can ask nobody but the leader.
    for (from, to) in [(leader, reader), (leader, other), (reader, other), (other, reader)] {
        cluster.cut(from, to).await?;
    }
    let unknown = writer.put("key", "new").await.err().context("acknowledged without a quorum")?;
    ensure!(matches!(unknown, WriteError::Unknown { .. }), "{unknown}");

    let client = cluster.client_of(&[reader]);
    let (read, _) = begin_conflicting_read(&cluster, &client, reader).await?;
    match read.await? {
        Err(error @ ReadError::Conflict(_)) => {
            let evidence = error.evidence().context("a conflict comes with evidence")?;
            check_evidence_of_conflict(&cluster, evidence, leader, reader, old).await?;
        }
        Err(error) => bail!("the read ended otherwise: {error}"),
        Ok(got) => bail!("the read was answered: {got:?}"),
    }
    let local = client.get_with("key", LOCAL).await?.value.context("the old value")?;
    ensure!(local.version == old);

    // Healed while a read waits: it is answered, and with what can be committed now.
    let (read, before) = begin_conflicting_read(&cluster, &client, reader).await?;
    cluster.heal_all();
    let got = read.await??;
    let evidence = got.evidence.context("evidence was asked for")?;
    ensure!(evidence.conflicts > 0 && evidence.rounds > 1 && evidence.rule.is_some(), "{evidence:?}");
    ensure!(cluster.metric(reader, CONFLICTS).await? > before);
    let value = got.value.context("the key is there")?;
    ensure!(value.value == "new" && value.version > old, "{value:?}");

    zookeeper.start_all()?;
    cluster.wait_ready().await?;
    for i in 0..3 {
        check(&cluster.client_of(&[i]), "key", "new", value.version).await?;
    }
    wait_identical(&cluster).await?;
    cluster.end().await?;
    Ok(())
}

/// A leader that reaches no quorum resigns as soon as another could be elected. Here none can.
async fn without_zookeeper_the_leader_stays(
    cluster: &Cluster,
    zookeeper: &ZooKeeper,
    leader: usize,
) -> Result<()> {
    zookeeper.stop_all()?;
    let noticed = async || -> Result<()> {
        let session = cluster.status(leader).await?.zookeeper;
        ensure!(session != "connected", "its session is {session}");
        Ok(())
    };
    wait_until(PATIENCE, "the leader has noticed that ZooKeeper is gone", noticed).await?;
    Ok(())
}

/// Begins a read at `reader`, waits until it has met a conflict and resampled, and returns it with the count of before.
async fn begin_conflicting_read(
    cluster: &Cluster,
    client: &Client,
    reader: usize,
) -> Result<(JoinHandle<Result<Got, ReadError>>, f64)> {
    let before = cluster.metric(reader, CONFLICTS).await?;
    let client = client.clone();
    let read = tokio::spawn(async move { client.get_with("key", EVIDENCE).await });
    let met = async || -> Result<()> {
        // The first is the conflict itself, the second that of a further round: the read has resampled.
        ensure!(cluster.metric(reader, CONFLICTS).await? >= before + 2.0, "too few conflicts were counted");
        Ok(())
    };
    wait_until(PATIENCE, "the read meets a conflict and resamples", met).await?;
    Ok((read, before))
}

/// The evidence shows who disagreed: the leader has an entry that the reader has not.
async fn check_evidence_of_conflict(
    cluster: &Cluster,
    evidence: &Evidence,
    leader: usize,
    reader: usize,
    old: Version,
) -> Result<()> {
    ensure!(evidence.quorum == 2 && evidence.conflicts > 0 && evidence.rule.is_none(), "{evidence:?}");
    let mut touched = Vec::new();
    for i in [leader, reader] {
        let node = cluster.status(i).await?.node;
        let witness = evidence.witnesses.iter().find(|witness| witness.node == node);
        let witness = witness.with_context(|| format!("node {i} is not in {evidence:?}"))?;
        touched.push(witness.touched.map(|entry| entry.version).context("an entry touched the key")?);
    }
    ensure!(touched[0] > old && touched[1] == old, "{evidence:?}");
    Ok(())
}
