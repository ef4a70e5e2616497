//! `kvctl bench --compare` beside real peers: etcd and Redis of Debian's packages, and the ZooKeeper of the tests.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::{ReservedPort, ZooKeeper};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server of a test, with a directory of its own. Dropping it kills it.
struct Server {
    process: Child,
    address: String,
    directory: TempDir,
    _ports: Vec<ReservedPort>,
}

impl Server {
    /// Starts a program of a Debian package, whose output goes to a file, and waits until it answers as expected.
    async fn start(
        program: &str,
        arguments: impl FnOnce(&Path, &[u16]) -> Vec<String>,
        (question, answer): (&str, &str),
    ) -> Result<Self> {
        let ports = vec![ReservedPort::reserve()?, ReservedPort::reserve()?];
        let directory = tempfile::tempdir()?;
        let numbers: Vec<u16> = ports.iter().map(ReservedPort::port).collect();
        let log = std::fs::File::create(directory.path().join("log"))?;
        let mut command = Command::new(program);
        command.args(arguments(directory.path(), &numbers)).current_dir(&directory);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| {
            format!("{program} cannot be started; install it: apt-get install -y etcd-server redis-server")
        })?;
        let address = format!("127.0.0.1:{}", numbers[0]);
        let server = Self { process, address, directory, _ports: ports };
        let answers = async || {
            let said = ask(&server.address, question).await.unwrap_or_default();
            if said.contains(answer) { Ok(()) } else { bail!("{said:?}; it logs:\n{}", server.log()) }
        };
        wait_until(PATIENCE, &format!("{program} answers"), answers).await?;
        Ok(server)
    }

    async fn etcd() -> Result<Self> {
        let arguments = |directory: &Path, ports: &[u16]| {
            let [client, peer] = [ports[0], ports[1]].map(|port| format!("http://127.0.0.1:{port}"));
            let data = directory.join("data").display().to_string();
            [
                ("name", "n"),
                ("data-dir", &data),
                ("listen-client-urls", &client),
                ("advertise-client-urls", &client),
                ("listen-peer-urls", &peer),
                ("initial-advertise-peer-urls", &peer),
                ("initial-cluster", &format!("n={peer}")),
            ]
            .map(|(name, value)| format!("--{name}={value}"))
            .into()
        };
        Self::start("etcd", arguments, ("GET /health HTTP/1.0\r\n\r\n", "\"true\"")).await
    }

    /// Appends to a file and syncs after each write, as the peer of a store that does.
    async fn redis(more: &[&str], answer: &str) -> Result<Self> {
        let arguments = |_: &Path, ports: &[u16]| {
            let port = ports[0].to_string();
            let settings = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"];
            let settings =
                settings.into_iter().chain(["--appendfsync", "always", "--repl-diskless-sync-delay", "0"]);
            settings.chain(more.iter().copied()).map(str::to_owned).collect()
        };
        Self::start("redis-server", arguments, ("INFO replication\r\nQUIT\r\n", answer)).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn ask(address: &str, question: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(question.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn lines(output: &Output) -> Result<Vec<Value>> {
    let text = std::str::from_utf8(&output.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
}

/// All peers of a comparison, running.
struct Peers {
    cluster: Cluster,
    zookeeper: ZooKeeper,
    etcd: Server,
    redis: Server,
    replica: Server,
}

impl Peers {
    async fn start() -> Result<Self> {
        let etcd = Server::etcd().await?;
        let redis = Server::redis(&[], "role:master").await?;
        let (host, port) = redis.address.split_once(':').context("an address")?;
        let replica = Server::redis(&["--replicaof", host, port], "master_link_status:up").await?;
        let zookeeper = ZooKeeper::start(1)?;
        let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
        Ok(Self { cluster, zookeeper, etcd, redis, replica })
    }

    async fn compare(&self, op: &str, format: &str) -> Result<Output> {
        let zookeeper = self.zookeeper.connect_string();
        let zookeeper = zookeeper.split('/').next().unwrap_or_default();
        let compare = [
            format!("etcd={}", self.etcd.address),
            format!("zookeeper={zookeeper}"),
            format!("redis={},{}", self.replica.address, self.redis.address),
        ];
        let bench = ["bench", "--op", op, "--seconds", "1", "--clients", "8", "--keys", "100", "-o", format];
        let peers = compare.iter().flat_map(|peer| ["--compare", peer.as_str()]);
        let output = self.cluster.kvctl(&bench.into_iter().chain(peers).collect::<Vec<_>>()).await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && told.is_empty(), "{op}: {:?}: {told}", output.status);
        Ok(output)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kvd_is_measured_beside_its_peers_and_each_says_how_durable_it_is() -> Result<()> {
    let peers = Peers::start().await?;
    for (op, operations) in [
        ("put", ["put", "Put", "setData", "SET + WAIT 1"]),
        ("get-local", ["local get", "serializable Range", "getData", "GET at any node"]),
        (
            "mixed",
            [
                "90 % quorum get, 10 % put",
                "90 % linearizable Range, 10 % Put",
                "90 % sync + getData, 10 % setData",
                "90 % GET at the leader, 10 % SET + WAIT 1",
            ],
        ),
    ] {
        let measured = lines(&peers.compare(op, "json").await?)?;
        let systems: Vec<_> =
            measured.iter().map(|line| line["system"].as_str().unwrap_or_default()).collect();
        ensure!(systems == ["kvd", "etcd", "zookeeper", "redis"], "{measured:?}");
        for (line, operation) in measured.iter().zip(operations) {
            ensure!(line["op"] == op && line["operation"] == operation && line["errors"] == 0, "{line}");
            ensure!(line["ops_per_s"].as_f64() > Some(0.0) && line["version"].is_string(), "{line}");
            ensure!(line["kvd_ratio"].is_number() == (line["system"] != "kvd"), "{line}");
            ensure!(line["histogram"].as_array().is_some_and(|buckets| !buckets.is_empty()), "{line}");
        }
        let [kvd, etcd, zookeeper, redis] = [0, 1, 2, 3].map(|i| &measured[i]["durability"]);
        ensure!(kvd["members"]["voters"] == 3 && kvd["members"]["quorum"] == 2, "{kvd}");
        ensure!(kvd["storage"].is_null() && kvd["unknown"]["storage"].is_string(), "{kvd}");
        let syncs = &etcd["log_syncs"][&peers.etcd.address];
        ensure!(etcd["members"]["voters"] == 1 && syncs["count"].as_f64() > Some(0.0), "{etcd}");
        ensure!(zookeeper["members"]["voters"] == 1, "{zookeeper}");
        ensure!(redis["replicas"]["wait"] == 1 && redis["replicas"]["connected"] == 1, "{redis}");
        for server in [&peers.redis, &peers.replica] {
            let node = &redis["nodes"][&server.address];
            ensure!(node["appendonly"] == "yes" && node["appendfsync"] == "always", "{redis}");
        }
    }
    people_see_a_table_of_all(&peers).await?;
    peers.cluster.end().await?;
    Ok(())
}

async fn people_see_a_table_of_all(peers: &Peers) -> Result<()> {
    let output = peers.compare("get", "table").await?;
    let text = String::from_utf8(output.stdout)?;
    for part in [
        "KVD/IT",
        "linearizable Range",
        "sync + getData",
        "GET at the leader: not linearizable",
        "voters: 3; a write needs 2 of them",
        "synced its WAL",
        "is standalone",
        "(leader): appendonly yes, appendfsync always",
        "replicas: 1; WAIT waits for 1 of them",
        "UP TO MS",
    ] {
        ensure!(text.contains(part), "{part} is missing in\n{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_cannot_be_compared_is_told_before_anything_is_measured() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    let cluster = Cluster::builder().nodes(1).start(&zookeeper).await?;
    let locked = Server::redis(&["--requirepass", "secret"], "NOAUTH").await?;
    let leader = Server::redis(&[], "role:master").await?;
    let (host, port) = leader.address.split_once(':').context("an address")?;
    let replica = Server::redis(&["--replicaof", host, port], "master_link_status:up").await?;
    let lonely = format!("{},{}", leader.address, locked.address);
    for (addresses, code, part) in [
        (&locked.address, 8, "has no passwords"),
        (&lonely, 8, "has no passwords"),
        (&replica.address, 2, "it is a replica of"),
    ] {
        let compare = format!("redis={addresses}");
        let output = cluster.kvctl(&["bench", "--seconds", "600", "--compare", &compare]).await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(code) && output.stdout.is_empty(),
            "{:?}: {told}",
            output.status
        );
        ensure!(told.contains(part) && told.lines().count() == 1, "{told}");
    }
    let scan = cluster.kvctl(&["scan", "bench/"]).await?;
    ensure!(scan.status.success() && scan.stdout.is_empty(), "kvd was written before its peers were tried");
    cluster.end().await?;
    Ok(())
}
