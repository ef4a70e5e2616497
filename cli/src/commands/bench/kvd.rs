//! kvd itself under load, through the client library.

use bytes::Bytes;
use quorumkv_client::{Client, Consistency, GetOptions, NodeStatus};
use serde_json::json;

use super::system::{Facts, Load, System, Target, all_at_once, majority};
use super::work::Call;
use crate::args::Op;
use crate::commands::status::{Asked, ask_all};
use crate::commands::transfer;
use crate::exit::{Code, Failure};
use crate::invocation::Invocation;
use crate::output::printable;

/// Several clients, each with one connection to each endpoint, so that as many as were asked for come together. They
/// share nothing, so tasks of different clients never wait for each other.
pub(super) struct Kvd {
    clients: Vec<Client>,
}

impl Kvd {
    pub(super) async fn connect(
        invocation: &Invocation,
        load: &Load,
        spread_writes: bool,
    ) -> Result<Self, Failure> {
        let clients = load.shared_connections().div_ceil(invocation.endpoints.len());
        let client = |_| invocation.client_with(1, spread_writes);
        let clients: Result<Vec<_>, _> = (0..clients).map(client).collect();
        let kvd = Self::of(clients?);
        kvd.clients[0].ready().await?;
        Ok(kvd)
    }

    pub(super) const fn of(clients: Vec<Client>) -> Self {
        Self { clients }
    }
}

impl System for Kvd {
    const NAME: &'static str = "kvd";
    type Target = Client;

    fn operation(&self, op: Op) -> String {
        let operation = match op {
            Op::Put => "put",
            Op::Get => "quorum get",
            Op::GetLocal => "local get",
            Op::Mixed => "90 % quorum get, 10 % put",
        };
        operation.to_owned()
    }

    fn caveat(&self, _op: Op) -> Option<&'static str> {
        None
    }

    async fn begin(&mut self, _load: &Load) {}

    async fn fill(&self, load: &Load, keys: &[Bytes]) -> Result<(), Failure> {
        let puts = keys.iter().zip(self.clients.iter().cycle()).map(|(key, client)| async move {
            let value = load.work.value.clone();
            transfer::put(client, key.clone(), value, load.timeout).await.map_err(Failure::from)
        });
        all_at_once(puts).await
    }

    fn target(&self, client: usize) -> Client {
        self.clients[client % self.clients.len()].clone()
    }

    async fn facts(&self, _load: &Load) -> Facts {
        let mut facts = Facts::default();
        match self.clients[0].members().await {
            Ok(members) => {
                let voters = members.members.iter().filter(|known| known.votes).count();
                let quorum = majority(voters);
                facts.known(
                    &["members"],
                    json!({"voters": voters, "quorum": quorum}),
                    format!("voters: {voters}; a write needs {quorum} of them"),
                );
            }
            Err(error) => facts.unknown(&["members"], "members", &error.to_string()),
        }
        syncs(&ask_all(&self.clients[0]).await, &mut facts);
        facts.unknown(
            &["storage"],
            "whether data is on disk or in memory (--storage)",
            "status does not tell",
        );
        facts
    }

    async fn close(self) {}
}

/// What the nodes say of the syncs of their logs, which every acknowledged write has waited for.
fn syncs(asked: &[Asked], facts: &mut Facts) {
    let statuses = || asked.iter().filter_map(|asked| asked.answer.as_ref().ok());
    statuses().for_each(|status: &NodeStatus| facts.version(&printable(status.software.as_bytes())));
    let told: Vec<(String, u64)> = asked
        .iter()
        .filter_map(|asked| Some((asked.endpoint.to_string(), asked.answer.as_ref().ok()?.sync_p99_us)))
        .filter(|(_, us)| *us > 0)
        .collect();
    if told.is_empty() {
        return facts.unknown(&["sync_p99_us"], "syncs of the log", "no node tells of any");
    }
    let each: Vec<String> =
        told.iter().map(|(endpoint, us)| format!("{endpoint} {:.2} ms", thousandths(*us))).collect();
    let line = format!("a vote counts when its log is synced; p99 of recent syncs: {}", each.join(", "));
    let json: serde_json::Map<_, _> = told.into_iter().map(|(name, us)| (name, us.into())).collect();
    facts.known(&["sync_p99_us"], json, line);
}

#[expect(clippy::cast_precision_loss, reason = "figures of a benchmark have few digits")]
fn thousandths(us: u64) -> f64 {
    us as f64 / 1000.0
}

impl Target for Client {
    async fn call(&mut self, call: Call, key: &Bytes, value: &Bytes) -> Result<(), Failure> {
        let consistency = match call {
            Call::Put => {
                self.put(key.clone(), value.clone()).await?;
                return Ok(());
            }
            Call::Get => Consistency::Quorum,
            Call::GetLocal => Consistency::Local,
        };
        let got = self.get_with(key.clone(), GetOptions { consistency, evidence: false }).await?;
        match got.value {
            Some(_) => Ok(()),
            None => Err(Failure::new(Code::NotFound, "a key that was filled is missing")),
        }
    }
}
