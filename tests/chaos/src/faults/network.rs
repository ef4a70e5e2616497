//! Packets that do not arrive.

use anyhow::Result;

use super::Done;
use super::context::Context;
use super::processes::{named, one_or_all};
use crate::testbed::{Harm, Way, between, ways};

async fn harm(context: &Context, harm: Harm, ways: Vec<Way>, what: String) -> Result<Done> {
    if ways.is_empty() {
        return Ok(Done::Skipped("nobody is on the other side"));
    }
    let harmed = ways.clone();
    context.blocking(move |cluster| cluster.testbed().network().harm(harm, &harmed)).await?;
    let ongoing = context.begins(what);
    context.last().await;
    context.blocking(move |cluster| cluster.testbed().network().heal(harm, &ways)).await?;
    drop(ongoing);
    Ok(Done::Over)
}

/// The nodes in two parts, of which none is empty.
fn parts(context: &Context) -> (Vec<usize>, Vec<usize>) {
    let mut rng = context.rng();
    let mut nodes = context.cluster.members();
    rng.shuffle(&mut nodes);
    let other = nodes.split_off(rng.usize(1..nodes.len().max(2)));
    (nodes, other)
}

pub(super) async fn halves(context: &Context) -> Result<Done> {
    let (one, other) = parts(context);
    let cut = between(&context.cluster.places(&one), &context.cluster.places(&other));
    harm(context, Harm::Cut, cut, format!("{} | {}", named(&one), named(&other))).await
}

pub(super) async fn one_way(context: &Context) -> Result<Done> {
    let (mut from, mut to) = parts(context);
    match context.rng().u8(..3) {
        0 => {}
        1 => (from, to) = (from[..1].to_vec(), to[..to.len().min(1)].to_vec()),
        // What the leader says arrives nowhere, or nothing arrives at the leader.
        _ => {
            from = context.leader().await;
            to = context.cluster.members();
            if context.rng().bool() {
                (from, to) = (to, from);
            }
        }
    }
    let cut = ways(&context.cluster.places(&from), &context.cluster.places(&to));
    harm(context, Harm::Cut, cut, format!("{} -x-> {}", named(&from), named(&to))).await
}

pub(super) async fn bridge(context: &Context) -> Result<Done> {
    let (mut one, mut other) = parts(context);
    let larger = if one.len() > other.len() { &mut one } else { &mut other };
    let Some(middle) = larger.pop() else { return Ok(Done::Skipped("there are too few nodes")) };
    let cut = between(&context.cluster.places(&one), &context.cluster.places(&other));
    harm(context, Harm::Cut, cut, format!("{} | {} and n{middle} sees both", named(&one), named(&other)))
        .await
}

pub(super) async fn leader_alone(context: &Context) -> Result<Done> {
    let alone = context.leader().await;
    let mut others = context.cluster.members();
    others.retain(|number| !alone.contains(number));
    let cut = between(&context.cluster.places(&alone), &context.cluster.places(&others));
    harm(context, Harm::Cut, cut, named(&alone)).await
}

pub(super) async fn lossy(context: &Context) -> Result<Done> {
    let (one, other) = parts(context);
    let ways = between(&context.cluster.places(&one), &context.cluster.places(&other));
    harm(context, Harm::Lossy, ways, format!("{} ~ {}", named(&one), named(&other))).await
}

pub(super) async fn cut_from_zookeeper(context: &Context) -> Result<Done> {
    let nodes = one_or_all(context).await;
    let places = context.cluster.places(&nodes);
    let servers = context.cluster.testbed().ensemble().places();
    // A third of the time it is one direction only.
    let cut = match context.rng().u8(..6) {
        0 => ways(&places, servers),
        1 => ways(servers, &places),
        _ => between(&places, servers),
    };
    harm(context, Harm::Cut, cut, named(&nodes)).await
}
