//! ZooKeepers that are killed, frozen or cut off.

use anyhow::Result;

use super::Done;
use super::context::Context;
use crate::testbed::{Harm, SERVERS, between};

/// What `docker` is asked to do.
type Command = &'static [&'static str];

const KILL: Command = &["kill"];
const START: Command = &["start"];
/// By a signal: on a busy machine `docker pause` may fail.
const FREEZE: Command = &["kill", "--signal=STOP"];
const THAW: Command = &["kill", "--signal=CONT"];

/// Does something to servers, and takes it back in the end.
async fn stop(context: &Context, servers: Vec<usize>, how: Command, back: Command) -> Result<Done> {
    let Ok(_one_at_a_time) = context.zookeepers.try_lock() else {
        return Ok(Done::Skipped("others are stopped already"));
    };
    let stopped = servers.clone();
    context.blocking(move |cluster| cluster.testbed().ensemble().command(how, &stopped)).await?;
    let ongoing = context.begins(format!("servers {servers:?}"));
    context.last().await;
    context.blocking(move |cluster| cluster.testbed().ensemble().command(back, &servers)).await?;
    drop(ongoing);
    Ok(Done::Over)
}

/// The server that leads, or one of the others.
async fn one(context: &Context) -> Result<usize> {
    let leader = context.blocking(|cluster| Ok(cluster.testbed().ensemble().leader())).await?;
    let any = context.rng().usize(..SERVERS);
    Ok(if context.rng().bool() { leader.unwrap_or(any) } else { any })
}

pub(super) async fn kill_one(context: &Context) -> Result<Done> {
    stop(context, vec![one(context).await?], KILL, START).await
}

pub(super) async fn kill_all(context: &Context) -> Result<Done> {
    stop(context, (0..SERVERS).collect(), KILL, START).await
}

pub(super) async fn pause_one(context: &Context) -> Result<Done> {
    stop(context, vec![one(context).await?], FREEZE, THAW).await
}

pub(super) async fn partition(context: &Context) -> Result<Done> {
    let alone = one(context).await?;
    let places = context.cluster.testbed().ensemble().places();
    let others: Vec<_> = places.iter().copied().filter(|&place| place != places[alone]).collect();
    let cut = between(&[places[alone]], &others);
    let harmed = cut.clone();
    context.blocking(move |cluster| cluster.testbed().network().harm(Harm::Cut, &harmed)).await?;
    let ongoing = context.begins(format!("server {alone} alone"));
    context.last().await;
    context.blocking(move |cluster| cluster.testbed().network().heal(Harm::Cut, &cut)).await?;
    drop(ongoing);
    Ok(Done::Over)
}
