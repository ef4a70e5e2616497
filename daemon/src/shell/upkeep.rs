//! Looking after what is on the disk: keeping the log short, reading back log and state, and repairing what is damaged.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quorumkv_protocol::client::DamagedPart;
use quorumkv_replica::{Damage, DigestTask, Input, Notice};
use quorumkv_wal::{DamagedSegment, VerifyError};

use super::Done;
use super::owner::Owner;
use crate::state::{Scrub, Scrubbed, View};
use crate::storage::Job;

/// How often the storage is looked after.
const INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of tables that are read back each time.
const SCRUB_BYTES: u64 = 8 << 20;

/// After the last table, and after the last segment of the log, this long passes before the first is read again.
const REST: Duration = Duration::from_secs(10);

/// What is looked after, and how far that is.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// Where the disk is that has to have this much free.
    directory: PathBuf,
    min_free_bytes: u64,
    done_at: Instant,
    /// Whether the state is being made durable so that the log can be trimmed.
    persisting: bool,
    /// The scrub of the state; `None` while it is at work.
    scrub: Option<Scrub>,
    /// When tables are to be read on.
    scrub_due: Instant,
    /// The last segment of the log that was read back, and when the next is to be.
    verified: u64,
    verify_due: Instant,
    /// A damaged segment, until it is trimmed.
    damaged: Option<DamagedSegment>,
}

/// What a look at log and state has come to.
#[derive(Debug)]
pub(crate) struct Looked {
    scrub: Scrub,
    /// `None` if no table was to be read.
    state: Option<std::io::Result<Scrubbed>>,
    /// The number of the segment that was read back; 0 after the last. `None` if none was to be.
    log: Option<Result<u64, VerifyError>>,
}

impl Upkeep {
    pub(super) fn new(directory: PathBuf, min_free_bytes: u64, scrub: Scrub) -> Self {
        Self {
            directory,
            min_free_bytes,
            done_at: Instant::now(),
            persisting: false,
            scrub: Some(scrub),
            scrub_due: Instant::now(),
            verified: 0,
            verify_due: Instant::now(),
            damaged: None,
        }
    }
}

impl Owner {
    /// Looks after the storage if it is time to.
    pub(super) fn keep_house(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.upkeep.done_at) < INTERVAL {
            return;
        }
        self.upkeep.done_at = now;
        let status = self.replica.status();
        let is_applied = |damaged: &DamagedSegment| {
            self.journal.reader().highest_upto(damaged.sequence) <= status.applied.get()
        };
        let must_go = self.upkeep.damaged.as_ref().is_some_and(is_applied);
        if (self.journal.is_long() || must_go) && !self.upkeep.persisting && !status.damaged {
            self.upkeep.persisting = true;
            self.applier.submit(Job::Persist);
        }
        self.snapshots.expire();
        self.look_at_disk();
        self.look_at_data();
    }

    fn look_at_disk(&self) {
        let Upkeep { directory, min_free_bytes, .. } = &self.upkeep;
        let (directory, done, min_free) = (directory.clone(), self.done.clone(), *min_free_bytes);
        self.node.tasks.spawn_blocking(move || match rustix::fs::statvfs(&directory) {
            Ok(disk) => {
                let free = disk.f_bavail.saturating_mul(disk.f_frsize);
                let _ = done.send(Done::DiskFull(free < min_free));
            }
            Err(error) => tracing::warn!("cannot tell how full the disk is: {error}"),
        });
    }

    /// Reads back a part of the state's tables, and a segment of the log.
    fn look_at_data(&mut self) {
        let Some(mut scrub) = self.upkeep.scrub.take() else { return };
        let (reader, done, verified) = (self.journal.reader(), self.done.clone(), self.upkeep.verified);
        let now = Instant::now();
        let is_state_due = now >= self.upkeep.scrub_due;
        let is_log_due = now >= self.upkeep.verify_due && self.upkeep.damaged.is_none();
        self.node.tasks.spawn_blocking(move || {
            let state = is_state_due.then(|| scrub.step(SCRUB_BYTES));
            let verify = || reader.verify_after(verified).map(|verified| verified.unwrap_or(0));
            let log = is_log_due.then(verify);
            let _ = done.send(Done::Looked(Box::new(Looked { scrub, state, log })));
        });
    }

    pub(super) fn looked(&mut self, looked: Looked) {
        let database = looked.scrub.database();
        self.upkeep.scrub = Some(looked.scrub);
        match looked.state {
            None | Some(Ok(Scrubbed::Continues)) => {}
            Some(Ok(Scrubbed::Whole)) => self.upkeep.scrub_due = Instant::now() + REST,
            Some(Ok(Scrubbed::Damaged(what))) => self.state_damaged(database, &what),
            Some(Err(error)) => tracing::warn!("the state cannot be read back: {error}"),
        }
        match looked.log {
            None => {}
            Some(Ok(verified)) => {
                self.upkeep.verified = verified;
                if verified == 0 {
                    self.upkeep.verify_due = Instant::now() + REST;
                }
            }
            Some(Err(VerifyError::Damaged(damaged))) => self.log_damaged(damaged),
            Some(Err(VerifyError::Io(error))) => tracing::warn!("the log cannot be read back: {error}"),
        }
    }

    /// The entries of the damaged segment are in memory as far as they are not applied. As soon as they are, and the state is
    /// durable, the segment can go.
    fn log_damaged(&mut self, damaged: DamagedSegment) {
        tracing::error!("the log: {damaged}; it goes as soon as the state holds durably what is in it");
        self.node.damage_found(DamagedPart::Log, damaged.to_string());
        if damaged.is_active {
            self.journal.roll();
        }
        self.upkeep.damaged = Some(damaged);
    }

    /// The state is durable, or could not be made so.
    pub(super) fn persisted(&mut self, persisted: Option<quorumkv_protocol::EntryId>) {
        self.upkeep.persisting = false;
        let Some(persisted) = persisted else { return };
        let damaged = self.upkeep.damaged.as_ref();
        let base =
            self.journal.trim(persisted, self.snapshots.oldest(), damaged.map(|damaged| damaged.sequence));
        if damaged.is_some_and(|damaged| self.journal.first_segment() > damaged.sequence) {
            self.upkeep.damaged = None;
            tracing::info!("the damaged part of the log is gone; nothing of it was needed any more");
            self.node.damage_repaired(Some(DamagedPart::Log));
        }
        self.tell(Input::Trimmed(base));
    }

    /// A part of the state was found to be damaged, if it is still the state.
    pub(super) fn state_damaged(&mut self, database: u64, what: &str) {
        if database != self.node.state().database() {
            return;
        }
        if self.node.damage_noticed(DamagedPart::State, what) {
            tracing::error!("the state is damaged: {what}");
        }
        self.tell(Input::StateDamaged);
    }

    /// Does what damage, or its repair, asks of the shell.
    pub(super) fn heed_damage(&mut self, notice: &Notice) {
        match notice {
            Notice::Damaged(damage) => {
                self.node.damage_noticed(DamagedPart::State, describe(*damage));
                // What was copied of it so far is not to be gone on with.
                self.snapshots.close_all();
                if self.replica.status().damaged {
                    let state = self.node.state().clone();
                    let database = state.database();
                    self.node.tasks.spawn_blocking(move || {
                        if let Err(error) = state.mark_damaged(database) {
                            tracing::warn!("cannot note on the disk that the state is damaged: {error}");
                        }
                    });
                }
            }
            Notice::Repaired { .. } => self.node.damage_repaired(Some(DamagedPart::State)),
            Notice::Undecided { groups, version } => {
                let name = |node| self.node.address_of(node).unwrap_or_else(|| node.to_string());
                let group =
                    |nodes: &Vec<_>| nodes.iter().map(|&node| name(node)).collect::<Vec<_>>().join(", ");
                let groups: Vec<String> = groups.iter().map(group).collect();
                let what = format!(
                    "the states of {} differ after version {version}, and no majority agrees",
                    groups.join(" and ")
                );
                self.node.set_undecided(what);
            }
            _ => {}
        }
    }

    /// The state is where a digest of it was asked for.
    pub(super) fn digest(&self, DigestTask { epoch, compare }: DigestTask, view: View) {
        let (done, database) = (self.done.clone(), view.database());
        self.node.tasks.spawn_blocking(move || {
            let _ = done.send(match view.digest(&compare.begin, compare.bytes as usize) {
                Ok((digest, next)) => Done::Digested { database, epoch, round: compare.round, digest, next },
                Err(error) if error.is_damage() => Done::StateDamaged { database, what: error.to_string() },
                Err(error) => return tracing::warn!("the state cannot be compared: {error}"),
            });
        });
    }

    /// How full the disk is, if that is news.
    pub(super) fn note_disk(&self, full: bool) {
        if self.node.disk_full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::warn!("the disk is nearly full: writes are refused, deletes and reads go on");
            } else {
                tracing::info!("the disk has room again: writes are taken");
            }
        }
    }
}

/// What is wrong with the state, for people.
pub(super) const fn describe(damage: Damage) -> &'static str {
    match damage {
        Damage::Unreadable => "a part of the state cannot be read",
        Damage::Differs => "the state differs from that of a majority",
    }
}
