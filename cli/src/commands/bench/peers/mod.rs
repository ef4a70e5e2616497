//! Other systems, which the user has running, under the same load as kvd.
//!
//! Each is loaded as quickly as its protocol permits: etcd over several HTTP/2 connections, ZooKeeper over several
//! sessions on which requests are sent ahead, Redis over as many connections, or over one for each client where `WAIT`
//! blocks it. Connections go to the endpoints in turn.

mod etcd;
mod plain;
mod redis;
mod session;
mod syncs;
mod zookeeper;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use quorumkv_client::Endpoint;
use tokio::time::timeout;

use super::progress::Progress;
use super::report::Measurement;
use super::system::{Load, System, Target};
use super::turn;
use crate::exit::{Code, Failure};
use crate::output::printable;

use etcd::Etcd;
use redis::Redis;
use zookeeper::ZooKeeper;

/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(5);

/// A system to compare with, as it is named on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    kind: Kind,
    /// At least one, each once.
    endpoints: Vec<Endpoint>,
}

/// What systems there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Etcd,
    ZooKeeper,
    Redis,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Etcd => Etcd::NAME,
            Self::ZooKeeper => ZooKeeper::NAME,
            Self::Redis => Redis::NAME,
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Etcd, Self::ZooKeeper, Self::Redis].into_iter().find(|kind| kind.name() == name)
    }
}

/// A system that can be connected to by its endpoints alone.
trait Connect: System + Sized {
    /// Connects to all endpoints, and finds out that they are what they are taken for.
    async fn connect(endpoints: &[Endpoint], load: &Load) -> Result<Self, Failure>;
}

impl Peer {
    /// From `SYSTEM=HOST:PORT[,HOST:PORT…]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected etcd=HOST:PORT, zookeeper=HOST:PORT or redis=HOST:PORT, or several HOST:PORT separated by commas";
        let (name, addresses) = text.split_once('=').ok_or(EXPECTED)?;
        let kind = Kind::named(name)
            .ok_or_else(|| format!("no system {name:?} can be compared with: {EXPECTED}"))?;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for address in addresses.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            let endpoint = address.parse().map_err(|error| format!("{error}"))?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        if endpoints.is_empty() {
            return Err(format!("{name} has no address: {EXPECTED}"));
        }
        Ok(Self { kind, endpoints })
    }

    pub(super) const fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Does once all that will be measured, so that it fails now if it does at all.
    pub(super) async fn check(&self, load: &Load) -> Result<(), Failure> {
        match self.kind {
            Kind::Etcd => try_out::<Etcd>(self, load).await,
            Kind::ZooKeeper => try_out::<ZooKeeper>(self, load).await,
            Kind::Redis => try_out::<Redis>(self, load).await,
        }
    }

    /// Measures it.
    pub(super) async fn measure(
        &self,
        load: &Load,
        progress: &Progress,
    ) -> Result<(Measurement, Option<Failure>), Failure> {
        match self.kind {
            Kind::Etcd => measure::<Etcd>(self, load, progress).await,
            Kind::ZooKeeper => measure::<ZooKeeper>(self, load, progress).await,
            Kind::Redis => measure::<Redis>(self, load, progress).await,
        }
    }
}

async fn measure<S: Connect>(
    peer: &Peer,
    load: &Load,
    progress: &Progress,
) -> Result<(Measurement, Option<Failure>), Failure> {
    progress.does(S::NAME, "is connected to");
    let system = S::connect(&peer.endpoints, load).await?;
    turn(system, Some(&peer.endpoints), load, progress).await
}

async fn try_out<S: Connect>(peer: &Peer, load: &Load) -> Result<(), Failure> {
    let load = Load { clients: 1, connections: 1, timeout: load.timeout.min(CONNECT), ..load.clone() };
    let system = S::connect(&peer.endpoints, &load).await?;
    let key = &load.work.first_key();
    system.fill(&load, std::slice::from_ref(key)).await?;
    let mut client = system.target(0);
    for call in load.work.calls() {
        let first = &peer.endpoints[0];
        within(load.timeout, S::NAME, first, client.call(*call, key, &load.work.value)).await?;
    }
    system.close().await;
    Ok(())
}

/// At most for this time.
async fn within<T>(
    time: Duration,
    system: &str,
    endpoint: &Endpoint,
    operation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match timeout(time, operation).await {
        Ok(ended) => ended,
        Err(_) => Err(unreachable(system, endpoint, &format!("no answer within {time:?}"))),
    }
}

/// Nothing can be had from a peer.
fn unreachable(system: &str, endpoint: &Endpoint, why: &dyn fmt::Display) -> Failure {
    failed(Code::Unreachable, system, endpoint, why).advise(format!(
        "check that {system} runs there and serves, and the address in --compare {system}=HOST:PORT"
    ))
}

/// Something else than the peer answers, or it answers in another way.
fn stranger(system: &str, endpoint: &Endpoint, why: &dyn fmt::Display) -> Failure {
    let why = format!("it does not answer as {system} does: {why}");
    failed(Code::Unreachable, system, endpoint, &why).advise(format!(
        "check the address in --compare {system}=HOST:PORT; it must be the port for clients, without TLS"
    ))
}

/// A peer wants to know who asks.
fn locked(system: &str, endpoint: &Endpoint, why: &dyn fmt::Display) -> Failure {
    failed(Code::NotPermitted, system, endpoint, why).advise(format!(
        "kvctl bench has no passwords or certificates: compare with an instance of {system} that lets everyone write keys under bench/"
    ))
}

/// Anything else.
fn failed(code: Code, system: &str, endpoint: &Endpoint, why: &dyn fmt::Display) -> Failure {
    let why = printable(why.to_string().as_bytes());
    let failure = Failure::new(code, format!("{system} at {endpoint}: {why}"));
    // The usual advice is about kvd.
    failure.advise(format!("look at what {system} logs"))
}

/// An error with all its causes, each said once.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_named_with_their_addresses() {
        let peer = Peer::parse("etcd=127.0.0.1:2379,[::1]:2379, 127.0.0.1:2379,").expect("it is well formed");
        assert_eq!(peer.name(), "etcd");
        assert_eq!(
            peer.endpoints.iter().map(Endpoint::as_str).collect::<Vec<_>>(),
            ["127.0.0.1:2379", "[::1]:2379"]
        );
        for (text, reason) in [
            ("127.0.0.1:2379", "expected etcd=HOST:PORT"),
            ("consul=127.0.0.1:8500", "no system \"consul\""),
            ("Etcd=127.0.0.1:2379", "no system \"Etcd\""),
            ("redis=", "no address"),
            ("redis=localhost", "no port"),
            ("zookeeper=http://localhost:2181", "not an endpoint"),
        ] {
            let refused = Peer::parse(text).expect_err(text);
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn causes_are_said_once() {
        let inner = std::io::Error::other("connection refused");
        let outer = std::io::Error::other(inner);
        assert_eq!(causes(&outer), "connection refused");
    }
}
