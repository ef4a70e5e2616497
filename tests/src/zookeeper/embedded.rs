//! This workspace's own keeper in ZooKeeper's place: one `keeperd` process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::ZooKeeperError;
use super::servers::Servers;
use crate::cluster::ClusterError;
use crate::keeperd::Keeperd;

/// What the server is told besides what every test's is: the same as those in containers.
const SETTINGS: [&str; 3] = ["--tick-time=200ms", "--min-session-timeout=200ms", "--max-session-timeout=60s"];

/// One `keeperd`. It is server 0, and there is no other.
#[derive(Debug)]
pub(super) struct Embedded {
    address: String,
    keeperd: Mutex<Keeperd>,
}

impl Embedded {
    /// Starts it and waits until it serves.
    pub(super) fn start() -> Result<Self, ZooKeeperError> {
        let keeperd = Keeperd::start(&SETTINGS)?;
        Ok(Self { address: keeperd.address(), keeperd: Mutex::new(keeperd) })
    }

    pub(super) fn connect_string(&self) -> String {
        self.address.clone()
    }

    fn keeperd(&self) -> MutexGuard<'_, Keeperd> {
        self.keeperd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does this with the server if it is among these.
    fn with(
        &self,
        servers: &[usize],
        action: impl FnOnce(&mut Keeperd) -> Result<(), ClusterError>,
    ) -> Result<(), ZooKeeperError> {
        match servers {
            [] => Ok(()),
            [0] => Ok(action(&mut self.keeperd())?),
            _ => Err(ZooKeeperError::NeedsEnsemble { servers: servers.to_vec() }),
        }
    }
}

impl Servers for Embedded {
    fn len(&self) -> usize {
        1
    }

    fn running(&self) -> Result<Vec<usize>, ZooKeeperError> {
        Ok(self.keeperd().pid().map_or_else(|_| Vec::new(), |_| vec![0]))
    }

    fn leader(&self) -> Result<Option<usize>, ZooKeeperError> {
        // One that does not run answers nothing, which is no error here.
        let answer = self.keeperd().ask("srvr").unwrap_or_default();
        Ok(answer.lines().any(|line| line == "Mode: standalone").then_some(0))
    }

    fn stop(&self, servers: &[usize]) -> Result<(), ZooKeeperError> {
        self.with(servers, |keeperd| {
            // A frozen one would never end.
            send(keeperd, Signal::CONT)?;
            let status = keeperd.stop()?;
            if status.success() {
                Ok(())
            } else {
                Err(ClusterError::Ended { node: 0, status, log: keeperd.log() })
            }
        })
    }

    fn kill(&self, servers: &[usize]) -> Result<(), ZooKeeperError> {
        self.with(servers, Keeperd::kill)
    }

    fn pause(&self, server: usize) -> Result<(), ZooKeeperError> {
        self.with(&[server], |keeperd| send(keeperd, Signal::STOP))
    }

    fn unpause(&self, server: usize) -> Result<(), ZooKeeperError> {
        self.with(&[server], |keeperd| send(keeperd, Signal::CONT))
    }

    fn start_again(&self, servers: &[usize]) -> Result<(), ZooKeeperError> {
        self.with(servers, Keeperd::start_again)
    }
}

fn send(keeperd: &Keeperd, signal: Signal) -> Result<(), ClusterError> {
    let pid = i32::try_from(keeperd.pid()?).ok().and_then(Pid::from_raw);
    kill_process(pid.ok_or(ClusterError::NotRunning { node: 0 })?, signal).map_err(|source| {
        ClusterError::Io { action: "send a signal to keeperd".to_owned(), source: source.into() }
    })
}
