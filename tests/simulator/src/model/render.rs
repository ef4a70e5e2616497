//! Inputs, messages and effects as people read them.

use std::fmt::Write as _;

use bytes::Bytes;
use quorumkv_protocol::client::{Evidence, Rule, Write};
use quorumkv_protocol::entry::{Body, Effect, Entry, Outcome};
use quorumkv_protocol::membership::{Change, Configuration, Member, Replacement};
use quorumkv_protocol::peer::{
    Append, AppendReply, Compare, KeyAnswer, PeerMessage, Propagate, PropagateReply, SnapshotPosition,
    Standing, Vote, VoteReply,
};
use quorumkv_protocol::{EntryId, Epoch, NodeId, RequestId, Version};
use quorumkv_replica::{
    Damage, Effects, Input, LogPurpose, LogRead, LogRecord, Notice, Reply, StoodDown, Task, Unwell,
};

/// A node by its number.
pub(crate) fn node(id: NodeId) -> String {
    id.get().to_string()
}

/// An epoch as `counter@node`.
pub(crate) fn epoch(epoch: Epoch) -> String {
    if epoch == Epoch::ZERO { "0".to_owned() } else { format!("{}@{}", epoch.counter(), node(epoch.node())) }
}

/// An entry's id as `version of epoch`.
pub(crate) fn id(id: EntryId) -> String {
    if id == EntryId::ZERO { "nothing".to_owned() } else { format!("{} of {}", id.version, epoch(id.epoch)) }
}

fn request(request: RequestId) -> String {
    format!("request {}#{}", request.client.get(), request.sequence)
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Applied => "applied".to_owned(),
        Outcome::NotFound => "not found".to_owned(),
        Outcome::Mismatch { actual } => format!("mismatch, it is at {actual}"),
    }
}

/// Who votes, who learns, and who is to take whose place.
pub(crate) fn configuration(configuration: &Configuration) -> String {
    let nodes =
        |members: &[Member]| members.iter().map(|member| node(member.node)).collect::<Vec<_>>().join(" ");
    let mut line = format!("voters {}", nodes(&configuration.voters));
    if !configuration.learners.is_empty() {
        line += &format!(", learners {}", nodes(&configuration.learners));
    }
    for Replacement { old, new } in &configuration.replacements {
        line += &format!(", {} replaces {}", node(*new), node(*old));
    }
    line
}

/// An entry's id and what it does.
pub(crate) fn entry(entry: &Entry) -> String {
    let mut line = id(entry.id);
    match &entry.body {
        Body::Open => line.push_str(" open"),
        Body::Configure(change) => line += &format!(" {}", configuration(&change.configuration)),
        Body::Write(write) => {
            for effect in &write.effects {
                match effect {
                    Effect::Put { key, value } => line += &format!(" {}={}", text(key), text(value)),
                    Effect::Delete { key } => line += &format!(" {}=gone", text(key)),
                }
            }
            if write.outcome != Outcome::Applied {
                line += &format!(" ({})", outcome(write.outcome));
            }
        }
    }
    line
}

fn append(append: &Append) -> String {
    let entries: Vec<String> = append.entries.iter().map(|one| entry(one)).collect();
    let after = id(append.previous);
    format!(
        "epoch {}: [{}] after {after}; committed {}",
        epoch(append.epoch),
        entries.join(", "),
        append.committed
    )
}

fn append_reply(reply: &AppendReply) -> String {
    match reply {
        AppendReply::Accepted { epoch: of, durable } => format!("epoch {}: durable to {durable}", epoch(*of)),
        AppendReply::Diverged { epoch: of, at, hint } => {
            format!("epoch {}: differs at {at}, may meet at {}", epoch(*of), id(*hint))
        }
    }
}

fn standing(standing: &Standing) -> String {
    let settled = if standing.is_settled() { "settled" } else { "promised" };
    format!(
        "log to {}, {settled} {}, committed {}",
        id(standing.last),
        epoch(standing.promise),
        standing.committed
    )
}

fn key_answer(answer: &KeyAnswer) -> String {
    match answer {
        KeyAnswer::Absent { deleted: None } => "absent".to_owned(),
        KeyAnswer::Absent { deleted: Some(by) } => format!("deleted by {}", id(*by)),
        KeyAnswer::Present { id: by, value: Some(value), .. } => format!("{} by {}", text(value), id(*by)),
        KeyAnswer::Present { id: by, value: None, .. } => format!("the same by {}", id(*by)),
    }
}

fn position(position: &SnapshotPosition) -> String {
    format!("snapshot {} at {:?}", id(position.snapshot), position.cursor)
}

/// A message between nodes.
pub(crate) fn message(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Vote(Vote::Lead { epoch: of, configuration }) => {
            format!("Lead {}{}", epoch(*of), by(*configuration))
        }
        PeerMessage::Vote(Vote::Write(write)) => format!("Write {}", append(write)),
        PeerMessage::VoteReply(VoteReply::Granted { epoch: of, last, committed }) => {
            format!("Granted {}: log to {}, committed {committed}", epoch(*of), id(*last))
        }
        PeerMessage::VoteReply(VoteReply::Write(reply)) => format!("Written {}", append_reply(reply)),
        PeerMessage::VoteReply(VoteReply::Refused { epoch: of, promise })
        | PeerMessage::PropagateReply(PropagateReply::Refused { epoch: of, promise }) => {
            format!("Refused {}: promised {}", epoch(*of), epoch(*promise))
        }
        PeerMessage::Propagate(propagated) => propagate(propagated),
        PeerMessage::PropagateReply(reply) => propagate_reply(reply),
        PeerMessage::ReadSample(sample) => {
            let keys: Vec<String> = sample.keys.iter().map(|probe| text(&probe.key)).collect();
            let pass = sample.pass.map_or(String::new(), |pass| format!(", when past {}", id(pass)));
            format!("Sample [{}]{pass}{}", keys.join(", "), by(sample.configuration))
        }
        PeerMessage::ReadSampleReply(reply) => {
            let keys: Vec<String> = reply.keys.iter().map(key_answer).collect();
            let by = by(reply.configuration);
            format!("Sampled {}: [{}]{by}", standing(&reply.standing), keys.join(", "))
        }
        PeerMessage::Heartbeat(beat) => {
            let asked = beat.compare.as_ref().map_or(String::new(), |asked| format!(", {}", compare(asked)));
            format!(
                "Heartbeat {}: committed {}, last {}{asked}",
                epoch(beat.epoch),
                beat.committed,
                beat.last
            )
        }
        PeerMessage::HeartbeatReply(reply) => format!(
            "Heard {}: promised {}, durable {}, applied {}{}{}{}{}",
            epoch(reply.epoch),
            epoch(reply.promise),
            id(reply.durable),
            reply.applied,
            if reply.restoring { ", restoring" } else { "" },
            if reply.disk_full { ", disk full" } else { "" },
            if reply.damaged { ", damaged" } else { "" },
            reply.compared.map_or(String::new(), |compared| format!(", digest {}", compared.round)),
        ),
        PeerMessage::NotMember { since, named } => {
            format!("NotMember by {} since {}", id(*named), id(*since))
        }
        PeerMessage::Doubt { epoch: of } => format!("Doubt {}", epoch(*of)),
    }
}

fn compare(compare: &Compare) -> String {
    format!("compare {} after {} from {:?}", compare.round, compare.version, compare.begin)
}

/// By which configuration something is said; nothing for the first.
fn by(configuration: EntryId) -> String {
    if configuration == EntryId::ZERO { String::new() } else { format!(", members of {}", id(configuration)) }
}

fn propagate(message: &Propagate) -> String {
    match message {
        Propagate::Committed { epoch: of, committed } => format!("Committed {}: to {committed}", epoch(*of)),
        Propagate::Entries(entries) => format!("Entries {}", append(entries)),
        Propagate::Restore { epoch: of } => format!("Restore {}", epoch(*of)),
        Propagate::Fetch { epoch: of, after, resume, whole } => {
            let whole = if *whole { ", the whole state" } else { "" };
            let resume = resume.as_ref().map_or(String::new(), |at| format!(", {}", position(at)));
            format!("Fetch {}: after {}{whole}{resume}", epoch(*of), id(*after))
        }
        Propagate::Differs { epoch: of, round, .. } => format!("Differs {}: round {round}", epoch(*of)),
    }
}

fn propagate_reply(reply: &PropagateReply) -> String {
    match reply {
        PropagateReply::Entries(reply) => format!("Written {}", append_reply(reply)),
        PropagateReply::Fetched { epoch: of, previous, entries } => {
            let entries: Vec<String> = entries.iter().map(|one| entry(one)).collect();
            format!("Fetched {}: [{}] after {}", epoch(*of), entries.join(", "), id(*previous))
        }
        PropagateReply::Chunk { epoch: of, chunk } => {
            let next = chunk.next.as_ref().map_or("the end".to_owned(), |next| format!("{next:?}"));
            format!("Chunk {}: {} up to {next}", epoch(*of), position(&chunk.position))
        }
        PropagateReply::Unavailable { epoch: of } => format!("Unavailable {}", epoch(*of)),
        PropagateReply::Refused { epoch: of, promise } => {
            format!("Refused {}: promised {}", epoch(*of), epoch(*promise))
        }
    }
}

/// An answer to a client.
pub(crate) fn reply(reply: &Reply) -> String {
    let shown = |evidence: &Option<Evidence>| evidence.as_ref().map_or(String::new(), witnesses);
    match reply {
        Reply::Written { outcome: came_to, version } => {
            format!("written at {version}: {}", outcome(*came_to))
        }
        Reply::Read { value: Some(value), evidence } => {
            format!("{} at {}{}", text(&value.value), value.version, shown(evidence))
        }
        Reply::Read { value: None, evidence } => format!("absent{}", shown(evidence)),
        Reply::Ready => "ready".to_owned(),
        Reply::NotLeader { leader: Some(leader) } => format!("not the leader: that is {}", node(*leader)),
        Reply::NotLeader { leader: None } => "not the leader".to_owned(),
        Reply::Refused(refusal) => format!("refused: {refusal}"),
        Reply::Permitted => "permitted".to_owned(),
        Reply::Failed { code, differing: None, evidence } => format!("failed: {code:?}{}", shown(evidence)),
        Reply::Failed { code, differing: Some((one, other)), .. } => {
            format!("failed: {code:?} between {} and {}", node(*one), node(*other))
        }
    }
}

/// The evidence of a read: how it was decided, and who said what.
fn witnesses(evidence: &Evidence) -> String {
    let rule = match evidence.rule {
        Some(Rule::KnownCommitted) => "known committed",
        Some(Rule::Chosen) => "chosen",
        None => "undecided",
    };
    let mut line = format!(" ({rule}; rounds {}, conflicts {}", evidence.rounds, evidence.conflicts);
    for witness in &evidence.witnesses {
        let touched = witness.touched.map_or("untouched".to_owned(), |by| format!("touched by {}", id(by)));
        let decided = if witness.decided { " decided" } else { "" };
        let _ = write!(line, "; {}{decided}: log to {}, {touched}", node(witness.node), id(witness.last));
    }
    line + ")"
}

fn record(record: &LogRecord) -> String {
    match record {
        LogRecord::Promise(promised) => format!("promise {}", epoch(*promised)),
        LogRecord::Entry(logged) => entry(logged),
        LogRecord::Base(base) => format!("base {}", id(*base)),
    }
}

fn log_read(read: &LogRead) -> String {
    let why = match read.purpose {
        LogPurpose::Stream { .. } => "to stream",
        LogPurpose::Fetch { .. } => "fetched",
    };
    format!("entries from {} for {}, {why}", read.from, node(read.to))
}

fn task(task: &Task) -> String {
    match task {
        Task::ReadLog(read) => format!("read {}", log_read(read)),
        Task::ServeChunk { to, resume, .. } => {
            let from = resume.as_ref().map_or("a new snapshot".to_owned(), position);
            format!("serve {} {from}", node(*to))
        }
        Task::WriteChunk(chunk) => format!("store {}", position(&chunk.position)),
        Task::Install { snapshot } => format!("install snapshot {}", id(*snapshot)),
    }
}

/// Something that happened, for people.
pub(crate) fn notice(notice: &Notice) -> String {
    match notice {
        Notice::Promised { epoch: of } => format!("promised {}", epoch(*of)),
        Notice::Following { epoch: of } => format!("follows {}", epoch(*of)),
        Notice::EpochTooLow { promise } => format!("the epoch is too low: promised {}", epoch(*promise)),
        Notice::Contending { epoch: of } => format!("contends for {}", epoch(*of)),
        Notice::NotAVoter => "has no vote, so it does not contend".to_owned(),
        Notice::Promises { epoch: of, granted, voters, behind } => {
            let behind =
                behind.map_or(String::new(), |(best, by)| format!(", {by} versions behind {}", node(best)));
            format!("has {granted} of {voters} promises for {}{behind}", epoch(*of))
        }
        Notice::Established { epoch: of, opening } => format!("leads {} from {opening} on", epoch(*of)),
        Notice::StoodDown { epoch: of, reason: StoodDown::Fenced { by } } => {
            format!("stood down from {}: fenced by {}", epoch(*of), epoch(*by))
        }
        Notice::StoodDown { epoch: of, reason: StoodDown::Told } => {
            format!("stood down from {}: told to", epoch(*of))
        }
        Notice::StoodDown { epoch: of, reason: StoodDown::Removed } => {
            format!("stood down from {}: removed", epoch(*of))
        }
        Notice::StoodDown { epoch: of, reason: StoodDown::Damaged } => {
            format!("stood down from {}: its state is damaged", epoch(*of))
        }
        Notice::Damaged(Damage::Unreadable) => "cannot read its state".to_owned(),
        Notice::Damaged(Damage::Differs) => "has another state than the others".to_owned(),
        Notice::Repaired { snapshot } => format!("was repaired with {}", id(*snapshot)),
        Notice::Differs { node: other, version } => {
            format!("the state of {} differs after {version}", node(*other))
        }
        Notice::Undecided { groups, version } => {
            let group = |nodes: &Vec<NodeId>| nodes.iter().copied().map(node).collect::<Vec<_>>().join(" ");
            let groups: Vec<String> = groups.iter().map(group).collect();
            format!("the states of {} differ after {version}", groups.join(" and "))
        }
        Notice::Unwell(Unwell::NoQuorum { heard, needed }) => format!("is unwell: hears {heard} of {needed}"),
        Notice::Unwell(Unwell::DiskFull) => "is unwell: its disk is nearly full".to_owned(),
        Notice::Unwell(Unwell::LogStalled(time)) => format!("is unwell: its log stalls for {time:?}"),
        Notice::Diverged { node: other, from } => format!("{} differs after {from}", node(*other)),
        Notice::TooFarBehind { node: other } => format!("{} is too far behind", node(*other)),
        Notice::Restoring { source } => format!("is restored from {}", node(*source)),
        Notice::Restored { snapshot } => format!("was restored to {}", id(*snapshot)),
        Notice::ReadConflict { rounds } => format!("a read is in conflict, round {rounds}"),
        Notice::SampleVoid { configuration } => {
            format!("a sample is void: there are members of {}", id(*configuration))
        }
        Notice::Reconfigured { id: by } => format!("the members are those of {}", id(*by)),
        Notice::ConfigurationCommitted { id: by } => format!("the members of {} are committed", id(*by)),
        Notice::Removed { since } => format!("was removed by {}", id(*since)),
        Notice::Corruption { differing: (one, other), entry: at } => {
            format!("{} and {} differ at {}", node(*one), node(*other), id(*at))
        }
        Notice::Impeach { epoch: of } => format!("impeaches the leader of {}", epoch(*of)),
        Notice::Absurd { node: other, what } => format!("{} is absurd: {what}", node(*other)),
    }
}

/// What a replica is told.
pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Tick => "tick".to_owned(),
        Input::Message { from, envelope } => format!("{} says: {}", node(*from), message(&envelope.body)),
        Input::PeerUp(peer) => format!("reaches {}", node(*peer)),
        Input::PeerDown(peer) => format!("lost {}", node(*peer)),
        Input::PeerRefused(peer) => format!("is refused by {}", node(*peer)),
        Input::Persisted(batch) => format!("batch {} is durable", batch.0),
        Input::Applied(version) => format!("applied {version}"),
        Input::Trimmed(base) => format!("trimmed to {}", id(*base)),
        Input::Lead { counter } => format!("lead with counter {counter}"),
        Input::StandDown => "stand down".to_owned(),
        Input::DiskFull(true) => "the disk is nearly full".to_owned(),
        Input::DiskFull(false) => "the disk has room".to_owned(),
        Input::Write { token, request: write, .. } => {
            format!("t{}: {} {}", token.0, request(write.request), wanted(&write.write))
        }
        Input::Change { token, request: asked, .. } => {
            format!("t{}: {} {}", token.0, request(asked.request), change(&asked.change))
        }
        Input::Read { token, key, .. } => format!("t{}: read {}", token.0, text(key)),
        Input::Barrier { token, .. } => format!("t{}: barrier", token.0),
        Input::LogRead { read, entries } => format!("got {} {}", entries.len(), log_read(read)),
        Input::ChunkWritten { snapshot, next } => format!("stored snapshot {} up to {next:?}", id(*snapshot)),
        Input::ChunkRejected { snapshot } => format!("rejected snapshot {}", id(*snapshot)),
        Input::Installed { snapshot } => format!("installed snapshot {}", id(*snapshot)),
        Input::Digested { round, next, .. } => format!("digested round {round} up to {next:?}"),
        Input::StateDamaged => "its state is damaged".to_owned(),
    }
}

fn change(change: &Change) -> String {
    match change {
        Change::AddLearner(new) => format!("add {}", node(new.node)),
        Change::Promote(learner) => format!("promote {}", node(*learner)),
        Change::Remove(member) => format!("remove {}", node(*member)),
        Change::Replace { old, new } => format!("replace {} by {}", node(*old), node(new.node)),
    }
}

fn wanted(write: &Write) -> String {
    match write {
        Write::Put { key, value } => format!("{}={}", text(key), text(value)),
        Write::Delete { key } => format!("{}=gone", text(key)),
        Write::CompareAndSet { key, expected, value } => {
            format!("{}={} if at {}", text(key), text(value), version(*expected))
        }
    }
}

fn version(version: Version) -> String {
    version.to_string()
}

/// The whole list of effects, one to a line.
pub(crate) fn effects(effects: &Effects) -> Vec<String> {
    let mut lines = Vec::new();
    let batch = effects.persist.map_or(String::new(), |batch| format!(" in batch {}", batch.0));
    lines.extend(effects.log.iter().map(|logged| format!("logs {}{batch}", record(logged))));
    for sent in &effects.when_durable {
        lines.push(format!("when durable{batch} -> {}: {}", node(sent.to), message(&sent.envelope.body)));
    }
    for sent in &effects.sends {
        lines.push(format!("-> {}: {}", node(sent.to), message(&sent.envelope.body)));
    }
    lines.extend(effects.digest.iter().map(|task| format!("digests for {}", compare(&task.compare))));
    lines.extend(effects.apply.iter().map(|committed| format!("applies {}", entry(committed))));
    lines.extend(
        effects.replies.iter().map(|(token, answer)| format!("answers t{}: {}", token.0, reply(answer))),
    );
    lines.extend(effects.tasks.iter().map(task));
    lines.extend(effects.notices.iter().map(|noticed| format!("notes: {}", notice(noticed))));
    lines
}
