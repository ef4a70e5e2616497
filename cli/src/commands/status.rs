//! How the cluster is: every endpoint is asked.

use std::io::{self, Write};

use futures::future::join_all;
use quorumkv_client::{Client, DamageFound, Endpoint, GaveUp, NodeError, NodeRole, NodeStatus};
use serde::Serialize;

use crate::commands::cluster::{Leader, find_leader};
use crate::exit::{Code, Failure};
use crate::output::{Column, Format, Output, number, printable, text};

/// An endpoint, and what came of asking for its status.
pub(crate) struct Asked {
    pub(crate) endpoint: Endpoint,
    pub(crate) answer: Result<NodeStatus, NodeError>,
}

/// Asks all endpoints at once.
pub(crate) async fn ask_all(client: &Client) -> Vec<Asked> {
    let ask = |endpoint: &Endpoint| {
        let endpoint = endpoint.clone();
        async move { Asked { answer: client.status(endpoint.as_str()).await, endpoint } }
    };
    join_all(client.endpoints().iter().map(ask)).await
}

/// If no endpoint answered: why.
pub(crate) fn none_answered(asked: &[Asked]) -> Option<Failure> {
    let mut errors = asked.iter().map(|asked| asked.answer.as_ref().err());
    let first = errors.next()??;
    errors.all(|error| error.is_some()).then(|| Failure::status(first))
}

pub(crate) async fn run(client: &Client, output: &mut Output) -> Result<(), Failure> {
    let asked = ask_all(client).await;
    let problems = problems(&asked);
    show(&asked, &problems, output)?;
    output.flush()?;
    if let Some(failure) = none_answered(&asked) {
        return Err(failure);
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::new(Code::Unhealthy, problems.join("; "))) }
}

/// Everything that is wrong with the cluster; none if it is healthy.
pub(crate) fn problems(asked: &[Asked]) -> Vec<String> {
    let mut problems: Vec<String> = asked.iter().filter_map(problem).collect();
    let mut leaders: Vec<_> = answers(asked).filter_map(|status| status.leader).collect();
    leaders.sort_unstable();
    leaders.dedup();
    match (find_leader(asked), leaders.len()) {
        (None, _) => problems.insert(0, "no node leads".to_owned()),
        (Some(_), 2..) => problems.insert(0, "the nodes follow different leaders".to_owned()),
        (Some(_), _) => {}
    }
    problems
}

/// What is wrong at one endpoint.
fn problem(asked: &Asked) -> Option<String> {
    let endpoint = &asked.endpoint;
    match &asked.answer {
        Err(error) => Some(printable(error.to_string().as_bytes())),
        Ok(status) if !status.remarks.is_empty() => {
            Some(format!("{endpoint}: {}", printable(status.remarks.as_bytes())))
        }
        Ok(status) if !status.ready => Some(format!("{endpoint} is not ready")),
        Ok(_) => None,
    }
}

fn answers(asked: &[Asked]) -> impl Iterator<Item = &NodeStatus> {
    asked.iter().filter_map(|asked| asked.answer.as_ref().ok())
}

const COLUMNS: [Column; 11] = [
    text("NODE"),
    text("ENDPOINT"),
    text("ROLE"),
    number("EPOCH"),
    text("LEADER"),
    number("COMMITTED"),
    number("APPLIED"),
    number("LAG"),
    number("SYNC P99"),
    text("ZOOKEEPER"),
    text("VERSION"),
];

fn show(asked: &[Asked], problems: &[String], output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Json => output.json(&ClusterJson {
            healthy: problems.is_empty(),
            problems,
            leader: find_leader(asked),
            nodes: asked.iter().map(NodeJson::from).collect(),
        }),
        Format::Table | Format::Raw => {
            output.rows(&COLUMNS, &asked.iter().map(row).collect::<Vec<_>>())?;
            for line in asked.iter().flat_map(|asked| [gave_up(asked), damage(asked)]).flatten() {
                if output.format == Format::Table {
                    output.line(&line)?;
                } else {
                    // Programs count on the columns; it is for whoever reads their logs.
                    let _ = writeln!(io::stderr(), "kvctl: {line}");
                }
            }
            Ok(())
        }
    }
}

/// Why a node last gave up the lead by itself, for people.
fn gave_up(asked: &Asked) -> Option<String> {
    let GaveUp { epoch, why, ago_s } = asked.answer.as_ref().ok()?.gave_up.as_ref()?;
    let (endpoint, why) = (&asked.endpoint, printable(why.as_bytes()));
    Some(format!("{endpoint} gave up the lead of epoch {} {ago_s} s ago: {why}", epoch.counter()))
}

/// What damage a node last found on its disk, for people.
fn damage(asked: &Asked) -> Option<String> {
    let DamageFound { part, what, ago_s, repaired_s } = asked.answer.as_ref().ok()?.damage.as_ref()?;
    let (endpoint, part, what) = (&asked.endpoint, part.name(), printable(what.as_bytes()));
    let repaired = match repaired_s {
        Some(repaired_s) => format!("repaired {repaired_s} s ago"),
        None => "not repaired yet".to_owned(),
    };
    Some(format!("{endpoint} found damage in its {part} {ago_s} s ago, {repaired}: {what}"))
}

fn row(asked: &Asked) -> Vec<String> {
    let endpoint = asked.endpoint.to_string();
    let Ok(status) = &asked.answer else {
        let mut row = vec!["-".to_owned(); COLUMNS.len()];
        row[1] = endpoint;
        row[2] = "unreachable".to_owned();
        return row;
    };
    let leader = match (status.role, &status.leader_address) {
        (NodeRole::Leader, _) => "itself".to_owned(),
        (_, Some(address)) => printable(address.as_bytes()),
        (_, None) => "-".to_owned(),
    };
    vec![
        status.node.to_string(),
        endpoint,
        status.role.name().to_owned(),
        status.epoch.counter().to_string(),
        leader,
        status.committed.to_string(),
        status.applied.to_string(),
        status.lag.to_string(),
        milliseconds(status.sync_p99_us),
        printable(status.zookeeper.as_bytes()),
        printable(status.software.as_bytes()),
    ]
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

/// The cluster's state.
#[derive(Serialize)]
struct ClusterJson<'a> {
    healthy: bool,
    problems: &'a [String],
    leader: Option<Leader>,
    nodes: Vec<NodeJson<'a>>,
}

/// One endpoint's state.
#[derive(Serialize)]
#[serde(untagged)]
enum NodeJson<'a> {
    Reached(Box<ReachedJson<'a>>),
    Unreachable { endpoint: &'a str, reachable: bool, error: String },
}

#[derive(Serialize)]
struct ReachedJson<'a> {
    endpoint: &'a str,
    reachable: bool,
    node: String,
    address: &'a str,
    cluster: Option<String>,
    role: &'static str,
    epoch: String,
    leader: Option<String>,
    leader_address: Option<&'a str>,
    last: String,
    committed: String,
    applied: String,
    lag: String,
    sync_p99_us: String,
    zookeeper: &'a str,
    ready: bool,
    remarks: &'a str,
    version: &'a str,
    uptime_s: String,
    members: Vec<MemberJson<'a>>,
    gave_up: Option<GaveUpJson<'a>>,
    damage: Option<DamageJson<'a>>,
}

#[derive(Serialize)]
struct DamageJson<'a> {
    part: &'static str,
    what: &'a str,
    ago_s: String,
    repaired_s: Option<String>,
}

#[derive(Serialize)]
struct GaveUpJson<'a> {
    epoch: String,
    why: &'a str,
    ago_s: String,
}

#[derive(Serialize)]
struct MemberJson<'a> {
    node: String,
    address: &'a str,
}

impl<'a> From<&'a Asked> for NodeJson<'a> {
    fn from(asked: &'a Asked) -> Self {
        let endpoint = asked.endpoint.as_str();
        let status = match &asked.answer {
            Ok(status) => status,
            Err(error) => return Self::Unreachable { endpoint, reachable: false, error: error.to_string() },
        };
        let members = status.members.iter();
        Self::Reached(Box::new(ReachedJson {
            endpoint,
            reachable: true,
            node: status.node.to_string(),
            address: &status.address,
            cluster: status.cluster.map(|cluster| cluster.to_string()),
            role: status.role.name(),
            epoch: status.epoch.to_string(),
            leader: status.leader.map(|leader| leader.to_string()),
            leader_address: status.leader_address.as_deref(),
            last: status.last.to_string(),
            committed: status.committed.to_string(),
            applied: status.applied.to_string(),
            lag: status.lag.to_string(),
            sync_p99_us: status.sync_p99_us.to_string(),
            zookeeper: &status.zookeeper,
            ready: status.ready,
            remarks: &status.remarks,
            version: &status.software,
            uptime_s: status.uptime_s.to_string(),
            members: members
                .map(|member| MemberJson { node: member.node.to_string(), address: &member.address })
                .collect(),
            gave_up: status.gave_up.as_ref().map(|GaveUp { epoch, why, ago_s }| GaveUpJson {
                epoch: epoch.to_string(),
                why,
                ago_s: ago_s.to_string(),
            }),
            damage: status.damage.as_ref().map(|found| DamageJson {
                part: found.part.name(),
                what: &found.what,
                ago_s: found.ago_s.to_string(),
                repaired_s: found.repaired_s.map(|ago| ago.to_string()),
            }),
        }))
    }
}
