//! Redis under load: a leader and its replicas.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use quorumkv_client::Endpoint;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError};
use serde_json::{Map, Value, json};

use super::super::system::{Facts, Load, System, Target, all_at_once, majority};
use super::super::work::Call;
use super::{CONNECT, Connect, causes, failed, locked, stranger, unreachable, within};
use crate::args::Op;
use crate::exit::{Code, Failure};
use crate::output::printable;

/// What decides whether a write outlives its process.
const SETTINGS: [&str; 3] = ["appendonly", "appendfsync", "save"];

/// A leader and its replicas.
pub(super) struct Redis {
    nodes: Vec<Node>,
    /// Which of the nodes leads.
    leader: usize,
    /// How many replicas have to acknowledge a write, so that a majority of all has it.
    wait: usize,
    connections: Vec<Connection>,
}

/// One that was named.
struct Node {
    connection: Connection,
    info: Info,
}

/// A connection for one client, or for several where none waits for replicas.
#[derive(Clone)]
pub(super) struct Connection {
    endpoint: Endpoint,
    redis: MultiplexedConnection,
    wait: usize,
    timeout: Duration,
}

/// What `INFO` says, by name.
struct Info(HashMap<String, String>);

impl Info {
    fn of(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn leads(&self) -> bool {
        self.get("role") == Some("master")
    }

    fn replicas(&self) -> usize {
        self.get("connected_slaves").and_then(|number| number.parse().ok()).unwrap_or_default()
    }
}

impl Connection {
    async fn open(endpoint: &Endpoint, load: &Load) -> Result<Self, Failure> {
        let (host, port) = endpoint.as_str().rsplit_once(':').unwrap_or((endpoint.as_str(), ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let info = (host, port.parse().unwrap_or_default()).into_connection_info();
        let info = info.map_err(|error| failure(endpoint, &error))?;
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info =
            info.set_tcp_settings(TcpSettings::default().set_nodelay(true)).set_redis_settings(settings);
        let client = redis::Client::open(info).map_err(|error| failure(endpoint, &error))?;
        let time = load.timeout.min(CONNECT);
        // Whoever asks bounds the time of an answer, as with the other systems.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(time)).set_response_timeout(None);
        let redis = client.get_multiplexed_async_connection_with_config(&config).await;
        let redis = redis.map_err(|error| failure(endpoint, &error))?;
        Ok(Self { endpoint: endpoint.clone(), redis, wait: 0, timeout: load.timeout })
    }

    /// Writes, and waits until enough replicas have it.
    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<usize, RedisError> {
        if self.wait == 0 {
            redis::cmd("SET").arg(key).arg(value).exec_async(&mut self.redis).await?;
            return Ok(0);
        }
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(key).arg(value).ignore();
        pipe.cmd("WAIT").arg(self.wait).arg(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX));
        let (acknowledged,): (usize,) = pipe.query_async(&mut self.redis).await?;
        Ok(acknowledged)
    }

    async fn info(&mut self) -> Result<Info, Failure> {
        let text: Result<String, _> = redis::cmd("INFO").query_async(&mut self.redis).await;
        let info = Info::of(&text.map_err(|error| failure(&self.endpoint, &error))?);
        if info.get("redis_mode") == Some("cluster") {
            let why = "it belongs to a Redis Cluster, whose keys are spread over several leaders";
            return Err(failed(Code::Usage, Redis::NAME, &self.endpoint, &why)
                .advise("compare with one leader and its replicas"));
        }
        match info.get("role") {
            Some(_) => Ok(info),
            None => Err(stranger(Redis::NAME, &self.endpoint, &"INFO names no role")),
        }
    }

    /// Settings, and None for what may not be asked.
    async fn setting(&mut self, name: &str) -> Option<String> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        let told: Result<HashMap<String, String>, _> = command.query_async(&mut self.redis).await;
        told.ok()?.remove(name)
    }
}

impl Target for Connection {
    async fn call(&mut self, call: Call, key: &Bytes, value: &Bytes) -> Result<(), Failure> {
        if call == Call::Put {
            let acknowledged = self.put(key, value).await.map_err(|error| failure(&self.endpoint, &error))?;
            if acknowledged >= self.wait {
                return Ok(());
            }
            let why = format!("{acknowledged} replicas instead of {} acknowledged a write", self.wait);
            return Err(failed(Code::OutcomeUnknown, Redis::NAME, &self.endpoint, &why));
        }
        let got: Result<Option<Bytes>, _> =
            redis::cmd("GET").arg(&key[..]).query_async(&mut self.redis).await;
        match got {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                Err(failed(Code::NotFound, Redis::NAME, &self.endpoint, &"a key that was filled is missing"))
            }
            Err(error) => Err(failure(&self.endpoint, &error)),
        }
    }
}

impl Connect for Redis {
    async fn connect(endpoints: &[Endpoint], load: &Load) -> Result<Self, Failure> {
        let time = load.timeout.min(CONNECT);
        let mut nodes = Vec::new();
        for endpoint in endpoints {
            let mut connection = within(time, Self::NAME, endpoint, Connection::open(endpoint, load)).await?;
            let info = within(time, Self::NAME, endpoint, connection.info()).await?;
            nodes.push(Node { connection, info });
        }
        let leader = leader(&nodes)?;
        let wait = wait(endpoints, leader, &nodes[leader].info)?;
        let mut redis = Self { nodes, leader, wait, connections: Vec::new() };
        let puts = load.work.calls().contains(&Call::Put);
        let number = if wait > 0 && puts { load.clients } else { load.shared_connections() };
        let anywhere = load.work.op == Op::GetLocal;
        for i in 0..number {
            let endpoint = &endpoints[if anywhere { i % endpoints.len() } else { leader }];
            let connection = within(time, Self::NAME, endpoint, Connection::open(endpoint, load)).await?;
            redis.connections.push(Connection { wait, ..connection });
        }
        Ok(redis)
    }
}

/// Which of the nodes leads all others.
fn leader(nodes: &[Node]) -> Result<usize, Failure> {
    let leaders: Vec<usize> = (0..nodes.len()).filter(|&i| nodes[i].info.leads()).collect();
    match leaders[..] {
        [leader] => Ok(leader),
        [] => {
            let Node { connection, info } = &nodes[0];
            let of = |name| printable(info.get(name).unwrap_or("?").as_bytes());
            let why = format!("it is a replica of {}:{}", of("master_host"), of("master_port"));
            Err(failed(Code::Usage, Redis::NAME, &connection.endpoint, &why).advise("name its leader, too"))
        }
        [_, second, ..] => {
            let why = "it leads, as does another that is named beside it";
            Err(failed(Code::Usage, Redis::NAME, &nodes[second].connection.endpoint, &why)
                .advise("name one leader and its replicas"))
        }
    }
}

/// How many replicas make a majority together with the leader: of all that are named or that it knows.
fn wait(endpoints: &[Endpoint], leader: usize, info: &Info) -> Result<usize, Failure> {
    let nodes = endpoints.len().max(1 + info.replicas());
    let wait = majority(nodes) - 1;
    if info.replicas() >= wait {
        return Ok(wait);
    }
    let why = format!(
        "{} replicas are connected to it, and with itself a majority of {nodes} needs {wait}",
        info.replicas()
    );
    Err(failed(Code::Unhealthy, Redis::NAME, &endpoints[leader], &why)
        .advise("see why its replicas do not follow it, or name only those that do"))
}

impl System for Redis {
    const NAME: &'static str = "redis";
    type Target = Connection;

    fn operation(&self, op: Op) -> String {
        let put = match self.wait {
            0 => "SET".to_owned(),
            wait => format!("SET + WAIT {wait}"),
        };
        match op {
            Op::Put => put,
            Op::Get => "GET at the leader".to_owned(),
            Op::GetLocal => "GET at any node".to_owned(),
            Op::Mixed => format!("90 % GET at the leader, 10 % {put}"),
        }
    }

    fn caveat(&self, op: Op) -> Option<&'static str> {
        match op {
            Op::Put => Some(
                "a replica acknowledges what it has received; one without it may still become the leader",
            ),
            Op::Get => Some("not linearizable: a leader that was replaced may still answer"),
            Op::Mixed => Some(
                "not linearizable: a leader that was replaced may still answer, and a replica without an acknowledged write may lead",
            ),
            Op::GetLocal => None,
        }
    }

    async fn begin(&mut self, _load: &Load) {}

    async fn fill(&self, load: &Load, keys: &[Bytes]) -> Result<(), Failure> {
        let Node { connection: leader, .. } = &self.nodes[self.leader];
        let puts = keys.iter().map(|key| {
            let mut connection = leader.clone();
            let put = async move {
                let put = connection.put(key, &load.work.value).await;
                put.map(drop).map_err(|error| failure(&connection.endpoint, &error))
            };
            within(load.timeout, Self::NAME, &leader.endpoint, put)
        });
        all_at_once(puts).await?;
        // Replicas are read as well, so they should have the keys. If some of them never do, the reads tell.
        let replicas = self.nodes[self.leader].info.replicas();
        let mut command = redis::cmd("WAIT");
        command.arg(replicas).arg(u64::try_from(load.timeout.as_millis()).unwrap_or(u64::MAX));
        let mut connection = leader.clone();
        let waited: Result<usize, _> = command.query_async(&mut connection.redis).await;
        waited.map(drop).map_err(|error| failure(&leader.endpoint, &error))
    }

    fn target(&self, client: usize) -> Connection {
        self.connections[client % self.connections.len()].clone()
    }

    async fn facts(&self, load: &Load) -> Facts {
        let mut facts = Facts::default();
        let replicas = self.nodes[self.leader].info.replicas();
        let line = match self.wait {
            0 => format!("replicas: {replicas}; SET waits for none"),
            wait => format!("replicas: {replicas}; WAIT waits for {wait} of them"),
        };
        facts.known(&["replicas"], json!({"connected": replicas, "wait": self.wait}), line);
        for Node { connection, info } in &self.nodes {
            if let Some(version) = info.get("redis_version") {
                facts.version(&printable(version.as_bytes()));
            }
            let asked = settings(connection.clone());
            let told = tokio::time::timeout(load.timeout.min(CONNECT), asked).await.unwrap_or_default();
            node(&mut facts, &connection.endpoint, info, &told);
        }
        facts
    }

    async fn close(self) {}
}

/// What may be asked of a node's settings.
async fn settings(mut connection: Connection) -> Vec<(&'static str, String)> {
    let mut told = Vec::new();
    for name in SETTINGS {
        if let Some(value) = connection.setting(name).await {
            told.push((name, printable(value.as_bytes())));
        }
    }
    told
}

/// What one node does for durability.
fn node(facts: &mut Facts, endpoint: &Endpoint, info: &Info, told: &[(&str, String)]) {
    let role = if info.leads() { "leader" } else { "replica" };
    let setting = |name: &str| told.iter().find(|(told, _)| *told == name).map(|(_, value)| value.as_str());
    // INFO tells this much also where CONFIG is not permitted.
    let by_info = match info.get("aof_enabled") {
        Some("1") => Some("yes"),
        Some("0") => Some("no"),
        _ => None,
    };
    let appendonly = setting("appendonly").or(by_info);
    let json: Map<String, Value> = [
        ("role".to_owned(), role.into()),
        ("appendonly".to_owned(), appendonly.into()),
        ("appendfsync".to_owned(), setting("appendfsync").into()),
        ("save".to_owned(), setting("save").into()),
    ]
    .into_iter()
    .collect();
    let shown = |value: Option<&str>| match value {
        None => "unknown (CONFIG GET does not tell)".to_owned(),
        Some("") => "\"\"".to_owned(),
        Some(value) => value.to_owned(),
    };
    let appendfsync = match appendonly {
        Some("no") => String::new(),
        _ => format!(", appendfsync {}", shown(setting("appendfsync"))),
    };
    let line = format!(
        "{endpoint} ({role}): appendonly {}{appendfsync}, save {}",
        shown(appendonly),
        shown(setting("save"))
    );
    facts.known(&["nodes", endpoint.as_str()], json, line);
}

fn failure(endpoint: &Endpoint, error: &RedisError) -> Failure {
    let (name, said) = (Redis::NAME, causes(error));
    match error.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => return locked(name, endpoint, &said),
        Some("OOM") => return failed(Code::Limit, name, endpoint, &said),
        Some("NOREPLICAS" | "READONLY" | "MASTERDOWN") => {
            return failed(Code::NoQuorum, name, endpoint, &said);
        }
        _ => {}
    }
    match error.kind() {
        ErrorKind::Io => unreachable(name, endpoint, &said),
        ErrorKind::Parse => stranger(name, endpoint, &said),
        _ => failed(Code::Other, name, endpoint, &said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(number: usize) -> Vec<Endpoint> {
        (1..=number).map(|port| format!("r:{port}").parse().expect("an endpoint")).collect()
    }

    #[test]
    fn a_majority_is_one_of_all_that_are_named_or_connected() {
        let info =
            |replicas| Info::of(&format!("# Replication\r\nrole:master\r\nconnected_slaves:{replicas}\r\n"));
        for (named, connected, waits) in
            [(1, 0, 0), (1, 1, 1), (1, 2, 1), (3, 2, 1), (2, 1, 1), (1, 4, 2), (3, 1, 1)]
        {
            let waited = wait(&endpoints(named), 0, &info(connected)).map_err(|failure| failure.code());
            assert_eq!(waited, Ok(waits), "{named} named, {connected} connected");
        }
        let refused = wait(&endpoints(3), 0, &info(0)).map_err(|failure| failure.code());
        assert_eq!(refused, Err(Some(Code::Unhealthy)));
    }

    #[test]
    fn what_a_node_does_not_tell_is_unknown() {
        let (mut facts, endpoint) = (Facts::default(), &endpoints(1)[0]);
        let told =
            [("appendonly", "yes".to_owned()), ("appendfsync", "always".to_owned()), ("save", String::new())];
        node(&mut facts, endpoint, &Info::of("role:master\naof_enabled:1\n"), &told);
        node(&mut facts, endpoint, &Info::of("role:slave\naof_enabled:0\n"), &[]);
        node(&mut facts, endpoint, &Info::of("role:slave\n"), &[]);
        assert_eq!(
            facts.lines(),
            [
                "r:1 (leader): appendonly yes, appendfsync always, save \"\"",
                "r:1 (replica): appendonly no, save unknown (CONFIG GET does not tell)",
                "r:1 (replica): appendonly unknown (CONFIG GET does not tell), appendfsync unknown (CONFIG GET does not tell), \
                    save unknown (CONFIG GET does not tell)",
            ]
        );
    }
}
