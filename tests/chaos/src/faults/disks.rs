//! Disks that are slow, fail, are full, or lose what was not synced.

use std::time::Duration;

use anyhow::Result;

use super::Done;
use super::context::Context;
use super::processes::{leader_or_follower, named, one_or_all};
use crate::disk::{Disk, FailedSync, Loss};

/// Longer than a leader may be without a sync before it gives up its place (5 s).
const STALL: Duration = Duration::from_secs(7);

/// As little as the disk of a node may have free; it refuses writes below 256 MiB.
const LITTLE: u64 = 100 << 20;

/// Switches something on at disks, and off in the end. Another fault at the same disk may end it early.
async fn switch(context: &Context, nodes: Vec<usize>, what: String, on: impl Fn(&Disk)) -> Result<Done> {
    if nodes.is_empty() {
        return Ok(Done::Skipped("there is no leader"));
    }
    nodes.iter().for_each(|&number| on(context.cluster.node(number).disk()));
    let ongoing = context.begins(format!("{} {what}", named(&nodes)));
    context.last().await;
    nodes.iter().for_each(|&number| context.cluster.node(number).disk().heal());
    drop(ongoing);
    Ok(Done::Over)
}

pub(super) async fn slow_sync(context: &Context) -> Result<Done> {
    let delay = Duration::from_millis(context.rng().u64(10..400));
    switch(context, one_or_all(context).await, format!("{delay:?} a sync"), |disk| disk.slow_syncs(delay))
        .await
}

pub(super) async fn stalled_sync(context: &Context) -> Result<Done> {
    let nodes = leader_or_follower(context).await;
    switch(context, nodes, format!("{STALL:?} a sync"), |disk| disk.slow_syncs(STALL)).await
}

pub(super) async fn failing_sync(context: &Context) -> Result<Done> {
    let how = if context.rng().bool() { FailedSync::Keeps } else { FailedSync::Drops };
    switch(context, one_or_all(context).await, format!("{how:?}"), |disk| disk.fail_syncs(how)).await
}

pub(super) async fn full(context: &Context) -> Result<Done> {
    let free = if context.rng().bool() { 0 } else { LITTLE };
    let what = format!("{} MiB are free", free >> 20);
    switch(context, one_or_all(context).await, what, |disk| disk.leave_free(free)).await
}

pub(super) async fn power_loss(context: &Context) -> Result<Done> {
    let nodes = leader_or_follower(context).await;
    lose_power(context, nodes).await
}

pub(super) async fn power_loss_of_all(context: &Context) -> Result<Done> {
    lose_power(context, context.cluster.members()).await
}

async fn lose_power(context: &Context, nodes: Vec<usize>) -> Result<Done> {
    let claims: Vec<_> = nodes.iter().filter_map(|&number| context.cluster.claim(number)).collect();
    if claims.is_empty() {
        return Ok(Done::Skipped("other faults have them"));
    }
    let mut rng = context.rng();
    let loss = if rng.bool() { Loss::All } else { Loss::Some(rng.u64(..)) };
    // All at the same moment.
    claims.iter().for_each(|claim| claim.node().disk().power_off());
    for claim in &claims {
        claim.kill().await?;
        claim.node().disk().power_on(loss);
    }
    let numbers: Vec<_> = claims.iter().map(|claim| claim.node().number()).collect();
    let how = if loss == Loss::All { "all of it" } else { "some of it" };
    let _ongoing = context.begins(format!("{} {how}", named(&numbers)));
    context.last().await;
    Ok(Done::Over)
}
