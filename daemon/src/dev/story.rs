//! What is told of a cluster, from what is seen of its nodes. Pure: no process and no clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use quorumkv_protocol::Epoch;
use quorumkv_protocol::client::{NodeRole, NodeStatus};

use super::watch::{Seen, Sighting};

/// How a node's process has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// `kvctl kill-leader` or `kvctl kill` told it to.
    KilledByKvctl,
    /// It was told to in another way: by SIGTERM.
    InGoodOrder,
    /// By this signal.
    Killed(i32),
    /// By itself.
    Failed {
        /// Why.
        reason: String,
        /// Where there is more to read.
        log: PathBuf,
    },
}

impl Ending {
    /// Completes the sentence "the node …".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::KilledByKvctl => "was killed by kvctl".to_owned(),
            Self::InGoodOrder => "was told to stop, and has ended in good order".to_owned(),
            Self::Killed(9) => "was killed (SIGKILL)".to_owned(),
            Self::Killed(signal) => format!("was ended by signal {signal}"),
            Self::Failed { reason, log } => {
                format!("has ended by itself: {reason} (its log: {})", log.display())
            }
        }
    }
}

/// What becomes of a node that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Afterwards {
    /// It is started again after this time.
    Restart(Duration),
    /// Whoever wants it back runs this.
    ByHand(String),
}

/// A node as it was told last.
#[derive(Clone, Debug)]
struct Told {
    endpoint: String,
    /// Whether its process was started here, and has not ended.
    ours: bool,
    state: State,
    role: NodeRole,
    epoch: Epoch,
    remarks: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Its process was started, and it does not serve yet.
    Starting,
    Serving,
    /// It has served, its process runs, and it says nothing.
    Silent,
    /// Its process has ended; what is seen of it may still be from before.
    Ending,
    /// It is seen no more.
    Ended,
}

/// The story of a cluster so far.
#[derive(Debug)]
pub(super) struct Story {
    nodes: Vec<Told>,
    /// Who was told to lead, and since which epoch.
    leader: Option<(usize, Epoch)>,
    /// Whether all have served at once.
    begun: bool,
}

impl Story {
    /// A cluster whose nodes are being started.
    pub(super) fn new(endpoints: impl IntoIterator<Item = String>) -> Self {
        let told = |endpoint| Told {
            endpoint,
            ours: true,
            state: State::Starting,
            role: NodeRole::Forming,
            epoch: Epoch::ZERO,
            remarks: String::new(),
        };
        Self { nodes: endpoints.into_iter().map(told).collect(), leader: None, begun: false }
    }

    /// Whether all nodes have served at once.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Why nodes that do not serve yet do not, in their own words.
    pub(super) fn waits(&self) -> Vec<String> {
        let mut waits: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (node, told) in self.nodes.iter().enumerate().filter(|(_, told)| told.state == State::Starting) {
            let why = if told.remarks.is_empty() { "no answer yet" } else { told.remarks.as_str() };
            waits.entry(why).or_default().push(node.to_string());
        }
        let line = |(why, nodes): (&str, Vec<String>)| match &nodes[..] {
            [one] => format!("node {one} is not ready: {why}"),
            several => format!("nodes {} are not ready: {why}", several.join(", ")),
        };
        waits.into_iter().map(line).collect()
    }

    /// What is to be told after this sighting.
    pub(super) fn seen(&mut self, sighting: &Sighting) -> Vec<String> {
        let begun = self.begun;
        let told = &mut self.nodes[sighting.node];
        let mut lines: Vec<String> = match &sighting.seen {
            Seen::Status(status) => told.answers(status, begun),
            Seen::Gone => told.is_gone(),
            Seen::Silent if told.state == State::Serving => {
                told.state = State::Silent;
                Some("does not answer, although it runs")
            }
            Seen::Silent => None,
        }
        .map(|what| format!("{} {what}", told.name(sighting.node)))
        .into_iter()
        .collect();
        self.begun |= self.nodes.iter().all(|told| told.state == State::Serving);
        if self.begun {
            lines.extend(self.new_leader());
        }
        lines
    }

    /// What is to be told when a node's process has ended.
    pub(super) fn ended(&mut self, node: usize, ending: &Ending, afterwards: &Afterwards) -> Vec<String> {
        let led = matches!(self.leader, Some((leader, _)) if leader == node);
        let told = &mut self.nodes[node];
        (told.state, told.ours) = (State::Ending, false);
        let role = if led { ", the leader," } else { "" };
        let mut lines = vec![format!("{}{role} {}", told.name(node), ending.describe())];
        lines.push(match afterwards {
            Afterwards::Restart(pause) => {
                format!("  it is started again in {}", humantime::format_duration(*pause))
            }
            Afterwards::ByHand(command) => format!("  start it again with: {command}"),
        });
        lines.extend(self.too_few());
        lines
    }

    /// A node's process has been started again.
    pub(super) fn started(&mut self, node: usize) {
        let told = &mut self.nodes[node];
        (told.state, told.ours, told.remarks) = (State::Starting, true, String::new());
    }

    fn too_few(&self) -> Option<String> {
        let (up, all) = (self.nodes.iter().filter(|told| told.is_up()).count(), self.nodes.len());
        let quorum = all / 2 + 1;
        (up < quorum).then(|| {
            format!("{up} of {all} nodes run, and a majority is {quorum}: writes and quorum reads wait for more of them")
        })
    }

    /// Says who leads, if that is news. A node that has not heard of a later epoch does not count.
    fn new_leader(&mut self) -> Option<String> {
        let latest = self.nodes.iter().filter(|told| told.is_up()).map(|told| told.epoch).max()?;
        let leads = |told: &Told| told.is_up() && told.role == NodeRole::Leader && told.epoch == latest;
        let node = self.nodes.iter().position(leads)?;
        if self.leader == Some((node, latest)) {
            return None;
        }
        self.leader = Some((node, latest));
        Some(format!("{} leads (epoch {})", self.nodes[node].endpoint, latest.counter()))
    }
}

impl Told {
    /// It says this about itself.
    fn answers(&mut self, status: &NodeStatus, begun: bool) -> Option<&'static str> {
        if self.state == State::Ending {
            // From before its end.
            return None;
        }
        (self.role, self.epoch) = (status.role, status.epoch);
        self.remarks.clone_from(&status.remarks);
        let state = self.state;
        if !status.ready && state != State::Silent {
            return None;
        }
        self.state = State::Serving;
        match state {
            State::Silent => Some("answers again"),
            State::Ended => Some("serves again, started by hand"),
            State::Starting if begun => Some("serves again"),
            State::Starting | State::Serving | State::Ending => None,
        }
    }

    /// Nobody is at its endpoint. If its process is ours, it has not begun to listen, or its end is told in a moment.
    fn is_gone(&mut self) -> Option<&'static str> {
        match self.state {
            State::Serving | State::Silent if !self.ours => {
                self.state = State::Ended;
                Some("has ended, which was started by hand")
            }
            State::Ending => {
                self.state = State::Ended;
                None
            }
            State::Starting | State::Serving | State::Silent | State::Ended => None,
        }
    }

    fn is_up(&self) -> bool {
        !matches!(self.state, State::Ending | State::Ended)
    }

    fn name(&self, node: usize) -> String {
        format!("node {node} ({})", self.endpoint)
    }
}

/// Tells what the cluster waits for: news at once, and the same again ever more seldom.
#[derive(Debug)]
pub(super) struct Reminder {
    told: Vec<String>,
    /// Turns since then, and how many of them the same is not told.
    turns: u32,
    quiet: u32,
}

impl Reminder {
    /// Turns without news of which one is told, at most.
    const LONGEST: u32 = 12;

    pub(super) fn new() -> Self {
        Self { told: Vec::new(), turns: 0, quiet: 1 }
    }

    /// It is the next turn, and this is what there is to tell. Returns what is to be told.
    pub(super) fn turn(&mut self, lines: Vec<String>) -> Vec<String> {
        self.turns += 1;
        if lines != self.told {
            *self = Self { told: lines.clone(), turns: 0, quiet: 2 };
            return lines;
        }
        if self.turns < self.quiet {
            return Vec::new();
        }
        (self.turns, self.quiet) = (0, (self.quiet * 2).min(Self::LONGEST));
        lines
    }
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
