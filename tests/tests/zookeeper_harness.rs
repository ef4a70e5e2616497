//! The harness itself: real servers, that keep their data and ports, and leave nothing behind.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorumkv_tests::zookeeper::{ReservedPort, ZooKeeper, ZooKeeperError};
use zookeeper_client::{Acls, Client, CreateMode, EventType};

async fn connect(zookeeper: &ZooKeeper) -> Result<Client> {
    let connecting = Client::connector().with_session_timeout(Duration::from_secs(2));
    Ok(connecting.connect(&zookeeper.connect_string()).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_session_takes_its_ephemeral_znode_along() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let owner = connect(&zookeeper).await?;
    let watcher = connect(&zookeeper).await?;
    owner.create("/leader", b"a", &CreateMode::Ephemeral.with_acls(Acls::anyone_all())).await?;
    let (data, _, gone) = watcher.get_and_watch_data("/leader").await?;
    ensure!(data == b"a");
    drop(owner);
    ensure!(gone.changed().await.event_type == EventType::NodeDeleted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_keeps_data_and_port_over_stop_kill_and_start() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let address = zookeeper.connect_string();
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    connect(&zookeeper).await?.create("/stopped", b"1", &persistent).await?;

    zookeeper.stop(0)?;
    ensure!(zookeeper.leader()?.is_none());
    zookeeper.start_server(0)?;
    ensure!(zookeeper.leader()? == Some(0));
    let client = connect(&zookeeper).await?;
    ensure!(client.get_data("/stopped").await?.0 == b"1");
    client.create("/killed", b"2", &persistent).await?;

    zookeeper.kill_all()?;
    zookeeper.start_all()?;
    ensure!(connect(&zookeeper).await?.get_data("/killed").await?.0 == b"2");
    ensure!(zookeeper.connect_string() == address);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_zookeeper_is_left_as_it_was_and_cannot_be_stopped() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let existing = ZooKeeper::at(&zookeeper.connect_string())?;
    let client = connect(&existing).await?;
    client.create("/here", b"", &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?;
    client.create("/here/below", b"", &CreateMode::Ephemeral.with_acls(Acls::anyone_all())).await?;
    let refused = existing.stop_all().err().context("stopping somebody's ZooKeeper must fail")?;
    ensure!(matches!(refused, ZooKeeperError::NeedsOwnServers { .. }), "{refused}");

    drop(existing);
    ensure!(connect(&zookeeper).await?.list_children("/quorumkv-tests").await?.is_empty());
    Ok(())
}

#[test]
fn reserved_ports_differ_and_are_free() -> Result<()> {
    let reserved = (0..50).map(|_| ReservedPort::reserve()).collect::<Result<Vec<_>, _>>()?;
    let distinct: HashSet<u16> = reserved.iter().map(ReservedPort::port).collect();
    ensure!(distinct.len() == reserved.len());
    for port in distinct {
        std::net::TcpListener::bind(("127.0.0.1", port))?;
    }
    Ok(())
}

/// What needs several servers, or is about containers: with ZooKeeper in Docker in any case.
mod docker_only {
    use std::process::Command;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_ensemble_serves_while_one_server_is_stopped_or_paused() -> Result<()> {
        let zookeeper = ZooKeeper::in_docker(3)?;
        let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let client = connect(&zookeeper).await?;
        client.create("/kept", b"1", &persistent).await?;

        let leader = zookeeper.leader()?.context("an ensemble that serves has a leader")?;
        zookeeper.kill(leader)?;
        zookeeper.start_server(leader)?;
        ensure!(connect(&zookeeper).await?.get_data("/kept").await?.0 == b"1");

        let follower = (zookeeper.leader()?.context("a new leader")? + 1) % 3;
        zookeeper.pause(follower)?;
        connect(&zookeeper).await?.set_data("/kept", b"2", None).await?;
        zookeeper.unpause(follower)?;

        zookeeper.stop_all()?;
        ensure!(zookeeper.leader()?.is_none());
        zookeeper.start_all()?;
        ensure!(connect(&zookeeper).await?.get_data("/kept").await?.0 == b"2");
        Ok(())
    }

    #[test]
    fn dropping_removes_containers_networks_and_volumes_even_of_paused_servers() -> Result<()> {
        let zookeeper = ZooKeeper::in_docker(3)?;
        let created = labelled(&zookeeper)?;
        ensure!(created.len() == 3 + 1, "three containers and a network: {created:?}");
        let volumes = listed(&["volume", "ls", "-q"])?;
        zookeeper.pause(0)?;
        zookeeper.stop(1)?;
        drop(zookeeper);

        let mut left = listed(&["ps", "-aq", "--no-trunc"])?;
        left.extend(listed(&["network", "ls", "-q", "--no-trunc"])?);
        ensure!(created.is_disjoint(&left), "left behind: {:?}", created.intersection(&left));
        let volumes_left = listed(&["volume", "ls", "-q"])?;
        ensure!(volumes.difference(&volumes_left).count() >= 3 * 2, "each server has two volumes");
        Ok(())
    }

    /// The ids of the containers and networks of an ensemble, found by the port that it publishes.
    fn labelled(zookeeper: &ZooKeeper) -> Result<HashSet<String>> {
        let address = zookeeper.connect_string();
        let port = address.split([',', ':']).nth(1).context("a port")?;
        let owner_format = "--format={{.Label \"quorumkv.tests.owner\"}}";
        let owners = listed(&["ps", &format!("--filter=publish={port}"), owner_format])?;
        let owner = owners.iter().next().context("a container publishes the port")?;
        let filter = format!("--filter=label=quorumkv.tests.owner={owner}");
        let mut ids = listed(&["ps", "-aq", "--no-trunc", &filter])?;
        ids.extend(listed(&["network", "ls", "-q", "--no-trunc", &filter])?);
        Ok(ids)
    }

    fn listed(arguments: &[&str]) -> Result<HashSet<String>> {
        let output = Command::new("docker").args(arguments).output()?;
        ensure!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }
}
