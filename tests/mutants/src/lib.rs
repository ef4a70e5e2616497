//! Deliberate bugs, each of which the simulator must find (docs/testing.md).
//!
//! Where the code does something that safety or progress depends on, it asks whether a [`Mutant`] is on that leaves it out.
//! Without the feature `switch`, which no build for users has, the answer is a constant and the question leaves no trace.

#[cfg(feature = "switch")]
mod switch;

#[cfg(feature = "switch")]
pub use switch::{switch_for_this_thread, switch_from_environment};

macro_rules! mutants {
    ($($(#[doc = $what:literal])* $mutant:ident,)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $what])* $mutant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mutant,)*];

            /// What is wrong, in one sentence.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$mutant => concat!($($what,)*).trim_ascii(),)*
                }
            }
        }
    };
}

mutants! {
    // Votes and promises (DESIGN 5, 7).
    /// A promise is answered before it is durable.
    PromiseNotDurable,
    /// A contender asks for promises before its own is durable.
    AsksBeforeOwnPromise,
    /// The promise is forgotten at a restart.
    PromiseForgotten,
    /// A promise says nothing of what is in the log and not synced yet.
    PromiseOmitsUnsynced,
    /// The leader counts what its own log has not synced.
    LeaderCountsUnsynced,
    /// A follower votes before it has synced.
    VotesBeforeSync,
    /// The shell tells the replica of a sync only after the votes have left.
    SyncToldLate,
    /// An append of a lower epoch than promised is accepted.
    AcceptsBelowPromise,
    /// An entry of an old epoch is committed by counting (Raft's figure 8).
    CommitsOldEpochByCounting,
    /// A new leader opens no epoch: it takes writes at once.
    OpeningSkipped,
    /// A new leader does not adopt the best log.
    BestLogNotAdopted,
    /// The best log is the longest, whatever its epoch.
    BestLogByLength,
    /// A contender goes on while a snapshot takes the place of its log.
    ContendsWhileInstalling,

    // The log (DESIGN 5, 8).
    /// Entries that differ are not replaced.
    ConflictNotTruncated,
    /// Everything after the entries of an append is dropped, even if it does not differ.
    TruncatesAfterEveryAppend,
    /// What was dropped still counts as durable.
    TruncationKeepsDurable,
    /// An append that does not fit drops everything after what the state has applied, committed or not.
    TruncatesCommitted,
    /// The entry before an append is not compared.
    PreviousNotCompared,
    /// A follower commits beyond what is known to match.
    CommitsBeyondMatched,
    /// Entries read from disk are sent although the log was trimmed meanwhile.
    SendsWhatWasTrimmed,
    /// A backlog of uncommitted entries refuses the entry that would commit it.
    BacklogRefusesCommit,
    /// What was sent over a connection that broke is not sent again.
    LostAppendsNotResent,

    // The write-ahead log (DESIGN 9).
    /// What is written to the log is not synced.
    LogNotSynced,
    /// A segment that is full is not synced before the next one is begun.
    FullSegmentNotSynced,
    /// The header of a segment is not synced before the segment has its name.
    SegmentHeaderNotSynced,
    /// The name of a segment is not made durable before records are written to it.
    SegmentNameNotSynced,
    /// Checksums of records are not compared.
    ChecksumIgnored,
    /// The checksum of the record before is not compared, and a torn tail is not cleared: either alone is made good by the other.
    PredecessorIgnored,
    /// Damage is taken for the torn tail that a crash leaves.
    DamageTakenForTorn,
    /// A torn tail is not cleared.
    TornTailStays,

    // Snapshots (DESIGN 8).
    /// A snapshot is put in place when its first piece is there.
    SnapshotHalfApplied,
    /// Results of requests do not come with a snapshot.
    ResultsLostInSnapshot,
    /// A report about a chunk of an earlier pull is taken for one about this pull's.
    ChunkOfEarlierPull,
    /// A snapshot of a later epoch is taken by a contender of an earlier one.
    SnapshotOfLaterEpoch,
    /// A restoring follower whose log differs gives up the pull.
    RestoringGivesUp,
    /// A log that leads up to a snapshot is dropped although votes were given for it.
    SnapshotDropsVotes,

    // Reads (DESIGN 6).
    /// Answers are compared without the epochs of their logs.
    ReadIgnoresEpoch,
    /// Logs that have promised another epoch count as votes.
    ReadCountsUnsettled,
    /// One answer fewer than a quorum decides.
    ReadQuorumTooSmall,
    /// The highest version among present values decides, so that an absent key has none.
    ReadHighestVersion,
    /// A delete that is not committed is returned.
    ReadUncommittedDelete,
    /// What the decider holds is returned, committed or not.
    ReadUncommitted,
    /// Samples show what is not synced.
    SampleShowsUnsynced,
    /// A read joins a sample that was sent before it began.
    ReadJoinsEarlierSample,
    /// Samples of another configuration count.
    SampleIgnoresConfiguration,
    /// A scan does not wait until its node holds what the sample showed.
    ScanDoesNotWait,
    /// The node that is asked answers for all.
    ReadLocalOnly,

    // Requests (DESIGN 5).
    /// Results of requests are not looked up.
    ResultsNotLookedUp,
    /// Requests that are in the log and not applied yet are not looked up.
    UnderWayNotLookedUp,
    /// Requests whose result was forgotten are run again.
    ForgottenRunAgain,
    /// A retry is answered before its entry is committed.
    RetryAnsweredEarly,
    /// A write is answered before it is committed.
    AnsweredBeforeCommit,
    /// Writes are evaluated against the applied state only.
    EvaluatesAppliedOnly,
    /// A compare-and-set does not compare.
    SetsWithoutComparing,
    /// Logged writes are called superseded when the leader stands down.
    SupersededAtStandDown,
    /// Writes that a snapshot covers are called superseded.
    SupersededBySnapshot,

    // Members (DESIGN 8).
    /// Votes of learners count.
    LearnersCount,
    /// Votes are counted in the newest committed configuration, not in the newest of the log.
    CountsInCommitted,
    /// A configuration that was dropped from the log still counts.
    DroppedConfigurationCounts,
    /// A change of the members does not wait for the one before it.
    ChangesOverlap,
    /// A node that has lost its disk comes back under its old identity.
    AmnesiacVotes,

    // Damage (DESIGN 6, 8).
    /// A node whose state is damaged shows it.
    DamagedShowsState,
    /// A node whose state is damaged gives it to others.
    DamagedServes,
    /// A node whose state is damaged goes on applying.
    DamagedApplies,
    /// A damaged state is replaced by one of what it had applied, not of what it had handed out to be applied.
    RepairTooOld,
    /// Nothing is applied after a repair.
    RepairAppliesNothing,
    /// Entries that come end the pull of a whole state.
    EntriesEndRepair,
    /// The leader's state is right, whatever the others hold.
    LeaderIsRight,
}

impl Mutant {
    /// Its name, as it is given on a command line.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }

    /// Whether the bug is there.
    #[cfg(not(feature = "switch"))]
    #[must_use]
    #[inline]
    pub const fn on(self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        assert_eq!(Mutant::PromiseNotDurable.name(), "promise-not-durable");
        for &mutant in Mutant::ALL {
            assert_eq!(Mutant::named(&mutant.name()), Some(mutant));
        }
        assert_eq!(Mutant::named("none"), None);
    }
}
