//! Watching a node catch up.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use quorumkv_client::{Client, Member, MemberStatus, Members, NodeId};
use tokio::time::{Instant, sleep};

use super::name;
use crate::exit::{Code, Failure};

/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Without an answer for this long, nothing is known any more.
const SILENCE: Duration = Duration::from_secs(60);

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// This learner holds enough to vote.
    CaughtUp(NodeId),
    /// The new one votes, and the old one is gone.
    Replaced { old: NodeId, new: NodeId },
}

/// How far it is.
enum Stage<'a> {
    Reached,
    Underway(&'a MemberStatus),
    /// The node is no member any more: somebody has given it up.
    Lost,
}

impl Goal {
    fn stage(self, members: &Members) -> Stage<'_> {
        let find = |node| members.members.iter().find(|known| known.member.node == node);
        let (Self::CaughtUp(new) | Self::Replaced { new, .. }) = self;
        let Some(known) = find(new) else { return Stage::Lost };
        let is_reached = match self {
            Self::CaughtUp(_) => known.caught_up || known.votes,
            Self::Replaced { old, .. } => known.votes && find(old).is_none(),
        };
        if is_reached { Stage::Reached } else { Stage::Underway(known) }
    }
}

/// Waits until the goal is reached, and shows how far it is.
pub(super) async fn watch(client: &Client, new: &Member, goal: Goal) -> Result<(), Failure> {
    let shown = Shown::new(new);
    let mut heard = Instant::now();
    loop {
        match client.members().await {
            Ok(members) => {
                heard = Instant::now();
                match goal.stage(&members) {
                    Stage::Reached => return Ok(()),
                    Stage::Underway(known) => shown.show(known),
                    Stage::Lost => {
                        let message = format!("{} is no member any more", name(new));
                        return Err(Failure::new(Code::PreconditionFailed, message));
                    }
                }
            }
            // An election, say: whoever leads next goes on with it.
            Err(error) if heard.elapsed() >= SILENCE => {
                return Err(Failure::from(error).context("it is not known how far the node is"));
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

/// The progress on stderr, if that is a terminal.
struct Shown {
    bar: ProgressBar,
    title: String,
}

impl Shown {
    fn new(new: &Member) -> Self {
        let bar = ProgressBar::no_length();
        bar.enable_steady_tick(PAUSE);
        Self { bar, title: name(new) }
    }

    fn show(&self, known: &MemberStatus) {
        let (template, length, position) = match known.snapshot {
            Some(snapshot) => {
                ("{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left", snapshot.total, snapshot.sent)
            }
            None => {
                let length = self.bar.length().unwrap_or(0).max(known.behind);
                ("{msg} {wide_bar} {eta} left", length, length - known.behind)
            }
        };
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        let state = match known {
            MemberStatus { live: false, .. } => "does not answer".to_owned(),
            MemberStatus { behind, .. } => format!("{behind} versions to go"),
        };
        self.bar.set_style(style);
        self.bar.set_length(length);
        self.bar.set_position(position);
        self.bar.set_message(format!("{}: {state}", self.title));
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
