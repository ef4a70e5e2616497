//! Clocks that are wrong.

use anyhow::Result;

use super::Done;
use super::context::Context;
use super::processes::{named, one_or_all};

/// By how much the time of day jumps: up to a day.
const JUMP_S: std::ops::Range<i64> = -86_400..86_400;

/// By how much a clock goes fast or slow, in millionths: up to a quarter.
const DRIFT_PPM: std::ops::Range<i64> = -250_000..250_000;

pub(super) async fn jump(context: &Context) -> Result<Done> {
    let nodes = one_or_all(context).await;
    let seconds = context.rng().i64(JUMP_S);
    if nodes.is_empty() {
        return Ok(Done::Skipped("there is no leader"));
    }
    for &number in &nodes {
        context.cluster.node(number).clock().jump(seconds)?;
    }
    let _ongoing = context.begins(format!("{} by {seconds} s, and back", named(&nodes)));
    context.last().await;
    for number in nodes {
        context.cluster.node(number).clock().jump(-seconds)?;
    }
    Ok(Done::Over)
}

pub(super) async fn drift(context: &Context) -> Result<Done> {
    let nodes = one_or_all(context).await;
    let ppm = context.rng().i64(DRIFT_PPM);
    if nodes.is_empty() {
        return Ok(Done::Skipped("there is no leader"));
    }
    for &number in &nodes {
        context.cluster.node(number).clock().drift(ppm)?;
    }
    let percent = ppm as f64 / 10_000.0;
    let _ongoing = context.begins(format!("{} by {percent:+.1} %", named(&nodes)));
    context.last().await;
    for number in nodes {
        context.cluster.node(number).clock().drift(0)?;
    }
    Ok(Done::Over)
}
