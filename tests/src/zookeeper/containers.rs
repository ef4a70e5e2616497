//! An ensemble of ZooKeeper servers in containers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::docker::{self, OWNER_LABEL, docker};
use super::reserve::{Lock, ReservedPort, random};
use super::servers::Servers;
use super::{ZooKeeperError, image};

/// How long servers may take until they serve. Starting takes a second; a busy machine may need far longer.
const SERVING_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a server that does not serve yet is asked again.
const SERVING_POLL: Duration = Duration::from_millis(30);
/// How long one question to a server may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// What every server is told, on top of who its peers are.
const SETTINGS: [&str; 8] = [
    // Short ticks allow the short sessions that keep tests quick; 20 of them leave time on a busy machine. Not
    // more: a server that is elected while another restarts may wait in vain for all of the initial limit.
    "ZOO_TICK_TIME=200",
    "ZOO_INIT_LIMIT=20",
    "ZOO_SYNC_LIMIT=20",
    "ZOO_CFG_EXTRA=minSessionTimeout=200 maxSessionTimeout=60000",
    "ZOO_ADMINSERVER_ENABLED=false",
    "ZOO_MAX_CLIENT_CNXNS=0",
    "ZOO_4LW_COMMANDS_WHITELIST=*",
    // Data has to survive a stopped or killed server, not a crash of the machine: the page cache is enough. TTL znodes are
    // an extended type. A container that is reaped whenever a minute is up would make runs differ.
    "JVMFLAGS=-Xmx64m -Dzookeeper.forceSync=no -Dzookeeper.extendedTypesEnabled=true \
     -Dznode.container.checkIntervalMs=3600000",
];

/// Servers in containers of their own, with ports on 127.0.0.1 that stay the same while they stop and start.
#[derive(Debug)]
pub(super) struct Containers {
    /// Names the containers and their network, and labels them as ours while `lock` is held.
    owner: String,
    ports: Vec<ReservedPort>,
    lock: Lock,
}

impl Containers {
    /// Starts `servers` and waits until all serve.
    pub(super) fn start(servers: usize) -> Result<Self, ZooKeeperError> {
        docker::check()?;
        docker::remove_leftovers()?;
        let image = image::resolve()?;
        let owner = format!("quorumkv-zk-{:016x}", random());
        let lock = Lock::acquire(&owner)?;
        let ports = (0..servers).map(|_| ReservedPort::reserve()).collect::<Result<_, _>>()?;
        // From here on dropping `containers` removes whatever has been created.
        let containers = Self { owner, ports, lock };
        if servers > 1 {
            docker(&["network", "create", "--label", &containers.label(), &containers.owner])?;
        }
        thread::scope(|scope| {
            let (containers, image) = (&containers, &image);
            let runs: Vec<_> = (0..servers).map(|i| scope.spawn(move || containers.run(i, image))).collect();
            runs.into_iter().try_for_each(|run| run.join().expect("no panic in run"))
        })?;
        containers.wait_until_serving()?;
        Ok(containers)
    }

    pub(super) fn connect_string(&self) -> String {
        let addresses: Vec<String> =
            self.ports.iter().map(|port| format!("127.0.0.1:{}", port.port())).collect();
        addresses.join(",")
    }

    fn command(&self, command: &str, servers: &[usize]) -> Result<(), ZooKeeperError> {
        if servers.is_empty() {
            return Ok(());
        }
        let mut arguments = vec![command.to_owned()];
        arguments.extend(servers.iter().map(|&i| self.name(i)));
        docker(&arguments)?;
        Ok(())
    }

    fn run(&self, i: usize, image: &str) -> Result<(), ZooKeeperError> {
        let mut arguments = vec![
            "run".to_owned(),
            "--detach".to_owned(),
            format!("--name={}", self.name(i)),
            format!("--label={}", self.label()),
            format!("--publish=127.0.0.1:{}:2181", self.ports[i].port()),
            format!("--env=ZOO_MY_ID={}", i + 1),
        ];
        arguments.extend(SETTINGS.iter().map(|setting| format!("--env={setting}")));
        if self.len() > 1 {
            let servers = (0..self.len()).map(|i| format!("server.{}={}:2888:3888;2181", i + 1, host(i)));
            arguments.push(format!("--env=ZOO_SERVERS={}", servers.collect::<Vec<_>>().join(" ")));
            arguments.push(format!("--network={}", self.owner));
            arguments.push(format!("--network-alias={}", host(i)));
        }
        arguments.push(image.to_owned());
        docker(&arguments)?;
        Ok(())
    }

    /// Waits until every server that runs and is not paused serves, unless they are too few for a quorum.
    fn wait_until_serving(&self) -> Result<(), ZooKeeperError> {
        let active = self.with_status(&["running"])?;
        if active.len() <= self.len() / 2 {
            return Ok(());
        }
        let started = Instant::now();
        while !active.iter().all(|&i| self.mode(i).is_some()) {
            // A server that has ended would be waited for in vain.
            if started.elapsed() > SERVING_TIMEOUT || self.running()?.len() < active.len() {
                return Err(ZooKeeperError::NotServing { waited: started.elapsed(), logs: self.logs() });
            }
            thread::sleep(SERVING_POLL);
        }
        Ok(())
    }

    /// What a server says it is: `leader`, `follower` or `standalone`; nothing while it does not serve.
    fn mode(&self, i: usize) -> Option<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[i].port()));
        let mut stream = TcpStream::connect_timeout(&address, ASK_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(ASK_TIMEOUT)).ok()?;
        stream.write_all(b"srvr").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    fn with_status(&self, statuses: &[&str]) -> Result<Vec<usize>, ZooKeeperError> {
        let mut arguments = vec!["ps".to_owned(), "--format={{.Names}}".to_owned()];
        arguments.push(format!("--filter=label={}", self.label()));
        arguments.extend(statuses.iter().map(|status| format!("--filter=status={status}")));
        let names = docker(&arguments)?;
        Ok((0..self.len()).filter(|&i| names.lines().any(|name| name == self.name(i))).collect())
    }

    fn logs(&self) -> String {
        let tails = (0..self.len()).map(|i| format!("--- server {i}\n{}", docker::log_tail(&self.name(i))));
        tails.collect::<Vec<_>>().join("\n")
    }

    fn label(&self) -> String {
        format!("{OWNER_LABEL}={}", self.owner)
    }

    fn name(&self, i: usize) -> String {
        format!("{}-{i}", self.owner)
    }
}

impl Servers for Containers {
    fn len(&self) -> usize {
        self.ports.len()
    }

    fn running(&self) -> Result<Vec<usize>, ZooKeeperError> {
        self.with_status(&["running", "paused"])
    }

    fn leader(&self) -> Result<Option<usize>, ZooKeeperError> {
        Ok((0..self.len()).find(|&i| matches!(self.mode(i).as_deref(), Some("leader" | "standalone"))))
    }

    fn stop(&self, servers: &[usize]) -> Result<(), ZooKeeperError> {
        self.command("stop", servers)
    }

    fn kill(&self, servers: &[usize]) -> Result<(), ZooKeeperError> {
        self.command("kill", servers)
    }

    fn pause(&self, server: usize) -> Result<(), ZooKeeperError> {
        self.command("pause", &[server])
    }

    fn unpause(&self, server: usize) -> Result<(), ZooKeeperError> {
        self.command("unpause", &[server])
    }

    fn start_again(&self, servers: &[usize]) -> Result<(), ZooKeeperError> {
        self.command("start", servers)?;
        self.wait_until_serving()
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        match docker::remove_owned(&self.owner) {
            Ok(()) => self.lock.remove(),
            // The next test that starts a ZooKeeper finds them by their label and tries again.
            Err(error) => eprintln!("the containers of {} stay behind: {error}", self.owner),
        }
    }
}

/// A server's name in the network of its ensemble.
fn host(i: usize) -> String {
    format!("zk{}", i + 1)
}
