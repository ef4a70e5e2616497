//! How a client is made.

use std::sync::Arc;
use std::time::Duration;

use quorumkv_protocol::{ClientId, ClusterId};

use crate::client::{Client, Shared};
use crate::context::{Context, Patience};
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::pool::Pool;
use crate::sequences::Sequences;

/// The deadline of an operation unless it is set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest name of a client, in bytes: the handshake is short.
const NAME_LIMIT: usize = 256;

/// Settings of a [`Client`] that is about to be made.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect`"]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    timeout: Duration,
    connections: usize,
    name: String,
    cluster: Option<ClusterId>,
    patience: Patience,
    spread_writes: bool,
}

impl ClientBuilder {
    pub(crate) fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            timeout: TIMEOUT,
            connections: 1,
            name: "quorumkv-client".to_owned(),
            cluster: None,
            patience: Patience::DEFAULT,
            spread_writes: false,
        }
    }

    /// Whether writes go to all endpoints, as reads do, and are forwarded by them; otherwise they go to the leader as soon as it is
    /// known, which is less work.
    pub const fn spread_writes(mut self, spread: bool) -> Self {
        self.spread_writes = spread;
        self
    }

    /// How long an operation may take with all its retries; 10 seconds unless set, and 49 days at most.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many connections to keep to each endpoint; one unless set (or set to zero), which is enough for most.
    pub const fn connections(mut self, connections: usize) -> Self {
        self.connections = if connections == 0 { 1 } else { connections };
        self
    }

    /// What nodes call this client in their logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The cluster that the endpoints must belong to. Unless set, it is that of the first node that answers.
    pub const fn cluster(mut self, cluster: ClusterId) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// How long connecting and the handshake may take together; 5 seconds unless set.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.patience.hello = timeout;
        self
    }

    /// How long a node that owes answers may be silent before its connection is given up; 3 seconds unless set.
    ///
    /// It is probed after a twelfth of that, and after a sixth (half a second) reads and writes move on to another node.
    pub fn silence_timeout(mut self, timeout: Duration) -> Self {
        self.patience.silence = timeout.max(Duration::from_millis(120));
        self
    }

    /// Makes the client. Connections are made when they are needed, so this succeeds while no node is up; see
    /// [`Client::ready`]. Operations must run within a tokio runtime with IO and time enabled.
    ///
    /// # Errors
    /// There are no endpoints, one is not well formed, or the name is too long.
    pub fn connect(self) -> Result<Client, ConnectError> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for text in &self.endpoints {
            let endpoint = text.parse()?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        if endpoints.is_empty() {
            return Err(ConnectError::NoEndpoints);
        }
        if self.name.len() > NAME_LIMIT {
            return Err(ConnectError::NameTooLong { length: self.name.len(), limit: NAME_LIMIT });
        }
        let context = Arc::new(Context::new(self.name, self.cluster, self.patience));
        let pool = Pool::new(&endpoints, self.connections, !self.spread_writes, Arc::clone(&context));
        // Two clients with one id would be given each other's results, so this comes from the system's randomness.
        let sequences = Sequences::new(ClientId::new(rand::random()));
        Ok(Client::new(Shared { context, pool, sequences }, endpoints, self.timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_needs_well_formed_endpoints_and_no_running_node() {
        assert_eq!(Client::builder([""; 0]).connect().unwrap_err(), ConnectError::NoEndpoints);
        assert!(matches!(Client::builder(["nowhere"]).connect(), Err(ConnectError::Endpoint(_))));
        let client = Client::builder(["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"]).connect().unwrap();
        assert_eq!(client.endpoints().len(), 2);
    }

    #[test]
    fn a_name_that_the_handshake_cannot_carry_is_refused() {
        let error = Client::builder(["127.0.0.1:1"]).name("x".repeat(257)).connect().unwrap_err();
        assert_eq!(error, ConnectError::NameTooLong { length: 257, limit: 256 });
    }
}
