//! What is done to the cluster: each fault is one function, from the harm to its end.

mod clocks;
mod context;
mod disks;
mod members;
mod network;
mod processes;
mod schedule;
mod structure;
mod zookeeper;

use anyhow::Result;

pub use context::{Calm, Context, Log, Record};
pub use schedule::{Plan, Schedule};

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// It was there, and is over.
    Over,
    /// It made no sense at that moment, and nothing was done.
    Skipped(&'static str),
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident $name:literal $weight:literal $module:ident::$work:ident;)*) => {
        /// The kinds of faults.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Kind { $($(#[doc = $doc])* $kind,)* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// How often it happens, compared with the others.
            const fn weight(self) -> u32 {
                match self { $(Self::$kind => $weight,)* }
            }

            /// The name of the kinds that harm the same.
            #[must_use]
            pub const fn group(self) -> &'static str {
                match self { $(Self::$kind => stringify!($module),)* }
            }

            /// Lets it happen, from the harm to its end.
            ///
            /// # Errors
            /// The test bed does not do as told.
            pub async fn happen(self, context: &Context) -> Result<Done> {
                match self { $(Self::$kind => $module::$work(context).await,)* }
            }
        }
    };
}

kinds! {
    /// SIGKILL for the leader.
    KillLeader "kill-leader" 6 processes::kill_leader;
    /// SIGKILL for another node.
    KillFollower "kill-follower" 5 processes::kill_follower;
    /// SIGKILL for two nodes or more, or all.
    KillSeveral "kill-several" 3 processes::kill_several;
    /// SIGSTOP for the leader, and SIGCONT.
    PauseLeader "pause-leader" 6 processes::pause_leader;
    /// SIGSTOP for another node.
    PauseFollower "pause-follower" 4 processes::pause_follower;
    /// SIGSTOP for two nodes or more, or all.
    PauseSeveral "pause-several" 3 processes::pause_several;
    /// SIGTERM for one node.
    Terminate "terminate" 3 processes::terminate;
    /// SIGTERM for one after the other, each when the one before is back.
    RollingRestart "rolling-restart" 1 processes::rolling_restart;
    /// A node is told to serve nobody and not to lead.
    Drain "drain" 2 processes::drain;
    /// No packet between two parts of the cluster.
    Halves "partition-halves" 5 network::halves;
    /// No packet in one direction, of one link or between two parts.
    OneWay "partition-one-way" 5 network::one_way;
    /// Two parts, and one node that both see.
    Bridge "partition-bridge" 4 network::bridge;
    /// The leader and the others do not hear each other.
    LeaderAlone "leader-alone" 5 network::leader_alone;
    /// Between nodes packets are lost by chance.
    Lossy "lossy-links" 3 network::lossy;
    /// Nodes do not reach ZooKeeper, and nothing else is wrong.
    CutFromZooKeeper "cut-from-zookeeper" 4 network::cut_from_zookeeper;
    /// SIGKILL for one ZooKeeper.
    ZooKeeperKill "zookeeper-kill" 3 zookeeper::kill_one;
    /// SIGKILL for all ZooKeepers.
    ZooKeeperKillAll "zookeeper-kill-all" 1 zookeeper::kill_all;
    /// One ZooKeeper is frozen.
    ZooKeeperPause "zookeeper-pause" 2 zookeeper::pause_one;
    /// A ZooKeeper does not reach the others.
    ZooKeeperPartition "zookeeper-partition" 3 zookeeper::partition;
    /// Syncs take long, at one node or all.
    SlowSync "slow-sync" 4 disks::slow_sync;
    /// Syncs at one node take longer than any patience.
    StalledSync "stalled-sync" 2 disks::stalled_sync;
    /// Syncs fail at one node or several.
    FailingSync "failing-sync" 4 disks::failing_sync;
    /// Nothing can be written for want of room.
    DiskFull "disk-full" 3 disks::full;
    /// One node loses what it has not synced.
    PowerLoss "lost-unsynced" 5 disks::power_loss;
    /// All nodes lose what they have not synced, at once.
    PowerLossAll "lost-unsynced-all" 2 disks::power_loss_of_all;
    /// A byte of the log changes while the node is down.
    CorruptLog "corrupted-log" 2 structure::corrupt_stopped;
    /// A byte of the log changes while the node runs.
    CorruptLogRunning "corrupted-log-running" 2 structure::corrupt_running;
    /// A node loses all that it had on its disk.
    Wipe "lost-disk" 2 structure::wipe;
    /// The time of day jumps, at one node or all.
    ClockJump "clock-jump" 4 clocks::jump;
    /// A clock goes fast or slow, at one node or all.
    ClockDrift "clock-drift" 3 clocks::drift;
    /// A node is added, or one more than there were at the beginning is removed.
    AddOrRemove "member-add-or-remove" 3 members::add_or_remove;
    /// A node takes the place of another.
    Replace "member-replace" 2 members::replace;
}
