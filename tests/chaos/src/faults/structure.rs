//! Nodes that lose what they had synced. There is one at a time, and it is a voter again before the next.

use std::ffi::OsStr;

use anyhow::Result;
use quorumkv_client::{Members, NodeId, NodeStatus};

use super::Done;
use super::context::Context;
use super::processes::follower;
use crate::disk::Disk;

/// Where segments of the log are, on a disk.
const LOG: &str = "data/log";

/// How often a fault looks whether all is in order before it is skipped.
const LOOKS: u32 = 20;

/// What stands at the beginning of each.
const HEADER: u64 = 4096;

/// Of the newest segment so much has to be used: only where much was written and synced later, damage is no torn tail.
const ENOUGH: u64 = 32 << 10;

/// Whether everybody who is to be a voter is one, is heard and has caught up, and nothing is being changed.
pub(super) fn is_settled(context: &Context, members: &Members) -> bool {
    let all = &members.members;
    let settled = |known: &quorumkv_client::MemberStatus| known.votes && known.live && known.caught_up;
    members.committed && all.iter().all(settled) && all.len() == context.cluster.members().len()
}

/// Who the member at this node's address is.
pub(super) fn id_of(context: &Context, members: &Members, number: usize) -> Option<NodeId> {
    let endpoint = context.cluster.node(number).endpoint();
    members.members.iter().find(|known| known.member.address == endpoint).map(|known| known.member.node)
}

/// The members, if nothing is being changed and nobody lacks anything.
async fn settled(context: &Context) -> Option<Members> {
    let members = context.cluster.ask_members().await.ok()?;
    is_settled(context, &members).then_some(members)
}

/// The same, waiting for it for a while.
pub(super) async fn settled_soon(context: &Context) -> Option<Members> {
    for _ in 0..LOOKS {
        if let Some(members) = settled(context).await {
            return Some(members);
        }
        context.before_the_next_look().await;
    }
    None
}

/// The leader or another node, and who it is, if it may lose something now.
async fn victim(context: &Context) -> Option<(usize, NodeId)> {
    let members = settled_soon(context).await?;
    let nodes = if context.rng().u8(..3) == 0 { context.leader().await } else { follower(context) };
    let &number = nodes.first()?;
    Some((number, id_of(context, &members, number)?))
}

pub(super) async fn wipe(context: &Context) -> Result<Done> {
    let Some(_one_at_a_time) = context.structure().await else {
        return Ok(Done::Skipped("another node is not whole"));
    };
    let Some((number, old)) = victim(context).await else { return Ok(Done::Skipped("a voter is away")) };
    let Some(claim) = context.cluster.claim(number) else { return Ok(Done::Skipped("another fault has it")) };
    claim.kill().await?;
    claim.begin_anew();
    let _ongoing = context.begins(format!("n{number}"));
    drop(claim);
    loop {
        let members = settled(context).await;
        if members.is_some_and(|members| id_of(context, &members, number).is_some_and(|id| id != old)) {
            return Ok(Done::Over);
        }
        context.before_the_next_look().await;
    }
}

pub(super) async fn corrupt_stopped(context: &Context) -> Result<Done> {
    let Some(_one_at_a_time) = context.structure().await else {
        return Ok(Done::Skipped("another node is not whole"));
    };
    let Some((number, old)) = victim(context).await else { return Ok(Done::Skipped("a voter is away")) };
    let Some(claim) = context.cluster.claim(number) else { return Ok(Done::Skipped("another fault has it")) };
    if target(claim.node().disk(), &mut context.rng()).is_none() {
        return Ok(Done::Skipped("its log is short"));
    }
    claim.kill().await?;
    let Some(flipped) = flip(context, number) else {
        return Ok(Done::Skipped("its log was trimmed"));
    };
    let _ongoing = context.begins(format!("n{number} {}", flipped.what));
    drop(claim);
    until_renewed(context, number, old, &flipped).await;
    Ok(Done::Over)
}

pub(super) async fn corrupt_running(context: &Context) -> Result<Done> {
    let Some(_one_at_a_time) = context.structure().await else {
        return Ok(Done::Skipped("another node is not whole"));
    };
    let Some((number, old)) = victim(context).await else { return Ok(Done::Skipped("a voter is away")) };
    let Some(flipped) = flip(context, number) else {
        return Ok(Done::Skipped("its log is short"));
    };
    let _ongoing = context.begins(format!("n{number} {}", flipped.what));
    until_repaired(context, number, old, &flipped).await;
    Ok(Done::Over)
}

/// Waits until the node is another, and everybody votes again. It was down when its log was damaged, and reads all of it when it
/// starts: if it serves as who it was, it goes on from what it cannot know.
async fn until_renewed(context: &Context, number: usize, old: NodeId, flipped: &Flipped) {
    loop {
        if is_ready_as(context.cluster.status(number).await.ok().as_ref(), old) {
            let what = &flipped.what;
            context.cluster.object(format!("n{number} is who it was, although it was started with {what}"));
            return;
        }
        let id = settled(context).await.and_then(|members| id_of(context, &members, number));
        if id.is_some_and(|id| id != old) {
            return;
        }
        context.before_the_next_look().await;
    }
}

fn is_ready_as(status: Option<&NodeStatus>, identity: NodeId) -> bool {
    status.is_some_and(|status| status.ready && status.node == identity)
}

/// Waits until the flipped file is gone, since the log was trimmed, or belongs to an identity that is, and everybody votes again.
async fn until_repaired(context: &Context, number: usize, old: NodeId, flipped: &Flipped) {
    loop {
        let is_there = context.cluster.node(number).disk().holds(LOG, flipped.file);
        let id = settled(context).await.and_then(|members| id_of(context, &members, number));
        if id.is_some_and(|id| id != old) {
            return;
        }
        // In this order: who gives up an identity sets its files aside before it answers as another.
        if id.is_some() && !is_there && is_ready_as(context.cluster.status(number).await.ok().as_ref(), old) {
            context.cluster.is_whole(number);
            return;
        }
        context.before_the_next_look().await;
    }
}

/// A byte that is not as it was.
struct Flipped {
    /// The number of the file, which is never used again.
    file: u64,
    what: String,
}

/// A segment of which a byte can change so that it cannot be taken for a torn tail, and how much of it is used.
fn target(disk: &Disk, rng: &mut fastrand::Rng) -> Option<(String, u64)> {
    let mut segments = disk.files(LOG, ".wal");
    // The newest is the last: names are numbers.
    segments.sort();
    let newest = segments.pop().filter(|(_, used)| *used >= HEADER + ENOUGH);
    segments.retain(|(_, used)| *used > HEADER + 1024);
    segments.extend(newest);
    rng.choice(segments)
}

/// Changes a bit in the first quarter of what is used of a segment.
fn flip(context: &Context, number: usize) -> Option<Flipped> {
    let (disk, rng) = (context.cluster.node(number).disk(), &mut context.rng());
    let (name, used) = target(disk, rng)?;
    // Before it happens: the node may notice at once.
    context.cluster.damage(number, &name);
    let offset = rng.u64(HEADER..HEADER + (used - HEADER) / 4);
    let Some(file) = disk.flip(LOG, OsStr::new(&name), offset, 1 << rng.u8(..8)) else {
        context.cluster.is_whole(number);
        return None;
    };
    Some(Flipped { file, what: format!("{name} at {offset} of {used}") })
}
