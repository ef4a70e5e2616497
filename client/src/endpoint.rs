//! Addresses of nodes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Where a node listens: `host:port`, with brackets around an IPv6 address. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(Arc<str>);

/// Why a text is not an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{text:?} is not an endpoint: {problem} (expected host:port, such as 127.0.0.1:5000 or [::1]:5000)")]
pub struct EndpointError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Endpoint {
    /// The address as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        check(text).map_err(|problem| EndpointError { text: text.to_owned(), problem })?;
        Ok(Self(text.into()))
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
    match port.parse::<u16>() {
        Ok(0) => return Err("port 0 cannot be connected to"),
        Ok(_) if port.starts_with('+') => return Err("the port is not a number"),
        Ok(_) => {}
        Err(_) => return Err("the port is not a number from 1 to 65535"),
    }
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').ok_or("the bracket is not closed")?;
        return address
            .parse::<std::net::Ipv6Addr>()
            .map(drop)
            .map_err(|_| "no IPv6 address is in the brackets");
    }
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match host {
        "" => Err("it has no host"),
        _ if host.contains(':') => Err("an IPv6 address needs brackets"),
        _ if host.bytes().all(is_host_byte) => Ok(()),
        _ => Err("the host has characters that no host name has"),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_kind_are_taken() {
        for text in
            ["127.0.0.1:5000", "kv-1.example.org:1", "localhost:65535", "[::1]:5000", "kvd_kv1_1:5000"]
        {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_problem() {
        for text in [
            "",
            ":",
            "host",
            "host:",
            ":5000",
            "host:0",
            "host:65536",
            "host:+5",
            "host:5x",
            "::1:5000",
            "[::1:5000",
            "[host]:5000",
            "ho st:5000",
            "http://host:5000",
            "host:5000/",
            "[]:1",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().contains(&error.problem.to_string()), "{error}");
        }
    }
}
