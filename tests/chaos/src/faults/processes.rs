//! Processes that are killed, frozen, stopped in good order, or told to serve nobody.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::Done;
use super::context::Context;
use crate::cluster::Claim;

/// How long a rolling restart waits for one node before it goes on to the next.
const READY: Duration = Duration::from_secs(20);

pub(super) async fn kill_leader(context: &Context) -> Result<Done> {
    kill(context, context.leader().await).await
}

pub(super) async fn kill_follower(context: &Context) -> Result<Done> {
    kill(context, follower(context)).await
}

pub(super) async fn kill_several(context: &Context) -> Result<Done> {
    kill(context, several(context)).await
}

pub(super) async fn pause_leader(context: &Context) -> Result<Done> {
    pause(context, context.leader().await).await
}

pub(super) async fn pause_follower(context: &Context) -> Result<Done> {
    pause(context, follower(context)).await
}

pub(super) async fn pause_several(context: &Context) -> Result<Done> {
    pause(context, several(context)).await
}

async fn kill(context: &Context, nodes: Vec<usize>) -> Result<Done> {
    let claims = claim(context, &nodes);
    let mut killed = Vec::new();
    for claim in &claims {
        if claim.kill().await? {
            killed.push(claim.node().number());
        }
    }
    if killed.is_empty() {
        return Ok(Done::Skipped("none of them runs"));
    }
    let _ongoing = context.begins(named(&killed));
    context.last().await;
    Ok(Done::Over)
}

async fn pause(context: &Context, nodes: Vec<usize>) -> Result<Done> {
    let claims = claim(context, &nodes);
    let paused: Vec<_> = claims.iter().filter(|claim| claim.node().signal(Signal::STOP).is_ok()).collect();
    if paused.is_empty() {
        return Ok(Done::Skipped("none of them runs"));
    }
    let numbers: Vec<_> = paused.iter().map(|claim| claim.node().number()).collect();
    let _ongoing = context.begins(named(&numbers));
    context.last().await;
    for claim in paused {
        // Nobody else kills what is claimed.
        claim.node().signal(Signal::CONT)?;
    }
    Ok(Done::Over)
}

pub(super) async fn terminate(context: &Context) -> Result<Done> {
    let nodes = leader_or_follower(context).await;
    let Some(claim) = claim(context, &nodes).pop() else { return Ok(Done::Skipped("another fault has it")) };
    if !claim.node().is_running() {
        return Ok(Done::Skipped("it does not run"));
    }
    let _ongoing = context.begins(named(&nodes));
    claim.terminate().await?;
    context.last().await;
    Ok(Done::Over)
}

pub(super) async fn rolling_restart(context: &Context) -> Result<Done> {
    let mut ongoing = None;
    for number in context.cluster.members() {
        if *context.calm.borrow() {
            break;
        }
        let Some(claim) = context.cluster.claim(number) else { continue };
        if !claim.node().is_running() {
            continue;
        }
        ongoing.get_or_insert_with(|| context.begins("all nodes"));
        claim.terminate().await?;
        drop(claim);
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline && !*context.calm.borrow() {
            if context.cluster.status(number).await.is_ok_and(|status| status.ready) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(if ongoing.is_some() { Done::Over } else { Done::Skipped("other faults have all nodes") })
}

pub(super) async fn drain(context: &Context) -> Result<Done> {
    let nodes = leader_or_follower(context).await;
    let Some(&number) = nodes.first() else { return Ok(Done::Skipped("there is none")) };
    let client = context.cluster.client("drain", Duration::from_secs(3))?;
    let endpoint = context.cluster.node(number).endpoint();
    if client.drain(endpoint, false).await.is_err() {
        return Ok(Done::Skipped("it does not answer"));
    }
    let ongoing = context.begins(named(&nodes));
    context.last().await;
    // A node that was started since serves again by itself.
    while context.cluster.members().contains(&number) && client.drain(endpoint, true).await.is_err() {
        context.before_the_next_look().await;
    }
    drop(ongoing);
    client.close().await;
    Ok(Done::Over)
}

fn claim(context: &Context, nodes: &[usize]) -> Vec<Claim> {
    nodes.iter().filter_map(|&number| context.cluster.claim(number)).collect()
}

/// The leader, or another node.
pub(super) async fn leader_or_follower(context: &Context) -> Vec<usize> {
    if context.rng().bool() { context.leader().await } else { follower(context) }
}

/// One node that does not lead.
pub(super) fn follower(context: &Context) -> Vec<usize> {
    let leader = context.cluster.leader();
    let mut others = context.cluster.members();
    others.retain(|&number| Some(number) != leader);
    context.rng().choice(others).into_iter().collect()
}

/// Two nodes or more; all of them once in four times.
pub(super) fn several(context: &Context) -> Vec<usize> {
    let mut rng = context.rng();
    let mut nodes = context.cluster.members();
    rng.shuffle(&mut nodes);
    let count = if rng.u8(..4) == 0 { nodes.len() } else { rng.usize(2..nodes.len().max(3)) };
    nodes.truncate(count);
    nodes.sort_unstable();
    nodes
}

/// One node, or all of them once in four times.
pub(super) async fn one_or_all(context: &Context) -> Vec<usize> {
    match context.rng().u8(..4) {
        0 => context.cluster.members(),
        1 => context.leader().await,
        _ => follower(context),
    }
}

/// Names nodes for people.
pub(super) fn named(nodes: &[usize]) -> String {
    let names: Vec<_> = nodes.iter().map(|number| format!("n{number}")).collect();
    names.join(" ")
}
