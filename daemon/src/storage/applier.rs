//! The thread that changes the state: it applies committed entries, stores snapshots, and makes the state durable.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use quorumkv_protocol::EntryId;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::peer::SnapshotChunk;
use quorumkv_replica::DigestTask;
use tokio::sync::mpsc::UnboundedSender;

use crate::fatal::die;
use crate::shell::Done;
use crate::state::{Cause, Progress, Staging, State};

/// Most entries in one batch of the state.
const BATCH: usize = 1024;

/// After so long without anything to do, what was applied is moved from memory to the database: at rest the directory of a node says all
/// that it knows to be committed.
const REST: Duration = Duration::from_millis(500);

/// Something to do to the state. Jobs are done in order.
#[derive(Debug)]
pub(crate) enum Job {
    /// Hand out a view of the state when it is at the task's version.
    Digest(DigestTask),
    /// Apply these entries, which follow those before.
    Apply(Vec<Arc<Entry>>),
    /// Store a piece of a snapshot beside the state.
    WriteChunk(SnapshotChunk),
    /// Put the snapshot in the place of the state.
    Install(EntryId),
    /// Make the state durable.
    Persist,
}

/// Handle of the thread. The queue has no bound of its own: the replica takes in no more than its backlog permits, and
/// one snapshot piece at a time.
#[derive(Debug)]
pub(crate) struct Applier {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Applier {
    /// Starts the thread; it tells `done` what it has done.
    pub(crate) fn start(state: State, done: UnboundedSender<Done>) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let worker = Worker { state, done, staging: None, digest: None, is_broken: false };
        let thread =
            std::thread::Builder::new().name("applier".to_owned()).spawn(move || worker.run(&queue))?;
        Ok(Self { jobs, thread })
    }

    /// Queues a job.
    pub(crate) fn submit(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            die("the thread that applies entries has stopped");
        }
    }

    /// Does what is queued, makes the state durable and ends the thread. Blocks.
    pub(crate) fn close(self) {
        self.submit(Job::Persist);
        drop(self.jobs);
        if self.thread.join().is_err() {
            die("the thread that applies entries has failed");
        }
    }
}

struct Worker {
    state: State,
    done: UnboundedSender<Done>,
    staging: Option<Staging>,
    digest: Option<DigestTask>,
    /// Whether nothing can be applied to the state any more, because it is damaged: until another takes its place.
    is_broken: bool,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Job>) {
        let mut next = self.wait(queue);
        while let Some(job) = next.take() {
            match job {
                Job::Digest(task) => {
                    self.digest = Some(task);
                    self.hand_out_view();
                }
                Job::Apply(entries) => next = self.apply(entries, queue),
                Job::WriteChunk(chunk) => self.write_chunk(&chunk),
                Job::Install(snapshot) => self.install(snapshot),
                Job::Persist => self.persist(),
            }
            if next.is_none() {
                next = self.wait(queue);
            }
        }
    }

    /// Waits for something to do; `None` if there will be no more.
    fn wait(&mut self, queue: &Receiver<Job>) -> Option<Job> {
        match queue.recv_timeout(REST) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                self.settle();
                queue.recv().ok()
            }
        }
    }

    fn settle(&mut self) {
        if self.is_broken {
            return;
        }
        if let Err(error) = self.state.settle() {
            self.failed(&error.to_string(), error.cause());
        }
    }

    /// Applies entries together with those that have queued up behind them. Returns the job that follows, if one was
    /// taken from the queue.
    fn apply(&mut self, mut entries: Vec<Arc<Entry>>, queue: &Receiver<Job>) -> Option<Job> {
        let mut next = None;
        while entries.len() < BATCH {
            match queue.try_recv() {
                Ok(Job::Apply(more)) => entries.extend(more),
                Ok(job) => {
                    next = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        let position =
            |task: &DigestTask| entries.iter().position(|entry| entry.id.version == task.compare.version);
        let upto = self.digest.as_ref().and_then(position).map_or(0, |at| at + 1);
        let (before, after) = entries.split_at(upto);
        self.apply_all(before);
        self.hand_out_view();
        self.apply_all(after);
        next
    }

    fn apply_all(&mut self, entries: &[Arc<Entry>]) {
        let Some(last) = entries.last().filter(|_| !self.is_broken) else { return };
        match self.state.apply(entries) {
            Ok(()) => self.tell(Done::Applied(last.id.version)),
            Err(error) => self.failed(&error.to_string(), error.cause()),
        }
    }

    fn persist(&mut self) {
        let mut persisted = None;
        if !self.is_broken {
            match self.state.persist() {
                Ok(upto) => persisted = Some(upto),
                Err(error) => self.failed(&error.to_string(), error.cause()),
            }
        }
        self.tell(Done::StatePersisted(persisted));
    }

    /// Nothing more can be applied to this state. If that is because it is damaged, the leader's can take its place.
    fn failed(&mut self, error: &str, cause: Cause) {
        self.is_broken = true;
        let what = match cause {
            Cause::Damage => Some(error.to_owned()),
            Cause::Earlier => self.state.find_damage().ok().flatten(),
            Cause::Disk => None,
        };
        match what {
            Some(what) => self.tell(Done::StateBroken { database: self.state.database(), what }),
            None => die(error),
        }
    }

    /// Hands out a view of the state for the digest that is asked for, if the state is where it has to be.
    fn hand_out_view(&mut self) {
        let applied = self.state.applied().version;
        let Some(task) = self.digest.take_if(|task| task.compare.version <= applied) else { return };
        if task.compare.version == applied && !self.is_broken {
            match self.state.view() {
                Ok(view) => self.tell(Done::StateAt { task, view }),
                Err(error) => self.failed(&error.to_string(), error.cause()),
            }
        }
    }

    fn write_chunk(&mut self, chunk: &SnapshotChunk) {
        let snapshot = chunk.position.snapshot;
        match self.stage(chunk) {
            Ok(()) => self.tell(Done::ChunkWritten { snapshot, next: chunk.next.clone() }),
            Err(error) => {
                tracing::warn!(%snapshot, "a snapshot cannot be received, and is begun anew: {error}");
                self.staging = None;
                self.tell(Done::ChunkRejected { snapshot });
            }
        }
    }

    fn stage(&mut self, chunk: &SnapshotChunk) -> Result<(), crate::state::RestoreError> {
        let snapshot = chunk.position.snapshot;
        if chunk.position.cursor.is_empty() || self.staging.is_none() {
            self.staging = None;
            self.staging = Some(Staging::begin(&self.state, snapshot)?);
        }
        let Some(staging) = &mut self.staging else { return Ok(()) };
        match staging.write(chunk)? {
            Progress::Ignored | Progress::Continues | Progress::Complete => Ok(()),
        }
    }

    fn install(&mut self, snapshot: EntryId) {
        let Some(staging) = self.staging.take() else {
            die("a snapshot is to be installed that was never received")
        };
        if let Err(error) = staging.install() {
            die(&format!("the snapshot of {snapshot} cannot be installed: {error}"));
        }
        self.is_broken = false;
        self.tell(Done::Installed { snapshot });
    }

    fn tell(&self, done: Done) {
        // The owner is gone only when the process is about to end.
        let _ = self.done.send(done);
    }
}
