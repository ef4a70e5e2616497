//! Three Apache ZooKeepers in containers, each in a network namespace that can be cut from others and outlives its server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use quorumkv_tests::zookeeper::docker::{self, docker};
use quorumkv_tests::zookeeper::image;

use super::command::ip;
use super::network::{Network, Place};
use super::owner::Owner;

/// How many there are.
pub const SERVERS: usize = 3;

/// Where they stand in the network: after the nodes.
const FIRST_NUMBER: u8 = 101;

/// The port for clients.
const PORT: u16 = 2181;

const SERVING_TIMEOUT: Duration = Duration::from_secs(90);
const SERVING_POLL: Duration = Duration::from_millis(50);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// As the tests' other ZooKeepers have them: see `quorumkv_tests::zookeeper`. The servers' network may come after them.
const SETTINGS: [&str; 8] = [
    "ZOO_TICK_TIME=200",
    "ZOO_INIT_LIMIT=20",
    "ZOO_SYNC_LIMIT=20",
    "ZOO_CFG_EXTRA=minSessionTimeout=200 maxSessionTimeout=60000 quorumListenOnAllIPs=true",
    "ZOO_ADMINSERVER_ENABLED=false",
    "ZOO_MAX_CLIENT_CNXNS=0",
    "ZOO_4LW_COMMANDS_WHITELIST=srvr",
    "JVMFLAGS=-Xmx96m -Dzookeeper.forceSync=no",
];

/// The ensemble.
#[derive(Debug)]
pub struct Ensemble {
    containers: Vec<String>,
    addresses: Vec<SocketAddr>,
    places: Vec<Place>,
}

impl Ensemble {
    /// Starts the servers and waits until all of them serve.
    pub(super) fn start(owner: &Owner, network: &Network) -> Result<Self> {
        let image = image()?;
        let mut ensemble = Self { containers: Vec::new(), addresses: Vec::new(), places: Vec::new() };
        for i in 0..SERVERS {
            // A container that only holds a namespace: that of a server would be another one after each start.
            let holder = owner.named(&format!("z{i}-net"));
            let sleep = ["run", "--detach", "--network=none", &owner.label(), "--entrypoint=sleep"];
            let name = format!("--name={holder}");
            docker(&[&sleep[..], &[&name, &image, "1000000000"]].concat())?;
            let pid = docker(&["inspect", "--format={{.State.Pid}}", &holder])?;
            let namespace = owner.named(&format!("z{i}"));
            ip(&format!("netns attach {namespace} {pid}"))?;
            let number = FIRST_NUMBER + u8::try_from(i).context("few servers")?;
            let place = network.join(&namespace, number)?;
            ensemble.places.push(place);
            ensemble.addresses.push(SocketAddr::from((network.address(place), PORT)));
            ensemble.containers.push(owner.named(&format!("zk{i}")));
        }
        for i in 0..SERVERS {
            ensemble.run(owner, i, &image)?;
        }
        ensemble.wait_serving()?;
        Ok(ensemble)
    }

    fn run(&self, owner: &Owner, i: usize, image: &str) -> Result<()> {
        let servers = self.addresses.iter().enumerate();
        let servers: Vec<_> = servers
            .map(|(i, address)| format!("server.{}={}:2888:3888;{PORT}", i + 1, address.ip()))
            .collect();
        let mut arguments = vec![
            "run".to_owned(),
            "--detach".to_owned(),
            format!("--name={}", self.containers[i]),
            format!("--network=container:{}", owner.named(&format!("z{i}-net"))),
            owner.label(),
            format!("--env=ZOO_MY_ID={}", i + 1),
            format!("--env=ZOO_SERVERS={}", servers.join(" ")),
        ];
        arguments.extend(SETTINGS.iter().map(|setting| format!("--env={setting}")));
        arguments.push(image.to_owned());
        docker(&arguments)?;
        Ok(())
    }

    /// Where clients connect: `host:port,…`.
    #[must_use]
    pub fn connect_string(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }

    /// Where the servers stand in the network.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The server that leads, if one does.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        (0..SERVERS).find(|&i| self.mode(i).as_deref() == Some("leader"))
    }

    /// Has `docker` do something with servers, like `kill` or `start`.
    ///
    /// # Errors
    /// It fails.
    pub fn command(&self, command: &[&str], servers: &[usize]) -> Result<()> {
        let names = servers.iter().map(|&i| self.containers[i].as_str());
        docker(&command.iter().copied().chain(names).collect::<Vec<_>>())?;
        Ok(())
    }

    /// Waits until all servers serve.
    ///
    /// # Errors
    /// They do not; their logs are in the error.
    pub fn wait_serving(&self) -> Result<()> {
        let started = Instant::now();
        while !(0..SERVERS).all(|i| self.mode(i).is_some()) {
            if started.elapsed() > SERVING_TIMEOUT {
                let logs: Vec<_> = self.containers.iter().map(|name| docker::log_tail(name)).collect();
                bail!("ZooKeeper does not serve after {SERVING_TIMEOUT:?}:\n{}", logs.join("\n---\n"));
            }
            thread::sleep(SERVING_POLL);
        }
        Ok(())
    }

    fn mode(&self, i: usize) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.addresses[i], ASK_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(ASK_TIMEOUT)).ok()?;
        stream.write_all(b"srvr").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }
}
