//! What the cluster keeps in ZooKeeper besides the election: the last epoch given out, the nodes that want to be
//! members at the first start, and a copy of the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::connect_string::HostPort;
use super::owner::backoff;
use super::session::{OperationError, Session};

/// Why ZooKeeper could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// No answer in the time given. A change may or may not have been made.
    #[error("{call}: not done within {within:?} ({reason})")]
    Deadline {
        /// What was asked for.
        call: &'static str,
        /// The time given.
        within: Duration,
        /// What went wrong last.
        reason: String,
    },
    /// ZooKeeper refused, and would again.
    #[error("{call}: {reason}")]
    Refused {
        /// What was asked for.
        call: &'static str,
        /// ZooKeeper's reason.
        reason: String,
    },
    /// The node has left ZooKeeper.
    #[error("{call}: this node has left ZooKeeper")]
    Withdrawn {
        /// What was asked for.
        call: &'static str,
    },
}

/// Why no epoch was allocated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocateEpochError {
    /// What is stored is no number. Only a person can tell what it should be.
    #[error(
        "znode {path} holds {data:?} where the last epoch should be; set it to a number above every epoch ever used"
    )]
    Malformed {
        /// The znode.
        path: String,
        /// What it holds.
        data: String,
    },
    /// There is no epoch after the greatest number.
    #[error("no epoch is left above {0}")]
    Exhausted(u64),
    /// ZooKeeper could not be asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A node that has registered, by its id.
pub type Members = BTreeMap<u64, HostPort>;

/// The handle's own operations, on whatever session the owner has.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) root: String,
    pub(super) retry_cap: Duration,
    pub(super) audit_interval: Duration,
    pub(super) session: watch::Receiver<Option<Session>>,
    pub(super) stop: watch::Receiver<Option<Instant>>,
}

impl Registry {
    /// Makes `attempt` on the present session, again after each failure that another attempt may mend.
    async fn call<T, Attempt>(
        &self,
        call: &'static str,
        within: Duration,
        attempt: impl Fn(Session) -> Attempt,
    ) -> Result<T, RegistryError>
    where
        Attempt: Future<Output = Result<T, OperationError>> + Send,
    {
        let mut reason = "no ZooKeeper session".to_owned();
        let persist = async {
            let mut sessions = self.session.clone();
            for delay in backoff(self.retry_cap) {
                let session = match sessions.wait_for(Option::is_some).await {
                    Ok(session) => session.clone(),
                    Err(_) => return Err(RegistryError::Withdrawn { call }),
                };
                let Some(session) = session else { continue };
                match attempt(session).await {
                    Ok(done) => return Ok(done),
                    Err(OperationError::Refused { source, .. }) => {
                        return Err(RegistryError::Refused { call, reason: source.to_string() });
                    }
                    Err(error) => {
                        debug!(call, %error, "trying again");
                        reason = error.to_string();
                    }
                }
                sleep(delay).await;
            }
            Err(RegistryError::Withdrawn { call })
        };
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => Err(RegistryError::Withdrawn { call }),
            outcome = persist => outcome,
            () = sleep(within) => Err(RegistryError::Deadline { call, within, reason }),
        }
    }

    pub(super) async fn allocate_epoch(
        &self,
        above: u64,
        within: Duration,
    ) -> Result<u64, AllocateEpochError> {
        let path = &format!("{}/epoch", self.root);
        let attempt = |session: Session| async move {
            loop {
                let found = session.read(path).await?;
                let stored = match &found {
                    None => 0,
                    Some((data, _)) => match parse_epoch(data) {
                        Some(stored) => stored,
                        None => {
                            let data = String::from_utf8_lossy(data).into_owned();
                            return Ok(Err(AllocateEpochError::Malformed { path: path.clone(), data }));
                        }
                    },
                };
                let last = stored.max(above);
                let Some(next) = last.checked_add(1) else {
                    return Ok(Err(AllocateEpochError::Exhausted(last)));
                };
                let text = next.to_string();
                let ours = match found {
                    None => session.create(path, text.as_bytes()).await?,
                    Some((_, version)) => session.replace(path, text.as_bytes(), version).await?,
                };
                // A reply that is lost ends this attempt with an error. The next one reads again, and if the write
                // did happen it goes above it, so a number is used at most once and some are not used at all.
                if ours {
                    return Ok(Ok(next));
                }
            }
        };
        self.call("allocate epoch", within, attempt).await?
    }

    pub(super) async fn register(
        &self,
        id: u64,
        address: &HostPort,
        within: Duration,
    ) -> Result<(), RegistryError> {
        let path = &format!("{}/members/{id:016x}", self.root);
        let address = &address.to_string();
        let attempt = |session: Session| async move {
            loop {
                let done = match session.read(path).await? {
                    None => session.create(path, address.as_bytes()).await?,
                    Some((data, _)) if data == address.as_bytes() => true,
                    Some((_, version)) => session.replace(path, address.as_bytes(), version).await?,
                };
                if done {
                    return Ok(());
                }
            }
        };
        self.call("register member", within, attempt).await
    }

    pub(super) async fn deregister(&self, id: u64, within: Duration) -> Result<(), RegistryError> {
        let path = &format!("{}/members/{id:016x}", self.root);
        self.call("deregister member", within, |session: Session| async move { session.delete(path).await })
            .await
    }

    pub(super) async fn members(&self, within: Duration) -> Result<Members, RegistryError> {
        let folder = &format!("{}/members", self.root);
        let attempt = |session: Session| async move {
            session.sync(folder).await?;
            let names = session.children(folder).await?.unwrap_or_default();
            read_members(&session, folder, names).await
        };
        self.call("list members", within, attempt).await
    }

    pub(super) async fn await_members(
        &self,
        count: usize,
        within: Duration,
    ) -> Result<Members, RegistryError> {
        let folder = &format!("{}/members", self.root);
        let attempt = |session: Session| async move {
            loop {
                let (names, watch) = session.watch_children(folder).await?;
                let members = read_members(&session, folder, names).await?;
                info!("{} of {count} nodes have registered", members.len());
                if members.len() >= count {
                    return Ok(members);
                }
                // Looking again now and then mends a watch that got lost, and shows that we still wait.
                let _ = timeout(self.audit_interval, watch.changed()).await;
            }
        };
        self.call("await members", within, attempt).await
    }

    pub(super) async fn create_configuration_once(
        &self,
        configuration: &[u8],
        within: Duration,
    ) -> Result<Vec<u8>, RegistryError> {
        let path = &format!("{}/configuration", self.root);
        let attempt = |session: Session| async move {
            loop {
                if session.create(path, configuration).await? {
                    return Ok(configuration.to_vec());
                }
                if let Some((stored, _)) = session.read(path).await? {
                    return Ok(stored);
                }
            }
        };
        self.call("create configuration", within, attempt).await
    }

    pub(super) async fn replace_configuration(
        &self,
        configuration: &[u8],
        is_older: &(dyn Fn(&[u8]) -> bool + Send + Sync),
        within: Duration,
    ) -> Result<bool, RegistryError> {
        let path = &format!("{}/configuration", self.root);
        let attempt = |session: Session| async move {
            loop {
                let done = match session.read(path).await? {
                    None => session.create(path, configuration).await?,
                    Some((stored, _)) if !is_older(&stored) => return Ok(false),
                    Some((_, version)) => session.replace(path, configuration, version).await?,
                };
                if done {
                    return Ok(true);
                }
            }
        };
        self.call("replace configuration", within, attempt).await
    }

    pub(super) async fn configuration(&self, within: Duration) -> Result<Option<Vec<u8>>, RegistryError> {
        let path = &format!("{}/configuration", self.root);
        let attempt = |session: Session| async move {
            session.sync(path).await?;
            Ok(session.read(path).await?.map(|(stored, _)| stored))
        };
        self.call("read configuration", within, attempt).await
    }
}

/// Reads who is behind the names; a znode that is not a member's is reported and skipped.
async fn read_members(
    session: &Session,
    folder: &str,
    names: Vec<String>,
) -> Result<Members, OperationError> {
    let mut members = Members::new();
    for name in names {
        let Some((data, _)) = session.read(&format!("{folder}/{name}")).await? else { continue };
        match (parse_id(&name), String::from_utf8_lossy(&data).parse()) {
            (Some(id), Ok(address)) => drop(members.insert(id, address)),
            _ => warn!(folder, name, "ignoring a znode that is not a member's"),
        }
    }
    Ok(members)
}

pub(super) fn parse_id(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name, 16).ok()?;
    (format!("{id:016x}") == name).then_some(id)
}

/// Decimal digits and nothing else; a person may have added a line break.
pub(super) fn parse_epoch(data: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(data).ok()?.trim();
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_decimal_text() {
        assert_eq!(parse_epoch(b"0"), Some(0));
        assert_eq!(parse_epoch(b"17\n"), Some(17));
        assert_eq!(parse_epoch(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"+1", b"-1", b"1 2", b"0x1", b"18446744073709551616", b"\xff"] {
            assert_eq!(parse_epoch(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn member_names_are_sixteen_hex_digits() {
        assert_eq!(parse_id("00000000000000ff"), Some(255));
        for bad in ["ff", "00000000000000FF", "+0000000000000ff", "g000000000000000", ""] {
            assert_eq!(parse_id(bad), None, "{bad:?}");
        }
    }
}
