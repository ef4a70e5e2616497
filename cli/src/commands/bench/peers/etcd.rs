//! etcd under load, over its gRPC interface.
//!
//! The few messages that are needed are written down here, so that nothing has to be generated when kvctl is built. Fields
//! that are left out are skipped by whoever decodes.

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use quorumkv_client::Endpoint;
use serde_json::json;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint as Address};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::super::system::{Facts, Load, System, Target, all_at_once, majority};
use super::super::work::Call;
use super::syncs::{self, Syncs};
use super::{CONNECT, Connect, causes, failed, locked, plain, stranger, unreachable, within};
use crate::args::Op;
use crate::exit::{Code, Failure};

/// Counts the syncs of the write-ahead log, and sums up their seconds.
const SYNCS: &str = "etcd_disk_wal_fsync_duration_seconds";

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    /// Answered from what the asked member has.
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct MemberListRequest {}

#[derive(Clone, PartialEq, Message)]
struct MemberListResponse {
    #[prost(message, repeated, tag = "2")]
    members: Vec<Member>,
}

#[derive(Clone, PartialEq, Message)]
struct Member {
    #[prost(bool, tag = "5")]
    is_learner: bool,
}

/// A cluster of etcd.
pub(super) struct Etcd {
    /// One connection to each endpoint that was named, with the version it tells.
    members: Vec<(Kv, String)>,
    /// What the clients share, spread over the endpoints in turn.
    shared: Vec<Kv>,
    /// Of each endpoint, before the load.
    before: Vec<Result<Syncs, String>>,
}

/// A connection to one member.
#[derive(Clone)]
pub(super) struct Kv {
    endpoint: Endpoint,
    grpc: Grpc<Channel>,
}

impl Kv {
    async fn connect(endpoint: &Endpoint, load: &Load) -> Result<Self, Failure> {
        let address = Address::from_shared(format!("http://{endpoint}"));
        let address = address.map_err(|error| stranger(Etcd::NAME, endpoint, &causes(&error)))?;
        let address = address.connect_timeout(load.timeout.min(CONNECT));
        let channel = address.connect().await;
        let channel = channel.map_err(|error| unreachable(Etcd::NAME, endpoint, &causes(&error)))?;
        Ok(Self { endpoint: endpoint.clone(), grpc: Grpc::new(channel) })
    }

    /// Asks, and waits for the answer.
    async fn ask<M, R>(&mut self, path: &'static str, message: M) -> Result<R, Status>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        self.grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let (codec, path) = (ProstCodec::<M, R>::default(), PathAndQuery::from_static(path));
        Ok(self.grpc.unary(Request::new(message), path, codec).await?.into_inner())
    }

    async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), Failure> {
        let put = self.ask("/etcdserverpb.KV/Put", PutRequest { key, value }).await;
        put.map(|PutResponse {}| ()).map_err(|status| failure(&self.endpoint, &status))
    }

    async fn version(&mut self) -> Result<String, Failure> {
        let status = self.ask("/etcdserverpb.Maintenance/Status", StatusRequest {}).await;
        let StatusResponse { version } = status.map_err(|status| first_failure(&self.endpoint, &status))?;
        Ok(version)
    }

    async fn syncs(&self, load: &Load) -> Result<Syncs, String> {
        let text = plain::get(&self.endpoint, "/metrics", load.timeout.min(CONNECT)).await?;
        let metric = |part| plain::metric(&text, &format!("{SYNCS}_{part}"));
        let syncs = metric("count")
            .zip(metric("sum"))
            .map(|(count, seconds)| Syncs { count, ms: Some(seconds * 1000.0) });
        syncs.ok_or_else(|| format!("/metrics has no {SYNCS}"))
    }
}

impl Target for Kv {
    async fn call(&mut self, call: Call, key: &Bytes, value: &Bytes) -> Result<(), Failure> {
        if call == Call::Put {
            return self.put(key.clone(), value.clone()).await;
        }
        let range = RangeRequest { key: key.clone(), serializable: call == Call::GetLocal };
        match self.ask("/etcdserverpb.KV/Range", range).await {
            Ok(RangeResponse { kvs }) if kvs.is_empty() => {
                Err(failed(Code::NotFound, Etcd::NAME, &self.endpoint, &"a key that was filled is missing"))
            }
            Ok(RangeResponse { .. }) => Ok(()),
            Err(status) => Err(failure(&self.endpoint, &status)),
        }
    }
}

impl Connect for Etcd {
    async fn connect(endpoints: &[Endpoint], load: &Load) -> Result<Self, Failure> {
        let mut members = Vec::new();
        for endpoint in endpoints {
            let mut kv = Kv::connect(endpoint, load).await?;
            let version = within(load.timeout.min(CONNECT), Self::NAME, endpoint, kv.version()).await?;
            members.push((kv, version));
        }
        let mut shared = Vec::new();
        for endpoint in endpoints.iter().cycle().take(load.shared_connections()) {
            shared.push(Kv::connect(endpoint, load).await?);
        }
        Ok(Self { members, shared, before: Vec::new() })
    }
}

impl System for Etcd {
    const NAME: &'static str = "etcd";
    type Target = Kv;

    fn operation(&self, op: Op) -> String {
        let operation = match op {
            Op::Put => "Put",
            Op::Get => "linearizable Range",
            Op::GetLocal => "serializable Range",
            Op::Mixed => "90 % linearizable Range, 10 % Put",
        };
        operation.to_owned()
    }

    fn caveat(&self, _op: Op) -> Option<&'static str> {
        None
    }

    async fn begin(&mut self, load: &Load) {
        for (kv, _) in &self.members {
            self.before.push(kv.syncs(load).await);
        }
    }

    async fn fill(&self, load: &Load, keys: &[Bytes]) -> Result<(), Failure> {
        let puts = keys.iter().zip(self.shared.iter().cycle()).map(|(key, kv)| {
            let (mut kv, endpoint) = (kv.clone(), &kv.endpoint);
            let put = async move { kv.put(key.clone(), load.work.value.clone()).await };
            within(load.timeout, Self::NAME, endpoint, put)
        });
        all_at_once(puts).await
    }

    fn target(&self, client: usize) -> Kv {
        self.shared[client % self.shared.len()].clone()
    }

    async fn facts(&self, load: &Load) -> Facts {
        let mut facts = Facts::default();
        self.members.iter().for_each(|(_, version)| facts.version(version));
        let mut kv = self.members[0].0.clone();
        let list = kv.ask("/etcdserverpb.Cluster/MemberList", MemberListRequest {});
        match tokio::time::timeout(load.timeout.min(CONNECT), list).await {
            Ok(Ok(MemberListResponse { members })) => {
                let voters = members.iter().filter(|member| !member.is_learner).count();
                let quorum = majority(voters);
                let line = format!("voters: {voters}; a write needs {quorum} of them");
                facts.known(&["members"], json!({"voters": voters, "quorum": quorum}), line);
            }
            Ok(Err(status)) => facts.unknown(&["members"], "members", status.message()),
            Err(_) => facts.unknown(&["members"], "members", "no answer"),
        }
        for (i, (kv, _)) in self.members.iter().enumerate() {
            let before = self.before.get(i).cloned().unwrap_or_else(|| Err("not asked before".to_owned()));
            syncs::tell(&mut facts, &kv.endpoint, "WAL", before, kv.syncs(load).await);
        }
        facts
    }

    async fn close(self) {}
}

/// The first question to an address has failed: perhaps nothing there is etcd.
fn first_failure(endpoint: &Endpoint, status: &Status) -> Failure {
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => failure(endpoint, status),
        _ => stranger(Etcd::NAME, endpoint, &said(status)),
    }
}

fn failure(endpoint: &Endpoint, status: &Status) -> Failure {
    let said = said(status);
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => locked(Etcd::NAME, endpoint, &said),
        // So it answers whoever gives no name, since authentication was switched on.
        tonic::Code::InvalidArgument if said.contains("user name is empty") => {
            locked(Etcd::NAME, endpoint, &said)
        }
        tonic::Code::InvalidArgument if said.contains("too large") => {
            failed(Code::Limit, Etcd::NAME, endpoint, &said)
        }
        tonic::Code::ResourceExhausted => failed(Code::Limit, Etcd::NAME, endpoint, &said),
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded => unreachable(Etcd::NAME, endpoint, &said),
        _ => failed(Code::Other, Etcd::NAME, endpoint, &said),
    }
}

fn said(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => {
            let causes = causes(source);
            if causes.contains(status.message()) { causes } else { format!("{}: {causes}", status.message()) }
        }
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_etcd_writes_them() {
        let put = PutRequest { key: "k".into(), value: "vv".into() };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x02vv");
        let range = RangeRequest { key: "k".into(), serializable: true };
        assert_eq!(range.encode_to_vec(), b"\x0a\x01k\x38\x01");
        // A header (field 1), a key-value with revisions (fields 2 to 4), and the count (field 4) are skipped.
        let answer = b"\x0a\x02\x08\x01\x12\x0d\x0a\x01k\x10\x02\x18\x02\x20\x01\x2a\x02vv\x20\x01";
        let RangeResponse { kvs } = RangeResponse::decode(&answer[..]).expect("it is well formed");
        assert_eq!(kvs, [KeyValue { key: "k".into(), value: "vv".into() }]);
        let members = b"\x12\x02\x08\x05\x12\x04\x08\x06\x28\x01";
        let MemberListResponse { members } =
            MemberListResponse::decode(&members[..]).expect("it is well formed");
        assert_eq!(members.iter().map(|member| member.is_learner).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_etcd_refuses_says_what_to_do() {
        let endpoint: Endpoint = "e:2379".parse().expect("an endpoint");
        for (status, code) in [
            (Status::invalid_argument("etcdserver: user name is empty"), Code::NotPermitted),
            (Status::permission_denied("etcdserver: permission denied"), Code::NotPermitted),
            (Status::resource_exhausted("etcdserver: mvcc: database space exceeded"), Code::Limit),
            (Status::invalid_argument("etcdserver: request is too large"), Code::Limit),
            (Status::unavailable("etcdserver: no leader"), Code::Unreachable),
            (Status::unknown("?"), Code::Other),
        ] {
            assert_eq!(failure(&endpoint, &status).code(), Some(code), "{status}");
        }
    }
}
