//! From the first start to Ctrl-C.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use quorumkv_tests::zookeeper::ZooKeeper;
use rustix::process::Signal;
use zookeeper_client::Client;

use crate::running::{Dev, Ports, paste, processes_in};

#[tokio::test(flavor = "multi_thread")]
async fn what_it_prints_can_be_pasted_and_it_tells_what_comes_of_it() -> Result<()> {
    let ports = Ports::reserve()?;
    let dev = Dev::start(&ports.flags())?;
    dev.until_begun().await?;
    let directory = dev.directory()?;
    ensure!(processes_in(&directory)?.len() == 3, "each node is a process of its own");
    for i in 0..3 {
        dev.until(&format!("  127.0.0.1:{}  ", ports.node(i))).await?;
        ensure!(health(ports.node(i) + 1000)?.ends_with("ready\n"), "node {i} is not well");
        ensure!(directory.join(format!("node-{i}.log")).exists(), "node {i} has no log");
    }
    dev.until(&format!("127.0.0.1:{}", ports.keeper())).await?;

    let [put, get, kill] = dev.pasteable()?;
    ensure!(put.contains(" -e 127.0.0.1:"), "these are not kvctl's own ports: {put}");
    paste(&put)?;
    ensure!(paste(&get)?.stdout.starts_with(b"hello"));
    let first = dev.until("leads (epoch 1)").await?;
    paste(&kill)?;
    dev.until("the leader, was killed by kvctl").await?;
    let second = dev.until("leads (epoch 2)").await?;
    ensure!(first.split_whitespace().nth(1) != second.split_whitespace().nth(1), "{first} {second}");
    ensure!(paste(&get)?.stdout.starts_with(b"hello"));

    let mut by_hand = dev.start_by_hand(1).await?;
    dev.until("serves again, started by hand").await?;
    crate::running::send(by_hand.id(), Signal::TERM)?;
    ensure!(by_hand.wait()?.code() == Some(0));
    dev.until("has ended, which was started by hand").await?;
    let other = processes_in(&directory)?[0];
    crate::running::send(other, Signal::TERM)?;
    dev.until("was told to stop, and has ended in good order").await?;
    dev.interrupt().await?;
    ensure!(!directory.exists(), "a temporary directory is deleted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_prints_finds_all_of_five_nodes() -> Result<()> {
    let ports = Ports::reserve()?;
    let [base_port, keeper_port] = ports.flags();
    let dev = Dev::start(&["--nodes=5".to_owned(), base_port, keeper_port])?;
    dev.until_begun().await?;
    let [put, get, kill] = dev.pasteable()?;
    // Whoever leads is found among them, wherever that is.
    paste(&kill)?;
    dev.until("leads (epoch 2)").await?;
    paste(&kill)?;
    dev.until("leads (epoch 3)").await?;
    paste(&put)?;
    ensure!(paste(&get)?.stdout.starts_with(b"hello"));
    let export = dev.until("export KVCTL_ENDPOINTS=").await?;
    let plain = get.replacen(&format!(" -e {}", export.split('=').nth(1).context("a list")?), "", 1);
    ensure!(!plain.contains(" -e "), "the list for everywhere is another: {export} {get}");
    ensure!(paste(&format!("{export}; {plain}"))?.stdout.starts_with(b"hello"));
    dev.interrupt().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_zookeeper_takes_the_keepers_place_and_is_left_as_it_was() -> Result<()> {
    let ports = Ports::reserve()?;
    let zookeeper = ZooKeeper::start(1)?;
    let client = Client::connect(&zookeeper.connect_string()).await?;
    let before = client.list_children("/").await?;
    let [base_port, _] = ports.flags();
    let dev =
        Dev::start_beside_zookeeper(&[base_port, format!("--zookeeper={}", zookeeper.connect_string())])?;
    dev.until_begun().await?;
    dev.until("below /quorumkv-dev-").await?;
    ensure!(client.list_children("/").await?.len() == before.len() + 1, "the cluster has a znode of its own");
    let [put, get, _] = dev.pasteable()?;
    paste(&put)?;
    ensure!(paste(&get)?.stdout.starts_with(b"hello"));
    dev.interrupt().await?;
    ensure!(client.list_children("/").await? == before, "its znodes are deleted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_is_told_and_does_not_hold_up_the_end() -> Result<()> {
    let ports = Ports::reserve()?;
    let dev = Dev::start(&ports.flags())?;
    dev.until_begun().await?;
    let nodes = processes_in(&dev.directory()?)?;
    crate::running::send(nodes[0], Signal::STOP)?;
    dev.until("does not answer, although it runs").await?;
    dev.interrupt().await?;
    Ok(())
}

/// What a node says about its health.
fn health(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
