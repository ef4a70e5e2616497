//! The table of the members.

use quorumkv_client::{MemberStatus, Members};
use serde::Serialize;

use super::quorum;
use crate::exit::Failure;
use crate::output::{Column, Format, Output, number, printable, text};

const COLUMNS: [Column; 5] =
    [text("NODE"), text("ADDRESS"), text("ROLE"), text("STATE"), number("VERSIONS BEHIND")];

pub(super) fn show(members: &Members, output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return output.json(&MembersJson::from(members));
    }
    let row = |known: &MemberStatus| {
        vec![
            known.member.node.to_string(),
            printable(known.member.address.as_bytes()),
            role(members, known).to_owned(),
            state(known),
            known.behind.to_string(),
        ]
    };
    output.rows(&COLUMNS, &members.members.iter().map(row).collect::<Vec<_>>())
}

fn role(members: &Members, known: &MemberStatus) -> &'static str {
    match known.votes {
        true if known.member.node == members.leader => "leader",
        true => "voter",
        false => "learner",
    }
}

fn state(known: &MemberStatus) -> String {
    let state = match known {
        MemberStatus { live: false, .. } => "does not answer".to_owned(),
        MemberStatus { snapshot: Some(snapshot), .. } => {
            format!("receives a snapshot, {} %", percent(snapshot.sent, snapshot.total))
        }
        MemberStatus { caught_up: false, .. } => "catches up".to_owned(),
        _ => "well".to_owned(),
    };
    match known.replaces {
        Some(old) => format!("{state}; replaces {old}"),
        None => state,
    }
}

fn percent(sent: u64, total: u64) -> u64 {
    sent.saturating_mul(100) / total.max(sent).max(1)
}

/// The members; numbers of 64 bits are text.
#[derive(Serialize)]
struct MembersJson<'a> {
    cluster: String,
    leader: String,
    epoch: String,
    /// The entry of the configuration.
    version: String,
    committed: bool,
    quorum: usize,
    members: Vec<MemberJson<'a>>,
}

#[derive(Serialize)]
struct MemberJson<'a> {
    node: String,
    address: &'a str,
    role: &'static str,
    live: bool,
    caught_up: bool,
    versions_behind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotJson>,
}

#[derive(Serialize)]
struct SnapshotJson {
    sent_bytes: String,
    total_bytes: String,
}

impl<'a> From<&'a Members> for MembersJson<'a> {
    fn from(members: &'a Members) -> Self {
        let member = |known: &'a MemberStatus| MemberJson {
            node: known.member.node.to_string(),
            address: &known.member.address,
            role: role(members, known),
            live: known.live,
            caught_up: known.caught_up,
            versions_behind: known.behind.to_string(),
            replaces: known.replaces.map(|old| old.to_string()),
            snapshot: known.snapshot.map(|snapshot| SnapshotJson {
                sent_bytes: snapshot.sent.to_string(),
                total_bytes: snapshot.total.to_string(),
            }),
        };
        Self {
            cluster: members.cluster.to_string(),
            leader: members.leader.to_string(),
            epoch: members.epoch.to_string(),
            version: members.configuration.version.to_string(),
            committed: members.committed,
            quorum: quorum(members.members.iter().filter(|known| known.votes).count()),
            members: members.members.iter().map(member).collect(),
        }
    }
}
