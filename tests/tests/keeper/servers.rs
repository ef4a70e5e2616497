//! The servers that tests speak with: Apache ZooKeeper in Docker, and keeperd.

use std::env;

use anyhow::{Context, Result};
use quorumkv_tests::keeperd::Keeperd;
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::raw::Connection;

/// Names a server that runs already (`host:port`), to be tested in keeperd's place.
const KEEPER_VARIABLE: &str = "KV_TEST_KEEPER";

/// As in `tests/src/zookeeper/containers.rs`.
const SETTINGS: [&str; 8] = [
    "--tick-time",
    "200ms",
    "--min-session-timeout",
    "200ms",
    "--max-session-timeout",
    "60s",
    "--container-check-interval",
    "1h",
];

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    /// `host:port`.
    pub(crate) address: String,
    /// What it is, for messages and for what is known to differ.
    pub(crate) kind: Kind,
    _apache: Option<ZooKeeper>,
    _keeper: Option<Keeperd>,
}

/// What a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Apache ZooKeeper 3.8 or older.
    Old,
    /// Apache ZooKeeper 3.9 or newer, which keeper follows.
    New,
    /// keeperd.
    Keeper,
}

impl Server {
    /// Apache ZooKeeper in Docker.
    pub(crate) fn apache() -> Result<Self> {
        let apache = ZooKeeper::in_docker(1)?;
        let address = apache.connect_string();
        let kind = if minor_version(&address)? < 9 { Kind::Old } else { Kind::New };
        Ok(Self { address, kind, _apache: Some(apache), _keeper: None })
    }

    /// keeperd with the settings of the servers in Docker: their sessions, and containers that stay.
    pub(crate) fn keeper() -> Result<Self> {
        if let Ok(address) = env::var(KEEPER_VARIABLE) {
            return Ok(Self { address, kind: Kind::Keeper, _apache: None, _keeper: None });
        }
        let keeper = Keeperd::start(&SETTINGS)?;
        Ok(Self { address: keeper.address(), kind: Kind::Keeper, _apache: None, _keeper: Some(keeper) })
    }
}

/// The `9` of `3.9.3`, as the server says it.
fn minor_version(address: &str) -> Result<u32> {
    let mut connection = Connection::open(address)?;
    connection.send_bytes(b"srvr")?;
    let answer = String::from_utf8(connection.rest()?)?;
    let version = answer.split("version: 3.").nth(1).with_context(|| format!("no version in {answer:?}"))?;
    version.split('.').next().unwrap_or_default().parse().with_context(|| format!("no number in {answer:?}"))
}
