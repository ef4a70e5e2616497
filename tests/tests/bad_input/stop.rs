//! Who may stop a node, and that it ends in good order.

use std::net::UdpSocket;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::{Request, RequestEnvelope, Response, ResponseEnvelope};
use quorumkv_tests::cluster::{Cluster, PATIENCE, kvd_binary, wait_until};
use quorumkv_tests::zookeeper::{ReservedPort, ZooKeeper};
use rustix::process::{Pid, Signal, kill_process};

use crate::raw::{Raw, put};

/// A `kvd` that nobody has told where ZooKeeper is, or that waits for other nodes. Killed when it is dropped.
struct Alone {
    child: Child,
    address: String,
    _ports: [ReservedPort; 2],
    _directory: tempfile::TempDir,
}

impl Alone {
    fn start(zookeeper: &str) -> Result<Self> {
        let (directory, ports) = (tempfile::tempdir()?, [ReservedPort::reserve()?, ReservedPort::reserve()?]);
        let child = Command::new(kvd_binary()?)
            .arg(format!("--data-dir={}", directory.path().join("data").display()))
            .arg(format!("--port={}", ports[0].port()))
            .arg(format!("--admin-port={}", ports[1].port()))
            .arg(format!("--zookeeper={zookeeper}"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            address: format!("127.0.0.1:{}", ports[0].port()),
            _ports: ports,
            _directory: directory,
        })
    }

    /// Waits until it says about itself what contains `words`.
    async fn says(&self, words: &str) -> Result<()> {
        let says = async || {
            let answer = Raw::client(&self.address)?.ask(1, Request::Status)?;
            let Response::Status(status) = answer else { bail!("answered {answer:?}") };
            ensure!(status.remarks.contains(words), "says {:?}", status.remarks);
            Ok(())
        };
        Ok(wait_until(PATIENCE, &format!("kvd says {words:?}"), says).await?)
    }

    async fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("a process has an id")?;
        kill_process(pid, signal)?;
        let ended = async || self.child.try_wait()?.context("it still runs");
        Ok(wait_until(PATIENCE, "kvd ends", ended).await?)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // An error means that it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_being_formed_stops_when_told() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let mut unreachable = Alone::start("127.0.0.1:1/none")?;
        unreachable.says("waiting for ZooKeeper").await?;
        let ended = unreachable.end(signal).await?;
        ensure!(ended.code() == Some(0), "without ZooKeeper: {signal:?} ended it with {ended}");
    }
    let zookeeper = ZooKeeper::start(1)?;
    let mut lonely = Alone::start(&format!("{}/lonely", zookeeper.connect_string()))?;
    lonely.says("1 of 3 nodes").await?;
    let ended = lonely.end(Signal::TERM).await?;
    ensure!(ended.code() == Some(0), "waiting for the others: SIGTERM ended it with {ended}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_machine_stops_a_node_unless_permitted() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    // Whoever connects by an address of a network card comes from that address, not from loopback.
    let machine = own_address()?;
    let cluster = Cluster::builder()
        .arg("--host=0.0.0.0")
        .arg("--insecure=true")
        .arg_of(2, "--allow-remote-kill=true")
        .start(&zookeeper)
        .await?;
    let from_afar =
        |node: usize| format!("{machine}:{}", cluster.endpoint(node).rsplit(':').next().unwrap_or_default());
    for node in 0..2 {
        let mut raw = Raw::client(&from_afar(node))?;
        match raw.ask(1, Request::Stop { at_once: node == 1 })? {
            Response::Failed(failure) => {
                ensure!(failure.code == ErrorCode::NotPermitted, "{failure:?}");
                ensure!(failure.message.contains("--allow-remote-kill"), "{failure:?}");
            }
            other => bail!("node {node} answered {other:?}"),
        }
        // Nothing else is forbidden from there.
        ensure!(matches!(raw.ask(2, put("from-afar", "welcome"))?, Response::Written(_)));
    }
    ensure!(matches!(
        Raw::client(&from_afar(2))?.ask(1, Request::Stop { at_once: false })?,
        Response::Stopping
    ));
    ensure!(cluster.wait_ended(2).await?.code() == Some(0), "a node that is told to stop ends well");
    ensure!(matches!(
        Raw::client(cluster.endpoint(1))?.ask(1, Request::Stop { at_once: false })?,
        Response::Stopping
    ));
    ensure!(cluster.wait_ended(1).await?.code() == Some(0));
    for node in [1, 2] {
        cluster.start_node(node)?;
    }
    cluster.wait_ready().await?;
    let got = cluster.client().get("from-afar").await?;
    ensure!(got.value.is_some_and(|value| value.value == "welcome"));
    for node in 0..cluster.size() {
        ensure!(cluster.terminate(node).await?.code() == Some(0), "SIGTERM ends a member well");
    }
    Ok(cluster.end().await?)
}

/// A node that stops does not leave its clients in doubt about what the leader is about to answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_waits_for_the_writes_that_it_handed_on() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().proxied().start(&zookeeper).await?;
    let leader = cluster.leader().await?;
    let (stops, other) = ((leader + 1) % 3, (leader + 2) % 3);
    // Of its replicas the leader needs one, and neither has the write yet: one is paused, the other hears nothing.
    cluster.pause(other)?;
    cluster.cut(leader, stops).await?;
    let mut raw = Raw::client(cluster.endpoint(stops))?;
    raw.send(&RequestEnvelope { correlation: 1, timeout_ms: 30_000, body: put("handed-on", "kept") })?;
    let leads = async || {
        let status = cluster.status(leader).await?;
        ensure!(status.last > status.committed, "nothing waits for votes yet");
        Ok(())
    };
    wait_until(PATIENCE, "the leader has the write", leads).await?;
    let (ended, resumed) = tokio::join!(cluster.terminate(stops), async {
        let stopping = async || ensure_contains(&cluster.log(stops)?, "finishes what is under way");
        wait_until(PATIENCE, "the node is stopping", stopping).await?;
        cluster.resume(other)
    });
    resumed?;
    ensure!(ended?.code() == Some(0));
    let answer: ResponseEnvelope = raw.receive()?.context("the connection was closed without an answer")?;
    ensure!(matches!(answer.body, Response::Written(_)), "answered {answer:?}");
    cluster.heal_all();
    Ok(cluster.end().await?)
}

fn ensure_contains(text: &str, words: &str) -> Result<()> {
    ensure!(text.contains(words), "{words:?} is not said");
    Ok(())
}

/// An address of this machine that is not loopback: the one from which it would reach a network. Nothing is sent.
fn own_address() -> Result<String> {
    // The first is reserved for documentation and reached by the default route; the second is Docker's own network.
    for target in ["192.0.2.1:9", "172.17.0.2:9"] {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        if socket.connect(target).is_ok() {
            let address = socket.local_addr()?.ip();
            if !address.is_loopback() {
                return Ok(address.to_string());
            }
        }
    }
    bail!("this machine has no address but loopback: start Docker, or give it a network")
}
