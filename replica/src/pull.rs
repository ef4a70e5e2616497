//! Getting what this replica misses from another: entries, or a snapshot where the other's log no longer reaches back.
//!
//! A new leader pulls the best log of its quorum; a follower pulls when its leader tells it to restore. And the other
//! side: serving those who pull.

use std::sync::Arc;

use bytes::Bytes;
use quorumkv_mutants::Mutant;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::peer::{PeerMessage, Propagate, PropagateReply, SnapshotChunk, SnapshotPosition};
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};

use crate::effects::{LogPurpose, LogRead, LogRecord, Notice, Task};
use crate::replica::{Replica, Role};
use crate::state::StateView;
use crate::time::Timestamp;

/// A pull under way.
#[derive(Debug)]
pub(crate) struct Pull {
    source: NodeId,
    epoch: Epoch,
    /// Whether the state is damaged, so that entries do not help.
    whole: bool,
    /// The next chunk to ask for, once a snapshot has begun.
    position: Option<SnapshotPosition>,
    phase: Phase,
    asked: Timestamp,
    /// Fetches in a row without an answer.
    unanswered: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// A fetch is on its way.
    Asking,
    /// A chunk is being stored: this one, counted as in [`Chunks`].
    Writing(u64),
    /// The snapshot is being put in the place of the state. There is no way back from here.
    Installing,
}

/// Counts chunks that were handed out to be stored. They are stored one after the other and reported in order, so a
/// report is told from one about a chunk of an earlier pull, which may even have been of the same snapshot.
#[derive(Default, Debug)]
pub(crate) struct Chunks {
    handed: u64,
    reported: u64,
}

impl Chunks {
    /// The next chunk is reported: the pull that waits for it, if that still goes on.
    fn reported<'a>(&mut self, pull: &'a mut Option<Pull>) -> Option<&'a mut Pull> {
        self.reported += 1;
        let is_this = |phase| {
            phase == Phase::Writing(self.reported)
                || (Mutant::ChunkOfEarlierPull.on() && matches!(phase, Phase::Writing(_)))
        };
        pull.as_mut().filter(|pull| is_this(pull.phase))
    }
}

/// Fetches without an answer after which a new leader looks for another source.
const PATIENCE: u32 = 3;

/// No snapshot lies beyond this: it would use up the versions.
const HIGHEST: Version = Version::new(1 << 62);

impl Pull {
    pub(crate) const fn new(source: NodeId, epoch: Epoch) -> Self {
        Self {
            source,
            epoch,
            whole: false,
            position: None,
            phase: Phase::Asking,
            asked: Timestamp::ZERO,
            unanswered: 0,
        }
    }

    /// A pull of the source's whole state.
    pub(crate) fn whole(source: NodeId, epoch: Epoch) -> Self {
        Self { whole: true, ..Self::new(source, epoch) }
    }
}

impl<S: StateView> Replica<S> {
    /// Whether a snapshot is about to replace the log: until it has, the log can be neither changed nor spoken for.
    pub(crate) fn is_installing(&self) -> bool {
        self.pull.as_ref().is_some_and(|pull| pull.phase == Phase::Installing)
    }

    /// Forgets the pull, unless its snapshot is being installed.
    pub(crate) fn cancel_pull(&mut self) {
        if !self.is_installing() {
            self.pull = None;
        }
    }

    /// The log goes on by itself: what is pulled only for its sake is not needed.
    pub(crate) fn entries_came(&mut self) {
        if self.pull.as_ref().is_some_and(|pull| !pull.whole || Mutant::EntriesEndRepair.on()) {
            self.cancel_pull();
        }
    }

    /// The leader says that its log no longer has what this replica misses.
    pub(crate) fn on_restore(&mut self, from: NodeId, epoch: Epoch) {
        if epoch != self.promise
            || epoch.node() != from
            || !matches!(self.role, Role::Follower)
            || self.pull.is_some()
        {
            return;
        }
        self.pull = Some(Pull::new(from, epoch));
        self.out.notice(Notice::Restoring { source: from });
        self.fetch();
    }

    /// Asks the source for what follows.
    pub(crate) fn fetch(&mut self) {
        let after = self.log.last_id();
        self.fetch_after(after);
    }

    fn fetch_after(&mut self, after: EntryId) {
        let Some(pull) = &mut self.pull else { return };
        pull.phase = Phase::Asking;
        pull.asked = self.now;
        let fetch =
            Propagate::Fetch { epoch: pull.epoch, after, resume: pull.position.clone(), whole: pull.whole };
        self.out.send(pull.source, PeerMessage::Propagate(fetch));
    }

    /// The source sent entries.
    pub(crate) fn on_fetched(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        previous: EntryId,
        entries: Vec<Arc<Entry>>,
    ) {
        if !self.is_asked(from, epoch) || self.pull.as_ref().is_some_and(|pull| pull.whole) {
            return;
        }
        if previous.version >= self.committed && !self.log.holds(previous) {
            if Mutant::RestoringGivesUp.on() {
                return self.cancel_pull();
            }
            let hint = self.log.last_possible_match(previous);
            return self.fetch_after(hint.unwrap_or(self.log.base()));
        }
        if matches!(self.role, Role::Follower) {
            // The logs meet within the leader's after all, so it will stream by itself.
            return self.cancel_pull();
        }
        if !follow_one_another(previous, &entries, epoch) || self.contradicts_commit(&entries) {
            return self.absurd(
                from,
                "the entries it sent do not follow one another, or contradict what is committed",
            );
        }
        let (previous, committed) = (previous.max(self.committed_id()), self.committed);
        let news: Vec<_> = entries.into_iter().filter(|entry| entry.id.version > committed).collect();
        if news.is_empty() {
            // It has no more, and yet it said that it had: let the promises be gathered anew.
            self.pull = None;
            return self.source_lost();
        }
        self.splice(previous, news);
        if let Some(pull) = &mut self.pull {
            pull.unanswered = 0;
        }
        self.fetch();
    }

    /// The source sent a piece of a snapshot.
    pub(crate) fn on_chunk(&mut self, from: NodeId, epoch: Epoch, chunk: SnapshotChunk) {
        if !self.is_asked(from, epoch) {
            return;
        }
        if crc32c::crc32c(&chunk.data) != chunk.checksum {
            return self.absurd(from, "a piece of its snapshot does not match its checksum");
        }
        let snapshot = chunk.position.snapshot;
        if snapshot.version > HIGHEST {
            return self.absurd(from, "its snapshot lies absurdly far ahead");
        }
        if snapshot.epoch > epoch && !Mutant::SnapshotOfLaterEpoch.on() {
            // The source has followed a later leader since it was asked, and its state with it: entries of that epoch have
            // no place in a log that is to be opened in this one.
            return self.on_promise_seen(from, epoch, snapshot.epoch);
        }
        if !self.is_of_use(snapshot) {
            // A late answer: by now more is committed here.
            return;
        }
        let begins = chunk.position.cursor.is_empty();
        let Some(pull) = &mut self.pull else { return };
        if !begins && pull.position.as_ref() != Some(&chunk.position) {
            return;
        }
        pull.unanswered = 0;
        pull.position = Some(chunk.position.clone());
        self.chunks.handed += 1;
        pull.phase = Phase::Writing(self.chunks.handed);
        self.out.effects.tasks.push(Task::WriteChunk(chunk));
    }

    /// A piece was stored: ask for the next, or put the whole in place.
    pub(crate) fn chunk_written(&mut self, snapshot: EntryId, next: Option<Bytes>) {
        let is_of_use = self.is_of_use(snapshot);
        let Some(pull) = self.chunks.reported(&mut self.pull) else { return };
        match next {
            Some(cursor) if !Mutant::SnapshotHalfApplied.on() => {
                pull.position = Some(SnapshotPosition { snapshot, cursor });
                self.fetch();
            }
            _ if is_of_use => {
                pull.phase = Phase::Installing;
                self.out.effects.tasks.push(Task::Install { snapshot });
            }
            _ => self.cancel_pull(),
        }
    }

    /// Whether a snapshot brings anything: entries that are not committed here, or a state in the place of a damaged one.
    fn is_of_use(&self, snapshot: EntryId) -> bool {
        let mends = self.integrity.is_mended_by(snapshot.version) && self.log.holds(snapshot);
        snapshot.version > self.committed || mends
    }

    /// A snapshot could not be stored: begin anew at the next fetch.
    pub(crate) fn chunk_rejected(&mut self) {
        if let Some(pull) = self.chunks.reported(&mut self.pull) {
            pull.position = None;
            pull.phase = Phase::Asking;
        }
    }

    /// The snapshot is the state now.
    pub(crate) fn installed(&mut self, snapshot: EntryId) {
        self.pull = None;
        if snapshot.version > self.committed {
            self.committed = snapshot.version;
            // A log that leads up to the snapshot stays: its leader may have been told that it is durable.
            if self.log.holds(snapshot) && !Mutant::SnapshotDropsVotes.on() {
                self.mark_applied(snapshot.version);
                self.commit_configurations();
            } else {
                self.applied = snapshot.version;
                self.log.reset(snapshot);
                self.overlay.clear();
                self.out.log(LogRecord::Base(snapshot));
                self.reset_configurations();
            }
            self.waiting.jumped(snapshot.version, &self.state, &mut self.out);
        }
        self.mended(snapshot);
        self.out.notice(Notice::Restored { snapshot });
        self.continue_adopting();
    }

    /// The source cannot serve now: the next tick asks again.
    pub(crate) fn on_unavailable(&mut self, from: NodeId, epoch: Epoch) {
        if self.is_asked(from, epoch)
            && let Some(pull) = &mut self.pull
        {
            pull.position = None;
        }
    }

    pub(crate) fn tick_pull(&mut self) {
        self.begin_repair();
        let resend = self.settings.resend;
        let Some(pull) = &mut self.pull else { return };
        if pull.phase != Phase::Asking || self.now.since(pull.asked) < resend {
            return;
        }
        pull.unanswered += 1;
        // A follower has only its leader to ask: it goes on, from where it is, until there is another.
        if pull.unanswered >= PATIENCE && matches!(self.role, Role::Contender(_)) {
            self.pull = None;
            return self.source_lost();
        }
        self.fetch();
    }

    /// Another replica wants what follows its log.
    pub(crate) fn on_fetch(
        &mut self,
        from: NodeId,
        correlation: u64,
        epoch: Epoch,
        after: EntryId,
        resume: Option<SnapshotPosition>,
        whole: bool,
    ) {
        if epoch < self.promise {
            let refused = PropagateReply::Refused { epoch, promise: self.promise };
            return self.out.reply(from, correlation, refused.into());
        }
        // A higher epoch's contender can only ask here if this replica granted it that epoch, so it knows it.
        if epoch > self.promise || self.is_installing() {
            return self.out.reply(from, correlation, PropagateReply::Unavailable { epoch }.into());
        }
        let previous = match self.log.last_possible_match(after) {
            Some(previous) if resume.is_none() && !whole => previous,
            _ if self.integrity.misleads() && !Mutant::DamagedServes.on() => {
                return self.out.reply(from, correlation, PropagateReply::Unavailable { epoch }.into());
            }
            Some(_) | None => {
                return self.out.effects.tasks.push(Task::ServeChunk {
                    to: from,
                    correlation,
                    epoch,
                    resume,
                });
            }
        };
        let next = previous.version.next();
        if next > self.log.last() || next >= self.log.first_in_memory() {
            let entries = self.entries_from(next, self.settings.append_bytes);
            let fetched = PropagateReply::Fetched { epoch, previous, entries };
            return self.out.reply(from, correlation, fetched.into());
        }
        let purpose = LogPurpose::Fetch { correlation, epoch };
        let read = LogRead { from: next, max_bytes: self.settings.append_bytes, to: from, purpose };
        self.out.effects.tasks.push(Task::ReadLog(read));
    }

    /// Entries for another replica's fetch came from the disk.
    pub(crate) fn serve_fetched(
        &mut self,
        to: NodeId,
        correlation: u64,
        epoch: Epoch,
        entries: Vec<Arc<Entry>>,
    ) {
        let previous = entries.first().and_then(|first| self.log.id_at(first.id.version.previous()));
        let reply = match previous {
            Some(previous) if epoch == self.promise => PropagateReply::Fetched { epoch, previous, entries },
            _ => PropagateReply::Unavailable { epoch },
        };
        self.out.reply(to, correlation, reply.into());
    }

    fn continue_adopting(&mut self) {
        if let Role::Contender(contender) = &self.role
            && let Some(source) = contender.source()
        {
            self.pull = Some(Pull::new(source, contender.epoch));
            self.fetch();
        }
    }

    fn is_asked(&mut self, from: NodeId, epoch: Epoch) -> bool {
        let Some(pull) = &mut self.pull else { return false };
        pull.source == from && pull.epoch == epoch && pull.phase == Phase::Asking
    }
}

/// Whether the entries follow `previous` one by one, in epochs that never decrease and are older than `epoch`.
fn follow_one_another(previous: EntryId, entries: &[Arc<Entry>], epoch: Epoch) -> bool {
    let mut last = previous;
    entries.iter().all(|entry| {
        let follows = entry.id.version.get().checked_sub(1) == Some(last.version.get())
            && entry.id.epoch >= last.epoch
            && entry.id.epoch < epoch
            && entry.is_applicable();
        last = entry.id;
        follows
    })
}
