//! ZooKeeper under load, with one session for each connection.

use bytes::{Buf, Bytes};
use quorumkv_client::Endpoint;
use serde_json::json;

use super::super::system::{Facts, Load, System, Target, all_at_once, majority};
use super::super::work::Call;
use super::session::{Session, SessionError};
use super::syncs::{self, Syncs};
use super::{CONNECT, Connect, failed, locked, plain, stranger, unreachable, within};
use crate::args::Op;
use crate::exit::{Code, Failure};
use crate::output::printable;

/// The znode below which all keys are.
const PARENT: &str = "/bench";

/// Where an ensemble keeps who belongs to it.
const CONFIGURATION: &str = "/zookeeper/config";

/// An ensemble.
pub(super) struct ZooKeeper {
    endpoints: Vec<Endpoint>,
    /// Spread over the endpoints in turn.
    sessions: Vec<Client>,
    /// Of each endpoint, before the load.
    before: Vec<Result<Syncs, String>>,
}

/// A session, and where it is.
#[derive(Clone)]
pub(super) struct Client {
    endpoint: Endpoint,
    session: Session,
}

impl Client {
    async fn open(endpoint: &Endpoint, load: &Load) -> Result<Self, Failure> {
        let open = async { Session::open(endpoint).await.map_err(|error| first_failure(endpoint, &error)) };
        let session = within(load.timeout.min(CONNECT), ZooKeeper::NAME, endpoint, open).await?;
        Ok(Self { endpoint: endpoint.clone(), session })
    }

    /// Sets a znode, which is created if it is absent.
    async fn write(&self, key: &Bytes, value: &Bytes) -> Result<(), Failure> {
        let path = path(key);
        let created = async { self.session.create(&path, value).await?.done().await };
        match created.await {
            Ok(_) => Ok(()),
            Err(error) if error.is(SessionError::NODE_EXISTS) => {
                let set = async { self.session.set_data(&path, value).await?.done().await };
                set.await.map(drop).map_err(|error| failure(&self.endpoint, &error))
            }
            Err(error) => Err(failure(&self.endpoint, &error)),
        }
    }

    async fn create_parent(&self) -> Result<(), Failure> {
        let created = async { self.session.create(PARENT, b"").await?.done().await };
        match created.await {
            Ok(_) => Ok(()),
            Err(error) if error.is(SessionError::NODE_EXISTS) => Ok(()),
            Err(error) => Err(failure(&self.endpoint, &error)),
        }
    }

    /// The voters of the ensemble as it has written them down, if it has; and whether a majority of them decides.
    async fn voters(&self) -> Result<Option<(usize, bool)>, SessionError> {
        let read = async { self.session.get_data(CONFIGURATION).await?.done().await };
        let mut body = match read.await {
            Ok(body) => body,
            Err(error) if error.is(SessionError::NO_NODE) => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = usize::try_from(body.try_get_i32().unwrap_or_default()).unwrap_or_default();
        Ok(voters(&String::from_utf8_lossy(&body[..length.min(body.len())])))
    }

    async fn done(&self, call: Call, path: &str, value: &[u8]) -> Result<(), SessionError> {
        let session = &self.session;
        match call {
            Call::Put => session.set_data(path, value).await?.done().await?,
            Call::Get => {
                // Requests of a session are carried out in their order, so the read need not wait for the sync's answer.
                let (synced, read) = (session.sync(path).await?, session.get_data(path).await?);
                synced.done().await?;
                read.done().await?
            }
            Call::GetLocal => session.get_data(path).await?.done().await?,
        };
        Ok(())
    }
}

impl Target for Client {
    async fn call(&mut self, call: Call, key: &Bytes, value: &Bytes) -> Result<(), Failure> {
        self.done(call, &path(key), value).await.map_err(|error| failure(&self.endpoint, &error))
    }
}

fn path(key: &Bytes) -> String {
    format!("/{}", String::from_utf8_lossy(key))
}

impl Connect for ZooKeeper {
    async fn connect(endpoints: &[Endpoint], load: &Load) -> Result<Self, Failure> {
        let mut sessions = Vec::new();
        // Endpoints beyond the connections that are asked for are tried all the same.
        for (i, endpoint) in
            endpoints.iter().cycle().enumerate().take(load.shared_connections().max(endpoints.len()))
        {
            let client = Client::open(endpoint, load).await?;
            if i < load.shared_connections() {
                sessions.push(client);
            } else {
                close(&client).await;
            }
        }
        Ok(Self { endpoints: endpoints.to_vec(), sessions, before: Vec::new() })
    }
}

/// A session that cannot be ended expires by itself.
async fn close(client: &Client) {
    let _ = tokio::time::timeout(CONNECT, client.session.close()).await;
}

impl System for ZooKeeper {
    const NAME: &'static str = "zookeeper";
    const NEEDS_KEYS: bool = true;
    type Target = Client;

    fn operation(&self, op: Op) -> String {
        let operation = match op {
            Op::Put => "setData",
            Op::Get => "sync + getData",
            Op::GetLocal => "getData",
            Op::Mixed => "90 % sync + getData, 10 % setData",
        };
        operation.to_owned()
    }

    fn caveat(&self, op: Op) -> Option<&'static str> {
        match op {
            Op::Get | Op::Mixed => Some(
                "a sync asks the leader and no quorum, so a leader that was replaced may still answer it",
            ),
            Op::Put | Op::GetLocal => None,
        }
    }

    async fn begin(&mut self, load: &Load) {
        for endpoint in &self.endpoints {
            self.before.push(synced(endpoint, load).await);
        }
    }

    async fn fill(&self, load: &Load, keys: &[Bytes]) -> Result<(), Failure> {
        let first = &self.sessions[0];
        within(load.timeout, Self::NAME, &first.endpoint, first.create_parent()).await?;
        let writes = keys.iter().zip(self.sessions.iter().cycle()).map(|(key, client)| {
            within(load.timeout, Self::NAME, &client.endpoint, client.write(key, &load.work.value))
        });
        all_at_once(writes).await
    }

    fn target(&self, client: usize) -> Client {
        self.sessions[client % self.sessions.len()].clone()
    }

    async fn facts(&self, load: &Load) -> Facts {
        let (mut facts, mut modes) = (Facts::default(), Vec::new());
        for endpoint in &self.endpoints {
            modes.extend(server(&mut facts, endpoint, load).await);
        }
        let time = load.timeout.min(CONNECT);
        match tokio::time::timeout(time, self.sessions[0].voters()).await {
            Ok(Ok(Some((voters, by_majority)))) => ensemble(&mut facts, voters, by_majority),
            Ok(Ok(None)) if modes.iter().any(|mode| mode == "standalone") => ensemble(&mut facts, 1, true),
            Ok(Ok(None)) => facts.unknown(&["members"], "members", &format!("{CONFIGURATION} is empty")),
            Ok(Err(error)) => facts.unknown(&["members"], "members", &format!("{CONFIGURATION}: {error}")),
            Err(_) => facts.unknown(&["members"], "members", "no answer"),
        }
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            let before = self.before.get(i).cloned().unwrap_or_else(|| Err("not asked before".to_owned()));
            syncs::tell(&mut facts, endpoint, "log", before, synced(endpoint, load).await);
        }
        facts
    }

    async fn close(self) {
        for client in &self.sessions {
            close(client).await;
        }
    }
}

/// Version and mode of one server; its mode if it tells.
async fn server(facts: &mut Facts, endpoint: &Endpoint, load: &Load) -> Option<String> {
    let path = ["mode", endpoint.as_str()];
    match word(endpoint, "srvr", load).await {
        Ok(answer) => {
            let after = |prefix| answer.lines().find_map(|line| line.strip_prefix(prefix)).map(str::trim);
            if let Some(version) = after("Zookeeper version:") {
                let short = version.split([',', '-', ' ']).next().unwrap_or(version);
                facts.version(&printable(short.as_bytes()));
            }
            let mode = printable(after("Mode:")?.as_bytes());
            facts.known(&path, mode.as_str(), format!("{endpoint} is {mode}"));
            Some(mode)
        }
        Err(why) => {
            facts.unknown(&path, &format!("mode of {endpoint}"), &why);
            None
        }
    }
}

fn ensemble(facts: &mut Facts, voters: usize, by_majority: bool) {
    let quorum = by_majority.then(|| majority(voters));
    let line = match quorum {
        Some(quorum) => format!("voters: {voters}; a write needs {quorum} of them"),
        None => {
            format!("voters: {voters}, in groups or with weights; how many a write needs is not worked out")
        }
    };
    facts.known(&["members"], json!({"voters": voters, "quorum": quorum}), line);
}

/// From the configuration as it stands in its znode.
fn voters(configuration: &str) -> Option<(usize, bool)> {
    let of = |prefix: &str| configuration.lines().filter(|line| line.starts_with(prefix)).count();
    let servers = configuration.lines().filter(|line| line.starts_with("server."));
    let voters = servers.filter(|line| !line.contains(":observer")).count();
    (voters > 0).then_some((voters, of("group.") == 0 && of("weight.") == 0))
}

/// How often a server has synced its log since it started. One that never syncs counts none.
async fn synced(endpoint: &Endpoint, load: &Load) -> Result<Syncs, String> {
    let answer = word(endpoint, "mntr", load).await?;
    let count = answer.lines().find_map(|line| line.strip_prefix("zk_cnt_fsynctime\t")?.trim().parse().ok());
    // It sums up whole milliseconds, rounded down, so what is left of quick syncs says nothing.
    count.map(|count| Syncs { count, ms: None }).ok_or_else(|| "mntr does not tell".to_owned())
}

/// What a four-letter word is answered.
async fn word(endpoint: &Endpoint, word: &str, load: &Load) -> Result<String, String> {
    let answer = plain::ask(endpoint, word, load.timeout.min(CONNECT)).await?;
    if answer.contains("is not executed because it is not in the whitelist") {
        return Err(format!("{word} is not in its 4lw.commands.whitelist"));
    }
    Ok(answer)
}

/// The first contact with an address has failed: perhaps nothing there is ZooKeeper.
fn first_failure(endpoint: &Endpoint, error: &SessionError) -> Failure {
    match error {
        SessionError::NoSession | SessionError::Nonsense => stranger(ZooKeeper::NAME, endpoint, error),
        SessionError::Connect(_) | SessionError::Lost | SessionError::Refused { .. } => {
            failure(endpoint, error)
        }
    }
}

fn failure(endpoint: &Endpoint, error: &SessionError) -> Failure {
    let name = ZooKeeper::NAME;
    match error {
        SessionError::Connect(_) | SessionError::NoSession | SessionError::Lost => {
            unreachable(name, endpoint, error)
        }
        SessionError::Nonsense => stranger(name, endpoint, error),
        SessionError::Refused {
            code: SessionError::NO_AUTH | SessionError::AUTH_FAILED | SessionError::NEEDS_SASL,
        } => locked(name, endpoint, error),
        SessionError::Refused { code: SessionError::NO_NODE } => {
            failed(Code::NotFound, name, endpoint, error)
        }
        SessionError::Refused { .. } => failed(Code::Other, name, endpoint, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_are_those_of_the_configuration() {
        let three = "server.1=a:2888:3888:participant;0.0.0.0:2181\nserver.2=b:2888:3888:participant\n\
            server.3=c:2888:3888\nserver.4=d:2888:3888:observer;2181\nversion=0";
        assert_eq!(voters(three), Some((3, true)));
        assert_eq!(voters(&format!("{three}\ngroup.1=1:2\nweight.1=2")), Some((3, false)));
        assert_eq!(voters("version=0"), None);
        assert_eq!(voters(""), None);
    }

    #[test]
    fn what_a_server_refuses_says_what_to_do() {
        let endpoint: Endpoint = "z:2181".parse().expect("an endpoint");
        for (error, code) in [
            (SessionError::Refused { code: SessionError::NO_AUTH }, Code::NotPermitted),
            (SessionError::Refused { code: SessionError::NEEDS_SASL }, Code::NotPermitted),
            (SessionError::Refused { code: SessionError::NO_NODE }, Code::NotFound),
            (SessionError::Refused { code: -4 }, Code::Other),
            (SessionError::Lost, Code::Unreachable),
        ] {
            assert_eq!(failure(&endpoint, &error).code(), Some(code), "{error}");
        }
    }
}
