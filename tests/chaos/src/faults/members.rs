//! Members that come and go.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quorumkv_client::{Change, Client, Member, Members, NodeId};

use super::Done;
use super::context::Context;
use super::structure::{id_of, settled_soon};
use crate::cluster::Wanted;

/// How long one change may take until it is looked at again.
const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) async fn add_or_remove(context: &Context) -> Result<Done> {
    let Some(_one_at_a_time) = context.structure().await else {
        return Ok(Done::Skipped("members are being changed"));
    };
    let Some(members) = settled_soon(context).await else { return Ok(Done::Skipped("a voter is away")) };
    let client = context.cluster.client("members", TIMEOUT)?;
    let done = if context.cluster.members().len() > context.cluster.size() {
        remove(context, &client, &members).await
    } else {
        add(context, &client).await
    };
    client.close().await;
    done
}

async fn add(context: &Context, client: &Client) -> Result<Done> {
    let Some(number) = start_spare(context).await? else {
        return Ok(Done::Skipped("there is no node to spare"));
    };
    let _ongoing = context.begins(format!("+n{number}"));
    let new = newcomer(context, number).await;
    // What became of a change is seen by looking: it may have been made although nobody says so.
    loop {
        if let Ok(members) = context.cluster.ask_members().await {
            let change = match members.members.iter().find(|known| known.member.node == new.node) {
                Some(known) if known.votes && members.committed => return Ok(Done::Over),
                Some(_) => Change::Promote(new.node),
                None => Change::AddLearner(new.clone()),
            };
            let _ = client.change(change, false).await;
        }
        context.before_the_next_look().await;
    }
}

async fn remove(context: &Context, client: &Client, members: &Members) -> Result<Done> {
    let number = context.rng().choice(context.cluster.members()).context("there are members")?;
    let old = id_of(context, members, number).context("everybody is a member")?;
    let _ongoing = context.begins(format!("-n{number}"));
    context.cluster.let_go(number);
    loop {
        if let Ok(members) = context.cluster.ask_members().await {
            if members.committed && !members.members.iter().any(|known| known.member.node == old) {
                break;
            }
            let _ = client.change(Change::Remove(old), false).await;
        }
        context.before_the_next_look().await;
    }
    until_gone(context, number).await;
    Ok(Done::Over)
}

pub(super) async fn replace(context: &Context) -> Result<Done> {
    let Some(_one_at_a_time) = context.structure().await else {
        return Ok(Done::Skipped("members are being changed"));
    };
    let Some(members) = settled_soon(context).await else { return Ok(Done::Skipped("a voter is away")) };
    let victim = context.rng().choice(context.cluster.members()).context("there are members")?;
    let old = id_of(context, &members, victim).context("everybody is a member")?;
    let Some(number) = start_spare(context).await? else {
        return Ok(Done::Skipped("there is no node to spare"));
    };
    let _ongoing = context.begins(format!("n{number} for n{victim}"));
    let new = newcomer(context, number).await;
    let client = context.cluster.client("members", TIMEOUT)?;
    context.cluster.let_go(victim);
    loop {
        if let Ok(members) = context.cluster.ask_members().await {
            let find = |node: NodeId| members.members.iter().find(|known| known.member.node == node);
            match (find(old), find(new.node)) {
                (None, Some(known)) if known.votes && members.committed => break,
                (Some(_), None) => {
                    let _ = client.change(Change::Replace { old, new: new.clone() }, false).await;
                }
                // The leader goes on with it.
                _ => {}
            }
        }
        context.before_the_next_look().await;
    }
    client.close().await;
    until_gone(context, victim).await;
    Ok(Done::Over)
}

/// Starts a node that does not belong to the cluster, with an empty disk.
async fn start_spare(context: &Context) -> Result<Option<usize>> {
    let Some(number) = context.rng().choice(context.cluster.spares()) else { return Ok(None) };
    let Some(claim) = context.cluster.claim(number) else { return Ok(None) };
    claim.kill().await?;
    claim.node().disk().heal();
    claim.begin_anew();
    claim.want(Wanted::Up);
    Ok(Some(number))
}

/// Waits until a new node says who it is.
async fn newcomer(context: &Context, number: usize) -> Member {
    loop {
        if let Ok(status) = context.cluster.status(number).await {
            return Member { node: status.node, address: context.cluster.node(number).endpoint().to_owned() };
        }
        context.before_the_next_look().await;
    }
}

/// Waits until a node that was removed has learned it, and ended.
async fn until_gone(context: &Context, number: usize) {
    while context.cluster.members().contains(&number) {
        context.before_the_next_look().await;
    }
}
