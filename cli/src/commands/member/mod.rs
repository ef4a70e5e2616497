//! Who belongs to the cluster, and changing it.

mod list;
mod watch;

use std::time::Duration;

use quorumkv_client::{
    Change, ChangeError, ChangeRefusal, Client, Endpoint, ErrorCode, Member, MemberStatus, Members,
    NodeError, NodeId, NodeStatus, Written,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::commands::transfer::interrupted;
use crate::exit::{Code, Failure};
use crate::invocation::{Changing, MemberTask};
use crate::output::{Format, Output, printable};
use watch::{Goal, watch};

/// Pause before a change is asked for again that another change kept from being made.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest that a node may take to say who it is, and to come up if it was only just started.
const PROBE: Duration = Duration::from_secs(3);

pub(crate) async fn run(client: &Client, task: MemberTask, output: &mut Output) -> Result<(), Failure> {
    let session = Session { client, members: client.members().await? };
    match task {
        MemberTask::List => list::show(&session.members, output),
        MemberTask::Add { address, learner, how } => session.add(&address, learner, how, output).await,
        MemberTask::Remove { node, how } => session.remove(&node, how, output).await,
        MemberTask::Replace { old, new, how } => session.replace(&old, &new, how, output).await,
        MemberTask::Promote { node, how } => session.promote(&node, how, output).await,
    }
}

/// The cluster, as it was found.
struct Session<'a> {
    client: &'a Client,
    members: Members,
}

/// What was done, or would be.
#[derive(Serialize)]
struct Done<'a> {
    done: &'a str,
    dry_run: bool,
    node: String,
    address: &'a str,
    voters: usize,
    quorum: usize,
}

impl Session<'_> {
    async fn add(
        &self,
        address: &Endpoint,
        learner: bool,
        how: Changing,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let new = self.newcomer(address).await?;
        let voters = self.voters() + usize::from(!learner);
        let what = if learner { "a learner" } else { "a voter" };
        if let Some(known) = self.members.members.iter().find(|known| known.member.node == new.node) {
            let message = format!("{} is a member already", name(&known.member));
            let failure = Failure::new(Code::PreconditionFailed, message);
            let advice = format!("make it a voter with `kvctl member promote {}`", new.node);
            return Err(if known.votes { failure } else { failure.advise(advice) });
        }
        if !learner {
            self.check_live(voters, 1, how)?;
        }
        let change = Change::AddLearner(new.clone());
        if how.dry_run {
            self.client.may_change(change, how.force).await.map_err(failure)?;
            return self.tell(what, &new, voters, true, output);
        }
        self.change(change, how).await?;
        if !learner {
            self.vote(&new, how).await?;
        }
        self.tell(what, &new, voters, false, output)
    }

    async fn promote(&self, named: &str, how: Changing, output: &mut Output) -> Result<(), Failure> {
        let known = self.find(named)?;
        if known.votes {
            let message = format!("refused: {} is a voter already", name(&known.member));
            return Err(Failure::new(Code::PreconditionFailed, message).advise("nothing was changed"));
        }
        let voters = self.voters() + 1;
        if how.dry_run {
            let change = Change::Promote(known.member.node);
            self.client.may_change(change, how.force).await.map_err(failure)?;
        } else {
            self.vote(&known.member, how).await?;
        }
        self.tell("a voter", &known.member, voters, how.dry_run, output)
    }

    async fn remove(&self, named: &str, how: Changing, output: &mut Output) -> Result<(), Failure> {
        let known = self.find(named)?;
        let voters = self.voters() - usize::from(known.votes);
        let change = Change::Remove(known.member.node);
        if how.dry_run {
            self.client.may_change(change, how.force).await.map_err(failure)?;
        } else {
            self.change(change, how).await?;
        }
        self.tell("removed", &known.member, voters, how.dry_run, output)
    }

    async fn replace(
        &self,
        old: &str,
        new: &Endpoint,
        how: Changing,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let old = self.find(old)?;
        let new = self.newcomer(new).await?;
        let change = Change::Replace { old: old.member.node, new: new.clone() };
        if how.dry_run {
            self.client.may_change(change, how.force).await.map_err(failure)?;
        } else {
            self.change(change, how).await?;
            let goal = Goal::Replaced { old: old.member.node, new: new.node };
            let advice = format!(
                "the cluster goes on with it by itself: see `kvctl member list`, or give it up with `kvctl member remove {}`",
                new.node
            );
            self.wait(&new, goal, how, &advice).await?;
        }
        let what = format!("in the place of {}", name(&old.member));
        self.tell(&what, &new, self.voters(), how.dry_run, output)
    }

    /// Waits until a learner has caught up, and makes it a voter.
    async fn vote(&self, new: &Member, how: Changing) -> Result<(), Failure> {
        let advice = format!(
            "it goes on catching up as a learner: make it a voter with `kvctl member promote {0}`, or undo it with \
             `kvctl member remove {0}`",
            new.node
        );
        let until = Instant::now() + how.wait;
        loop {
            self.wait(new, Goal::CaughtUp(new.node), how, &advice).await?;
            match self.attempt(Change::Promote(new.node), how).await {
                Ok(_) => return Ok(()),
                // It fell behind again, or the leader is another and does not know yet.
                Err(ChangeError::Refused(ChangeRefusal::NotCaughtUp { .. })) if Instant::now() < until => {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(failure(error).advise(advice)),
            }
        }
    }

    async fn wait(&self, new: &Member, goal: Goal, how: Changing, advice: &str) -> Result<(), Failure> {
        let in_flight = |why: &str| {
            let message = format!("{} has not caught up yet, and {why}", name(new));
            Failure::new(Code::OutcomeUnknown, message).advise(advice.to_owned())
        };
        tokio::select! {
            reached = watch(self.client, new, goal) => reached.map_err(|failure| failure.advise(advice.to_owned())),
            _ = interrupted() => Err(in_flight("kvctl was interrupted")),
            () = sleep(how.wait) => Err(in_flight(&format!("{} have passed", humantime::format_duration(how.wait)))),
        }
    }

    /// Makes a change, as soon as no other is in its way.
    async fn change(&self, change: Change, how: Changing) -> Result<Written, Failure> {
        self.attempt(change, how).await.map_err(failure)
    }

    async fn attempt(&self, change: Change, how: Changing) -> Result<Written, ChangeError> {
        let until = Instant::now() + how.patience;
        loop {
            match self.client.change(change.clone(), how.force).await {
                Err(ChangeError::Refused(
                    ChangeRefusal::ChangeInFlight { .. } | ChangeRefusal::EpochNotCommitted,
                )) if Instant::now() < until => sleep(PAUSE).await,
                ended => return ended,
            }
        }
    }

    /// Who is at an address and wants to belong to this cluster.
    async fn newcomer(&self, address: &Endpoint) -> Result<Member, Failure> {
        let is_here = |known: &&MemberStatus| known.member.address == address.as_str();
        let until = Instant::now() + PROBE;
        let status = loop {
            match self.client.with_timeout(PROBE).status(address.as_str()).await {
                Ok(status) if status.cluster.is_some() => break status,
                Ok(_) | Err(NodeError::Unreachable(_)) if Instant::now() < until => sleep(PAUSE).await,
                Ok(status) => break status,
                Err(error) => return Err(not_there(address, &error)),
            }
        };
        if status.cluster != Some(self.members.cluster) {
            let message = format!("the node at {address} waits for the first start of a cluster of its own");
            return Err(Failure::new(Code::PreconditionFailed, message)
                .advise("nothing was changed: start it with the --zookeeper of this cluster"));
        }
        let NodeStatus { node, address: own, .. } = status;
        if own != address.as_str() {
            let own = printable(own.as_bytes());
            let message = format!("the node at {address} says that others reach it at {own}");
            return Err(Failure::new(Code::PreconditionFailed, message).advise(format!(
                "nothing was changed: use {own}, or start the node with --advertise {address}"
            )));
        }
        match self.members.members.iter().find(is_here) {
            Some(known) if known.member.node == node && known.votes => {
                let message = format!("{} is a voter already", name(&known.member));
                Err(Failure::new(Code::PreconditionFailed, message).advise("nothing was changed"))
            }
            _ => Ok(Member { node, address: own }),
        }
    }

    /// The member with an address, or whose id begins so.
    fn find(&self, named: &str) -> Result<&MemberStatus, Failure> {
        let prefix = named.to_ascii_lowercase();
        let matches = |known: &&MemberStatus| {
            known.member.address == named
                || (!named.is_empty() && known.member.node.to_string().starts_with(&prefix))
        };
        let mut found = self.members.members.iter().filter(matches);
        match (found.next(), found.next()) {
            (Some(known), None) => Ok(known),
            (Some(_), Some(_)) => {
                let message = format!("several members have an id that begins with {prefix}");
                Err(Failure::new(Code::Usage, message).advise("give more digits: see `kvctl member list`"))
            }
            (None, _) => {
                let message = format!("no member is at {named:?} or has an id that begins so");
                Err(Failure::new(Code::NotFound, message)
                    .advise("nothing was changed: `kvctl member list` shows the members"))
            }
        }
    }

    /// Refuses what would leave too few that answer; the leader checks it again when it comes to it.
    fn check_live(&self, voters: usize, coming: usize, how: Changing) -> Result<(), Failure> {
        let live = self.members.members.iter().filter(|known| known.votes && known.live).count() + coming;
        let needed = quorum(voters);
        if live >= needed || how.force {
            return Ok(());
        }
        let message = format!("of {voters} voters only {live} would answer, and {needed} are needed");
        Err(Failure::new(Code::PreconditionFailed, message).advise(FORCE))
    }

    fn voters(&self) -> usize {
        self.members.members.iter().filter(|known| known.votes).count()
    }

    fn tell(
        &self,
        what: &str,
        member: &Member,
        voters: usize,
        dry_run: bool,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let quorum = quorum(voters);
        let verb = if dry_run { "would be" } else { "is" };
        match output.format {
            Format::Raw => output.line(&member.node.to_string()),
            Format::Table => output.line(&format!(
                "{} {verb} {what}; with {voters} {} a quorum is {quorum}",
                name(member),
                if voters == 1 { "voter" } else { "voters" }
            )),
            Format::Json => output.json(&Done {
                done: what,
                dry_run,
                node: member.node.to_string(),
                address: &member.address,
                voters,
                quorum,
            }),
        }
    }
}

const FORCE: &str = "nothing was changed: bring the others back first, or use --force (writes may then wait for members that never come)";

const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// A member, for people.
fn name(member: &Member) -> String {
    named(member.node, &member.address)
}

fn named(node: NodeId, address: &str) -> String {
    format!("{node} at {}", printable(address.as_bytes()))
}

/// Why a node cannot be asked who it is.
fn not_there(address: &Endpoint, error: &NodeError) -> Failure {
    let code = match error {
        NodeError::Unreachable(connection) | NodeError::Lost(connection) => connection.failure.code(),
        _ => None,
    };
    let failure = Failure::status(error);
    if code == Some(ErrorCode::WrongCluster) {
        return failure.context("it is a node of another cluster").advise("nothing was changed");
    }
    failure.context(&format!("no node answers at {address}")).advise(
        "nothing was changed: start the node first, with an empty --data-dir and the --zookeeper of this cluster",
    )
}

/// What a change came to that was not made, or may not have been.
fn failure(error: ChangeError) -> Failure {
    match error {
        ChangeError::Write(error) => Failure::from(error).advise("see `kvctl member list`"),
        ChangeError::Refused(refusal) => {
            let advice = match &refusal {
                ChangeRefusal::TooFewLive { .. } => FORCE,
                ChangeRefusal::ChangeInFlight { .. } | ChangeRefusal::EpochNotCommitted => {
                    "nothing was changed: try again in a moment"
                }
                ChangeRefusal::NotCaughtUp { .. } => "nothing was changed: see `kvctl member list`",
                ChangeRefusal::LastVoter(_) => "nothing was changed: a cluster needs one",
                ChangeRefusal::UnknownNode(_)
                | ChangeRefusal::AlreadyMember(_)
                | ChangeRefusal::AddressTaken { .. }
                | ChangeRefusal::Unsound => "nothing was changed",
            };
            Failure::new(Code::PreconditionFailed, format!("refused: {refusal}")).advise(advice)
        }
    }
}
