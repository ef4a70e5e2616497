//! Who leads, and stopping daemons.

use std::collections::BTreeSet;
use std::time::Duration;

use quorumkv_client::{Client, Endpoint, NodeId, NodeRole};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::commands::status::{Asked, ask_all, none_answered};
use crate::exit::{Code, Failure};
use crate::output::{Format, Output};

/// Longest that a drained leader may take to be succeeded, and the pause between looks.
const HANDOVER: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// The leader, as far as the nodes know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Leader {
    node: String,
    /// Where it is reached: the given endpoint if it was asked itself, else what its followers call it.
    endpoint: String,
    epoch: String,
}

/// The leader of the highest epoch that any node speaks of. Its own word is preferred, since it is then known to be
/// within reach.
pub(crate) fn find_leader(asked: &[Asked]) -> Option<Leader> {
    let claims = asked.iter().filter_map(|asked| {
        let status = asked.answer.as_ref().ok()?;
        if status.role == NodeRole::Leader {
            return Some((status.epoch, true, status.node, asked.endpoint.to_string()));
        }
        Some((status.epoch, false, status.leader?, status.leader_address.clone()?))
    });
    let (epoch, _, node, endpoint) = claims.max()?;
    Some(Leader { node: node.to_string(), endpoint, epoch: epoch.to_string() })
}

async fn the_leader(client: &Client) -> Result<Leader, Failure> {
    let asked = ask_all(client).await;
    find_leader(&asked).ok_or_else(|| {
        none_answered(&asked).unwrap_or_else(|| {
            Failure::new(Code::Unhealthy, "no node leads")
                .advise("an election may be under way: see `kvctl status`")
        })
    })
}

pub(crate) async fn leader(client: &Client, output: &mut Output) -> Result<(), Failure> {
    let leader = the_leader(client).await?;
    match output.format {
        Format::Table => output.line(&leader.describe()),
        Format::Raw => output.line(&leader.endpoint),
        Format::Json => output.json(&leader),
    }
}

impl Leader {
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn describe(&self) -> String {
        let Self { node, endpoint, epoch } = self;
        format!("{node} at {endpoint} leads in epoch {epoch}")
    }
}

pub(crate) async fn kill_leader(client: &Client, at_once: bool, output: &mut Output) -> Result<(), Failure> {
    let leader = the_leader(client).await?;
    stop(client, &leader.endpoint, Some(&leader.node), at_once, output).await
}

/// Stops the daemon at an endpoint, or the one whose id begins with some digits.
pub(crate) async fn kill(
    client: &Client,
    named: &str,
    at_once: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let (endpoint, node) = find(client, named).await?;
    stop(client, &endpoint, node.as_deref(), at_once, output).await
}

/// Has a node serve no clients and not lead, or do so again; waits until it is so.
pub(crate) async fn drain(
    client: &Client,
    named: &str,
    undo: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let (endpoint, _) = find(client, named).await?;
    client.drain(&endpoint, undo).await.map_err(|error| Failure::status(&error))?;
    let mut status = client.status(&endpoint).await.map_err(|error| Failure::status(&error))?;
    // Whoever leads next is up within milliseconds, unless too few of the others are.
    let until = Instant::now() + HANDOVER;
    while !undo && (status.role == NodeRole::Leader || status.leader.is_none()) {
        if Instant::now() >= until {
            return Err(Failure::new(
                Code::Unhealthy,
                format!("{endpoint} is drained, and no other node leads yet"),
            )
            .advise("see `kvctl status`; `kvctl drain --undo` takes it back"));
        }
        sleep(LOOK).await;
        status = client.status(&endpoint).await.map_err(|error| Failure::status(&error))?;
    }
    let node = status.node.to_string();
    match output.format {
        Format::Raw => output.line(&endpoint),
        Format::Table if undo => output.line(&format!("{node} at {endpoint} serves again")),
        Format::Table => output.line(&format!(
            "{node} at {endpoint} is drained: it serves no clients, does not lead, and goes on voting"
        )),
        Format::Json => output.json(&DrainedJson { drained: !undo, endpoint: &endpoint, node: &node }),
    }
}

/// The endpoint of the node that is meant, and its id if that was asked for.
async fn find(client: &Client, named: &str) -> Result<(String, Option<String>), Failure> {
    if named.contains(':') {
        return Ok((named.to_owned(), None));
    }
    if named.is_empty() || !named.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message =
            format!("{named:?} is neither an endpoint (host:port) nor the beginning of a node's id");
        return Err(Failure::new(Code::Usage, message));
    }
    let asked = ask_all(client).await;
    if let Some(failure) = none_answered(&asked) {
        return Err(failure);
    }
    let (node, endpoint) = choose(named, &asked)?;
    Ok((endpoint, Some(node.to_string())))
}

/// The one node whose id begins so, among those that answered and those that they name as members.
fn choose(prefix: &str, asked: &[Asked]) -> Result<(NodeId, String), Failure> {
    let prefix = prefix.to_ascii_lowercase();
    let own = asked.iter().filter_map(|Asked { endpoint, answer }| {
        answer.as_ref().ok().map(|status| (status.node, Endpoint::as_str(endpoint)))
    });
    let answers = asked.iter().filter_map(|asked| asked.answer.as_ref().ok());
    let members =
        answers.flat_map(|status| &status.members).map(|member| (member.node, member.address.as_str()));
    let known =
        || own.clone().chain(members.clone()).filter(|(node, _)| node.to_string().starts_with(&prefix));
    let matching: BTreeSet<NodeId> = known().map(|(node, _)| node).collect();
    match (known().next(), matching.len()) {
        (Some((node, endpoint)), 1) => Ok((node, endpoint.to_owned())),
        (Some(_), number) => {
            let message = format!("{number} nodes have an id that begins with {prefix}");
            Err(Failure::new(Code::Usage, message).advise("give more digits: `kvctl status` shows them"))
        }
        (None, _) => {
            let message = format!("no node has an id that begins with {prefix}");
            Err(Failure::new(Code::NotFound, message).advise("`kvctl status` shows the nodes"))
        }
    }
}

/// A node that was drained, or serves again.
#[derive(Serialize)]
struct DrainedJson<'a> {
    drained: bool,
    endpoint: &'a str,
    node: &'a str,
}

/// A daemon that was stopped.
#[derive(Serialize)]
struct StoppedJson<'a> {
    stopped: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

async fn stop(
    client: &Client,
    endpoint: &str,
    node: Option<&str>,
    at_once: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let stopped = if at_once { client.kill(endpoint).await } else { client.stop(endpoint).await };
    stopped.map_err(|error| Failure::stop(&error))?;
    let how = if at_once { "was killed" } else { "is stopping" };
    match (output.format, node) {
        (Format::Table, Some(node)) => output.line(&format!("{node} at {endpoint} {how}")),
        (Format::Table, None) => output.line(&format!("{endpoint} {how}")),
        (Format::Raw, _) => output.line(endpoint),
        (Format::Json, node) => output.json(&StoppedJson { stopped: endpoint, node }),
    }
}
