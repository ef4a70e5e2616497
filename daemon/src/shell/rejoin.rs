//! A node that is no member: it waits to be added. If a member is known under its address, then that was this node before it
//! lost its disk, and it asks to take that member's place (DESIGN 8, amnesia).

use std::sync::Arc;
use std::time::Duration;

use quorumkv_protocol::client::{Members, Request, RequestEnvelope, Response, ResponseEnvelope};
use quorumkv_protocol::frame::PEER_FRAME_LIMIT;
use quorumkv_protocol::hello::{Hello, Role};
use quorumkv_protocol::membership::{Change, ChangeRequest, Configuration, Member, Refusal};
use quorumkv_protocol::{ClientId, ClusterId, NodeId, RequestId};
use tokio::time::{sleep, timeout};

use super::form::{PATIENCE, patiently};
use super::{Event, Node};
use crate::coordination::Coordinator;
use crate::data_dir::decode_membership;
use crate::net::frames::{self, ConnectionError};

/// Pause between looks at who the members are.
const PAUSE: Duration = Duration::from_secs(1);

/// What came of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    /// No member has this node's address: somebody has to add it.
    Stranger,
    /// It is being restored, to take the place of that member.
    Replacing(NodeId),
    /// It was added, and is being restored.
    Joining,
    /// The members do not want it now.
    Refused(String),
    /// None of the members could be asked.
    Unheard(String),
}

/// Runs until this node is a member.
pub(super) async fn run(node: Arc<Node>, cluster: ClusterId, coordinator: Coordinator) {
    let mut told = None;
    while node.configurations().member(node.id).is_none() {
        let outcome = attempt(&node, cluster, &coordinator).await;
        let is_member = node.configurations().member(node.id).is_some();
        if told.as_ref() != Some(&outcome) && !is_member {
            match &outcome {
                Outcome::Stranger => tracing::warn!(
                    %cluster, "is no member of the cluster: waits to be added with `kvctl member add {}`", node.address
                ),
                Outcome::Replacing(old) => {
                    tracing::info!(%old, "is restored to take the place that it had before it lost its disk");
                }
                Outcome::Joining => tracing::info!("was added to the cluster, and is brought up to date"),
                Outcome::Refused(why) => tracing::warn!("cannot take its old place yet: {why}"),
                Outcome::Unheard(why) => tracing::warn!("no member answers: {why}"),
            }
            told = Some(outcome);
        }
        sleep(PAUSE).await;
    }
}

async fn attempt(node: &Node, cluster: ClusterId, coordinator: &Coordinator) -> Outcome {
    let stored = patiently(|| coordinator.configuration(PATIENCE)).await;
    let known = match stored.map(|stored| decode_membership(&stored)) {
        Some(Ok(membership)) if membership.cluster == cluster => membership.configuration,
        _ => Configuration::UNKNOWN,
    };
    let mut heard = "ZooKeeper names none".to_owned();
    for member in known.members().filter(|member| member.address != node.address) {
        match ask(node, cluster, &member.address, Request::Members).await {
            Ok(Response::Members(members)) => return take_place(node, &members, &member.address).await,
            Ok(Response::Failed(failure)) => heard = format!("{}: {}", member.address, failure.message),
            Ok(_) => heard = format!("{} answered something else", member.address),
            Err(error) => heard = format!("{}: {error}", member.address),
        }
    }
    Outcome::Unheard(heard)
}

/// Asks, over the member at `via`, for the place of the member that has this node's address.
async fn take_place(node: &Node, members: &Members, via: &str) -> Outcome {
    let is_this = |member: &Member| member.node == node.id;
    let mut here =
        members.members.iter().map(|member| &member.member).filter(|member| member.address == node.address);
    let is_member = members.members.iter().any(|member| is_this(&member.member));
    if is_member {
        let all = members.members.iter().map(|member| member.member.clone()).collect();
        // The owner is gone only when the process is about to end.
        let _ = node.events.send(Event::Acquainted(all)).await;
    }
    let Some(old) = here.find(|member| !is_this(member)) else {
        return if is_member { Outcome::Joining } else { Outcome::Stranger };
    };
    if is_member {
        return Outcome::Replacing(old.node);
    }
    let new = Member { node: node.id, address: node.address.clone() };
    let request = ChangeRequest {
        // A wish that is repeated is refused, since the node is a member by then: no attempt needs to be known again.
        request: RequestId { client: ClientId::new(rand::random()), sequence: 1 },
        floor: 1,
        since: members.last,
        change: Change::Replace { old: old.node, new },
        force: false,
    };
    match ask(node, members.cluster, via, Request::Change { request, dry_run: false }).await {
        Ok(Response::Written(_) | Response::Refused(Refusal::AlreadyMember(_))) => {
            Outcome::Replacing(old.node)
        }
        Ok(Response::Refused(refusal)) => Outcome::Refused(refusal.to_string()),
        Ok(Response::Failed(failure)) => Outcome::Refused(failure.message),
        Ok(_) => Outcome::Refused(format!("{via} answered something else")),
        Err(error) => Outcome::Unheard(format!("{via}: {error}")),
    }
}

async fn ask(
    node: &Node,
    cluster: ClusterId,
    address: &str,
    body: Request,
) -> Result<Response, ConnectionError> {
    let hello = Hello::new(Some(cluster), Role::Client { name: format!("kvd {}", node.address) });
    let timeout_ms = u32::try_from(PATIENCE.as_millis()).expect("a few seconds");
    let asked = async {
        let (mut reader, mut writer, _) = frames::connect(address, &hello, PEER_FRAME_LIMIT).await?;
        frames::send(&mut writer, &RequestEnvelope { correlation: 1, timeout_ms, body }).await?;
        frames::receive::<ResponseEnvelope>(&mut reader).await.map(|answer| answer.body)
    };
    timeout(PATIENCE, asked).await.unwrap_or(Err(ConnectionError::Stalled))
}
