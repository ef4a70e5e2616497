//! Where ZooKeeper is, as people write it: `HOST[:PORT][,HOST[:PORT]…][/root]`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use thiserror::Error;

/// The port ZooKeeper listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 2181;

/// The znode under which everything is kept unless the connect string names another.
pub const DEFAULT_ROOT: &str = "/quorumkv";

/// A host and its port. The host is a name, an IPv4 address, or an IPv6 address, which is written in brackets.
///
/// The text form is canonical, so two equal addresses print alike: znodes of one node are recognised by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostPortError {
    /// Nothing stands before the port.
    #[error("{0:?} names no host")]
    NoHost(String),
    /// The port is required here, and missing.
    #[error("{0:?} names no port (write HOST:PORT)")]
    NoPort(String),
    /// The port is not a number from 1 to 65535.
    #[error("{port:?} in {text:?} is no port (1 to 65535)")]
    BadPort {
        /// The whole address.
        text: String,
        /// The part of it that should be a port.
        port: String,
    },
    /// An IPv6 address whose end cannot be told from its port, or brackets around something else.
    #[error("{0:?} is no address (an IPv6 address is written [ADDRESS]:PORT)")]
    BadIpv6(String),
    /// The host has a character that no host name has.
    #[error("{host:?} is no host name ({character:?} cannot be part of one)")]
    BadHost {
        /// The host as written.
        host: String,
        /// The first character that is wrong.
        character: char,
    },
}

impl HostPort {
    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn parse(text: &str, default_port: Option<u16>) -> Result<Self, HostPortError> {
        let (host, port) = split_port(text)?;
        let port = match (port, default_port) {
            (Some(port), _) => parse_port(text, port)?,
            (None, Some(port)) => port,
            (None, None) => return Err(HostPortError::NoPort(text.to_owned())),
        };
        Ok(Self { host, port })
    }
}

/// Splits off the port's text and checks the host.
fn split_port(text: &str) -> Result<(String, Option<&str>), HostPortError> {
    let bad_ipv6 = || HostPortError::BadIpv6(text.to_owned());
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(bad_ipv6)?;
        let host: Ipv6Addr = host.parse().map_err(|_| bad_ipv6())?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or_else(bad_ipv6)?),
        };
        return Ok((host.to_string(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err(bad_ipv6());
    }
    if host.is_empty() {
        return Err(HostPortError::NoHost(text.to_owned()));
    }
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match host.chars().find(|&c| !part_of_name(c)) {
        Some(character) => Err(HostPortError::BadHost { host: host.to_owned(), character }),
        None => Ok((host.to_ascii_lowercase(), port)),
    }
}

fn parse_port(text: &str, port: &str) -> Result<u16, HostPortError> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number != 0 => Ok(number),
        _ => Err(HostPortError::BadPort { text: text.to_owned(), port: port.to_owned() }),
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, None)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The ZooKeeper servers to use and the znode under which this cluster keeps what it stores there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectString {
    servers: Vec<HostPort>,
    root: String,
}

/// Why a text is not a connect string.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectStringError {
    /// There is no server in it.
    #[error("no ZooKeeper server is named (write HOST:PORT[,HOST:PORT…][/root])")]
    Empty,
    /// One of the servers is not an address.
    #[error("bad ZooKeeper server: {0}")]
    Server(#[from] HostPortError),
    /// The root is not a path that ZooKeeper can hold for us.
    #[error("bad ZooKeeper root path {root:?}: {reason}")]
    Root {
        /// The path as written.
        root: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl ConnectString {
    /// The servers, in the order written.
    pub fn servers(&self) -> &[HostPort] {
        &self.servers
    }

    /// Absolute path without a trailing slash, [`DEFAULT_ROOT`] unless written.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// `HOST:PORT,HOST:PORT`, the servers without the root.
    pub(crate) fn servers_text(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(HostPort::to_string).collect();
        servers.join(",")
    }
}

impl FromStr for ConnectString {
    type Err = ConnectStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (servers, root) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, DEFAULT_ROOT),
        };
        if servers.is_empty() {
            return Err(ConnectStringError::Empty);
        }
        let servers = servers
            .split(',')
            .map(|server| HostPort::parse(server.trim(), Some(DEFAULT_PORT)))
            .collect::<Result<_, _>>()?;
        check_root(root).map_err(|reason| ConnectStringError::Root { root: root.to_owned(), reason })?;
        Ok(Self { servers, root: root.to_owned() })
    }
}

/// ZooKeeper's own rules for paths, and two of ours: not the top, and not ZooKeeper's own tree.
fn check_root(root: &str) -> Result<(), &'static str> {
    let Some(path) = root.strip_prefix('/') else {
        return Err("it must begin with a slash");
    };
    if path.is_empty() {
        return Err("it must name a znode, not the top of the tree");
    }
    for part in path.split('/') {
        match part {
            "" => return Err("it must not have an empty part or end with a slash"),
            "." | ".." => return Err("relative parts are not allowed"),
            _ => {}
        }
    }
    if path.split('/').next() == Some("zookeeper") {
        return Err("/zookeeper belongs to ZooKeeper itself");
    }
    if path.contains(',') {
        return Err("the root path is written once, after the last server");
    }
    let forbidden =
        |c: char| c.is_control() || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    if path.contains(forbidden) {
        return Err("it has a character that ZooKeeper does not allow");
    }
    Ok(())
}

impl fmt::Display for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.servers_text(), self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, ConnectStringError> {
        text.parse::<ConnectString>().map(|parsed| parsed.to_string())
    }

    #[test]
    fn names_addresses_ports_and_roots_are_understood() {
        for (text, canonical) in [
            ("zk", "zk:2181/quorumkv"),
            ("127.0.0.1:2182", "127.0.0.1:2182/quorumkv"),
            ("[::1]", "[::1]:2181/quorumkv"),
            ("[0:0::1]:99/kv", "[::1]:99/kv"),
            ("ZK1.Example.org:1, zk_2,zk-3:65535/a/b c", "zk1.example.org:1,zk_2:2181,zk-3:65535/a/b c"),
            ("  zk:2181  ", "zk:2181/quorumkv"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(canonical), "{text:?}");
            assert_eq!(parse(canonical).as_deref(), Ok(canonical), "{text:?} is stable");
        }
    }

    #[test]
    fn every_mistake_is_named() {
        for (text, message) in [
            ("", "no ZooKeeper server is named"),
            ("/kv", "no ZooKeeper server is named"),
            ("zk,", "names no host"),
            (",zk", "names no host"),
            (":2181", "names no host"),
            ("zk:", "is no port"),
            ("zk:0", "is no port"),
            ("zk:65536", "is no port"),
            ("zk:+1", "is no port"),
            ("zk:http", "is no port"),
            ("::1:2181", "an IPv6 address is written"),
            ("[::1", "an IPv6 address is written"),
            ("[::1]2181", "an IPv6 address is written"),
            ("[zk]:2181", "an IPv6 address is written"),
            ("z k:2181", "cannot be part of one"),
            ("tcp://zk:2181", "is no port"),
            ("zk/", "not the top of the tree"),
            ("zk/a/", "empty part"),
            ("zk//a", "empty part"),
            ("zk/a/../b", "relative parts"),
            ("zk/zookeeper/kv", "belongs to ZooKeeper"),
            ("zk/a,zk2/a", "written once"),
            ("zk/a\u{7}", "does not allow"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_nodes_own_address_needs_its_port() {
        assert_eq!("kv1".parse::<HostPort>(), Err(HostPortError::NoPort("kv1".to_owned())));
        assert_eq!("kv1:5000".parse::<HostPort>().map(|a| a.to_string()), Ok("kv1:5000".to_owned()));
    }
}
