//! What a replica does for the leader of the epoch that it promised, and how it comes to promise one.

use std::sync::Arc;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::peer::{Append, AppendReply, Heartbeat, HeartbeatReply, PeerMessage, VoteReply};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};

use crate::effects::Notice;
use crate::replica::{Replica, Role};
use crate::state::StateView;

/// Wraps the reply to an append as the reply to the message that brought it.
type Wrap<M> = fn(AppendReply) -> M;

impl<S: StateView> Replica<S> {
    /// A contender asks for this replica's promise.
    pub(crate) fn on_lead(&mut self, from: NodeId, correlation: u64, epoch: Epoch, configuration: EntryId) {
        if !self.is_credible(from, epoch) {
            return;
        }
        if let Some(since) = self.excluding(from, configuration) {
            return self.out.reply(from, correlation, PeerMessage::NotMember { since, named: configuration });
        }
        if !self.may_promise(configuration) {
            return;
        }
        if epoch < self.promise || (epoch == self.promise && !matches!(self.role, Role::Follower)) {
            return self.refuse_vote(from, correlation, epoch);
        }
        if epoch == self.promise {
            // It was asked before: whoever asks is still at it.
            self.suspicion.spoke(self.now);
        }
        if self.is_installing() {
            // The log is about to be replaced by a snapshot: what it holds cannot be told now. The contender asks again.
            return;
        }
        if epoch > self.promise {
            self.promise(epoch);
            self.out.notice(Notice::Promised { epoch });
        }
        let last = if Mutant::PromiseOmitsUnsynced.on() { self.standing().last } else { self.log.last_id() };
        let granted = PeerMessage::VoteReply(VoteReply::Granted { epoch, last, committed: self.committed });
        if Mutant::PromiseNotDurable.on() {
            self.out.reply(from, correlation, granted);
        } else {
            self.out.reply_when_durable(from, correlation, granted);
        }
    }

    /// The leader wants entries accepted, or asks whether the logs match.
    pub(crate) fn on_append<M: Into<PeerMessage>>(
        &mut self,
        from: NodeId,
        correlation: u64,
        append: Append,
        wrap: Wrap<M>,
    ) {
        if !self.is_credible(from, append.epoch) {
            return;
        }
        if !is_consecutive(&append) {
            return self.absurd(from, "its entries do not follow one another, or cannot be applied");
        }
        if append.epoch < self.promise && !Mutant::AcceptsBelowPromise.on() {
            return self.refuse_vote(from, correlation, append.epoch);
        }
        if !self.follow(from, append.epoch) || self.is_installing() || self.is_backlogged() {
            // A leader that hears nothing sends again.
            return;
        }
        if self.contradicts_commit(&append.entries) {
            return self.absurd(from, "its entries contradict what is committed");
        }
        let (epoch, committed) = (append.epoch, append.committed);
        self.following.committed = self.following.committed.max(committed);
        let reply = match self.accept(append) {
            Ok(durable) => {
                self.following.matched = self.following.matched.max(durable);
                self.follow_commit(committed);
                AppendReply::Accepted { epoch, durable }
            }
            Err((at, hint)) => AppendReply::Diverged { epoch, at, hint },
        };
        let unsynced = matches!(reply, AppendReply::Accepted { durable, .. } if durable > self.log.durable());
        let reply = wrap(reply).into();
        if unsynced && !Mutant::VotesBeforeSync.on() {
            self.out.reply_when_durable(from, correlation, reply);
        } else {
            self.out.reply(from, correlation, reply);
        }
    }

    /// The leader says how far the log is committed.
    pub(crate) fn on_committed(&mut self, from: NodeId, epoch: Epoch, committed: Version) {
        if self.is_credible(from, epoch) && epoch >= self.promise && self.follow(from, epoch) {
            self.follow_commit(committed);
        }
    }

    /// The leader says that it leads.
    pub(crate) fn on_heartbeat(&mut self, from: NodeId, correlation: u64, heartbeat: &Heartbeat) {
        if !self.is_credible(from, heartbeat.epoch) {
            return;
        }
        let epoch = heartbeat.epoch;
        if epoch >= self.promise && self.follow(from, epoch) {
            if let Some(compare) = &heartbeat.compare {
                self.compare(epoch, compare);
            }
            self.following.last = heartbeat.last;
            self.follow_commit(heartbeat.committed);
            if self.applied >= heartbeat.committed {
                self.following.fresh = Some(self.now);
            }
        }
        let durable = self.log.id_at(self.log.durable()).expect("what is durable is in the log");
        let reply = HeartbeatReply {
            epoch,
            promise: self.promise,
            durable,
            applied: self.applied,
            restoring: self.pull.is_some(),
            disk_full: self.disk_full,
            damaged: self.integrity.is_damaged(),
            compared: heartbeat.compare.as_ref().and_then(|compare| self.compared(epoch, compare)),
        };
        self.out.reply(from, correlation, PeerMessage::HeartbeatReply(reply));
    }

    /// Whether a correct peer could speak for this epoch: it is that peer's own, and not absurdly far ahead.
    pub(crate) fn is_credible(&mut self, from: NodeId, epoch: Epoch) -> bool {
        if epoch.node() != from {
            self.absurd(from, "it speaks for an epoch that is not its own");
            return false;
        }
        if !epoch.is_plausible_after(self.highest_seen) {
            self.absurd(from, "its epoch is too far ahead to be true");
            return false;
        }
        self.highest_seen = self.highest_seen.max(epoch);
        true
    }

    /// Follows the leader of an epoch that is not below the promise. False if that is this node itself.
    fn follow(&mut self, leader: NodeId, epoch: Epoch) -> bool {
        if epoch > self.promise {
            self.promise(epoch);
        } else if !matches!(self.role, Role::Follower) {
            self.absurd(leader, "it speaks for an epoch that this node leads");
            return false;
        }
        self.following.heard = self.now;
        self.disowned = false;
        if self.following.leader.is_none() {
            self.following.leader = Some(leader);
            self.out.notice(Notice::Following { epoch });
        }
        true
    }

    fn refuse_vote(&mut self, to: NodeId, correlation: u64, epoch: Epoch) {
        let refused = VoteReply::Refused { epoch, promise: self.promise };
        self.out.reply(to, correlation, PeerMessage::VoteReply(refused));
    }

    /// Whether entries that another node sent cannot stand in one log with what is committed here.
    pub(crate) fn contradicts_commit(&self, entries: &[Arc<Entry>]) -> bool {
        let committed = self.committed_id();
        entries.iter().any(|entry| {
            let id = entry.id;
            (id.version == committed.version && id != committed)
                || (id.version > committed.version && id.epoch < committed.epoch)
        })
    }

    /// Puts the append's entries into the log. Says up to where the log now equals the leader's; or else at which
    /// version it differs, and the last entry at or before it that may match.
    fn accept(&mut self, append: Append) -> Result<Version, (Version, EntryId)> {
        let at = append.previous.version;
        // What is committed here is in the log of every later leader, so the logs match there without a comparison.
        if at > self.committed && !self.log.holds(append.previous) && !Mutant::PreviousNotCompared.on() {
            if Mutant::TruncatesCommitted.on() {
                self.log.truncate_after(self.applied);
            }
            // The committed entry here stands in the leader's log too, so the search ends there at the latest.
            return Err((at, self.log.last_possible_match(append.previous).unwrap_or(self.log.base())));
        }
        let previous = if at > self.committed { append.previous } else { self.committed_id() };
        let entries: Vec<Arc<Entry>> =
            append.entries.into_iter().filter(|entry| entry.id.version > previous.version).collect();
        self.entries_came();
        Ok(self.splice(previous, entries))
    }

    /// Everything up to `committed` is committed in the leader's log: here, as far as the logs are known to be equal.
    fn follow_commit(&mut self, committed: Version) {
        self.following.last = self.following.last.max(committed);
        self.following.committed = self.following.committed.max(committed);
        if self.is_installing() {
            return;
        }
        let matched =
            if Mutant::CommitsBeyondMatched.on() { self.log.last() } else { self.following.matched };
        self.commit(committed.min(matched));
    }

    /// The last entry that is known to be committed.
    pub(crate) fn committed_id(&self) -> EntryId {
        self.log.id_at(self.committed).expect("what is committed is in the log or its base")
    }

    /// Whether so much waits to be applied that nothing more can be taken in. What is not committed does not count: it
    /// may be the next append that commits it, and it is bounded by what leaders take in.
    fn is_backlogged(&self) -> bool {
        (self.applied < self.committed || Mutant::BacklogRefusesCommit.on()) && self.is_full()
    }

    /// Whether the entries in memory take all the room that there is for them.
    pub(crate) const fn is_full(&self) -> bool {
        self.log.memory_bytes() > self.settings.backlog_bytes + self.settings.cache_bytes
    }
}

/// Whether the entries follow `previous` one by one, in epochs that never decrease and do not exceed the sender's.
fn is_consecutive(append: &Append) -> bool {
    let mut last = append.previous;
    append.entries.iter().all(|entry| {
        let follows = entry.id.version.get().checked_sub(1) == Some(last.version.get())
            && entry.id.epoch >= last.epoch
            && entry.id.epoch <= append.epoch
            && entry.is_applicable();
        last = entry.id;
        follows
    })
}
