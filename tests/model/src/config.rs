//! How large the model is, and which of its rules is replaced by a wrong one.

use clap::ValueEnum;

use crate::log::{MAX_ENTRIES, MAX_WRITES};
use crate::state::{MAX_EPOCHS, MAX_NODES};

/// Bounds and rules of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Replicas.
    pub nodes: usize,
    /// Epochs that are ever opened.
    pub epochs: u8,
    /// Writes that clients ever send. All are of one key.
    pub writes: u8,
    /// Where all begins.
    pub start: Start,
    /// Whether replicas crash. If not, everything is durable at once.
    pub crashes: bool,
    /// Which reads there are. There may be any number of them, one after the other.
    pub reads: Reads,
    /// Votes that commit an entry, and promises that permit a leader to open its epoch.
    pub write_quorum: usize,
    /// Answers that a read needs.
    pub read_quorum: usize,
    /// The rule that is wrong, if one is.
    pub bug: Option<Bug>,
}

/// Where all begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Start {
    /// With empty logs.
    Empty,
    /// With the first epoch established, its opening entry durable everywhere.
    Established,
}

/// Which reads there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Reads {
    /// None.
    None,
    /// A read that meets a conflict begins anew.
    Sampled,
    /// A read that meets a conflict keeps its candidate, and takes in further answers.
    Contested,
}

/// Wrong rules. The model must find a counterexample to each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Bug {
    /// Read rule (a): the entries of all answers are compared by version and value, without the epochs of the logs.
    ReadIgnoresEpochs,
    /// Read rule (c): the highest version among the values that are present is the candidate.
    ReadPrefersPresent,
    /// Read rule (d): logs that are not settled count.
    ReadCountsUnsettled,
    /// Settled logs of other epochs count if they are long enough.
    ReadCountsOtherEpochs,
    /// The longest log decides, whatever its epoch.
    ReadLongestDecides,
    /// Answers speak of entries that are not durable.
    ReadShowsUnsynced,
    /// The promise is given before it is durable.
    PromiseNotDurable,
    /// The promise tells of the durable part of the log only.
    PromiseOmitsUnsynced,
    /// Replicas vote before they have synced.
    VoteBeforeSync,
    /// The leader counts its own log before it is durable.
    LeaderCountsUnsynced,
    /// Entries of an earlier epoch are committed by counting.
    CommitOldEpoch,
    /// The best log is the longest.
    BestLogLongest,
    /// A new leader goes on from its own log.
    BestLogOwn,
    /// What was promised to a later epoch is forgotten when the leader of an earlier one sends entries.
    AcceptBelowPromise,
    /// Entries that differ from the leader's stay where they are.
    NoTruncation,
    /// The entry before an append is not compared.
    NoPreviousCheck,
    /// A follower takes for committed what is not known to equal the leader's log.
    CommitUnmatched,
    /// Two nodes may be given one epoch.
    SharedEpoch,
}

/// Why there is no such model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TooLarge {
    /// More replicas than a state holds, or none.
    #[error("from 1 to {MAX_NODES} nodes")]
    Nodes,
    /// More epochs than a state holds, or none.
    #[error("from 1 to {MAX_EPOCHS} epochs")]
    Epochs,
    /// More writes than a log can tell apart.
    #[error("at most {MAX_WRITES} writes")]
    Writes,
    /// Logs could become longer than they can.
    #[error("at most {MAX_ENTRIES} epochs and writes together")]
    Entries,
    /// No such quorum.
    #[error("quorums of at least 1 and at most all nodes")]
    Quorum,
}

impl Config {
    /// A model with the right rules, with crashes and reads, that begins with empty logs.
    pub const fn new(nodes: usize, epochs: u8, writes: u8) -> Self {
        let quorum = nodes / 2 + 1;
        Self {
            nodes,
            epochs,
            writes,
            start: Start::Empty,
            crashes: true,
            reads: Reads::Sampled,
            write_quorum: quorum,
            read_quorum: quorum,
            bug: None,
        }
    }

    /// Whether that rule is wrong.
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether all rules are right. If not, only what clients can see of it counts as a counterexample.
    pub const fn is_right(&self) -> bool {
        let quorum = self.nodes / 2 + 1;
        self.bug.is_none() && self.write_quorum == quorum && self.read_quorum == quorum
    }

    /// Whether a model of this size fits a state.
    ///
    /// # Errors
    /// Which bound it exceeds.
    pub fn check(&self) -> Result<(), TooLarge> {
        let quorums = 1..=self.nodes;
        if self.nodes == 0 || self.nodes > MAX_NODES {
            Err(TooLarge::Nodes)
        } else if self.epochs == 0 || usize::from(self.epochs) > MAX_EPOCHS {
            Err(TooLarge::Epochs)
        } else if self.writes > MAX_WRITES {
            Err(TooLarge::Writes)
        } else if usize::from(self.epochs + self.writes) > MAX_ENTRIES {
            Err(TooLarge::Entries)
        } else if !quorums.contains(&self.write_quorum) || !quorums.contains(&self.read_quorum) {
            Err(TooLarge::Quorum)
        } else {
            Ok(())
        }
    }
}
