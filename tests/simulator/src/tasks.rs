//! What takes a node a while: applying entries, reading its log, and pieces of snapshots.

use bytes::Bytes;
use quorumkv_protocol::NodeId;
use quorumkv_protocol::peer::{PeerEnvelope, PropagateReply};
use quorumkv_replica::{Input, LogRead, Outgoing, Task};

use crate::model::store::Staged;
use crate::node::{ChunkRequest, Job};
use crate::plan::Plan;
use crate::world::{Event, World};

impl Job {
    /// How long it takes at most, in microseconds.
    fn longest(&self, plan: &Plan) -> u64 {
        match self {
            Self::Digest(_) | Self::Apply(_) => plan.apply,
            Self::WriteChunk(_) | Self::Install(_) => plan.store,
        }
    }
}

impl World {
    pub(crate) fn perform(&mut self, id: NodeId, task: Task) {
        let incarnation = self.nodes[&id].incarnation();
        let pause = self.rng.u64(50..=self.plan.task);
        match task {
            Task::ReadLog(read) => self.schedule(pause, Event::LogRead(id, incarnation, read)),
            Task::ServeChunk { to, correlation, epoch, resume } => {
                self.invariants.serves(id, &self.nodes[&id]);
                let request = ChunkRequest { to, correlation, epoch, resume };
                self.schedule(pause, Event::ServeChunk(id, incarnation, request));
            }
            Task::WriteChunk(chunk) => self.begin(id, Job::WriteChunk(chunk)),
            Task::Install { snapshot } => self.begin(id, Job::Install(snapshot)),
        }
    }

    pub(crate) fn begin(&mut self, id: NodeId, job: Job) {
        let pause = self.rng.u64(10..=job.longest(&self.plan));
        let node = self.node(id);
        let incarnation = node.incarnation();
        let Some(process) = &mut node.process else { return };
        process.jobs.push_back(job);
        if process.jobs.len() == 1 {
            self.schedule(pause, Event::JobDone(id, incarnation));
        }
    }

    /// Does the oldest job at once; the replica hears of it a little later.
    pub(crate) fn job_done(&mut self, id: NodeId, incarnation: u64) {
        let (report, spoil) = (self.rng.u64(0..=self.plan.apply), self.chance(1, 50));
        let node = self.nodes.get_mut(&id).expect("a node that works is there");
        if !node.lives(incarnation) {
            return;
        }
        let Some(process) = &mut node.process else { return };
        let Some(job) = process.jobs.pop_front() else { return };
        let next = process.jobs.front().map(|next| next.longest(&self.plan));
        let mut done = Vec::new();
        match job {
            Job::Digest(task) => {
                process.digest = Some(task);
                done.extend(process.digested());
            }
            Job::Apply(entries) => {
                for entry in &entries {
                    process.store.borrow_mut().apply(entry);
                    self.invariants.applied(id, &process.store.borrow());
                    done.extend(process.digested());
                }
                done.extend(entries.last().map(|last| Input::Applied(last.id.version)));
            }
            Job::WriteChunk(chunk) if spoil => {
                process.staged = None;
                done.push(Input::ChunkRejected { snapshot: chunk.position.snapshot });
            }
            Job::WriteChunk(chunk) => {
                Staged::take(&mut process.staged, &chunk);
                done.push(Input::ChunkWritten { snapshot: chunk.position.snapshot, next: chunk.next });
            }
            Job::Install(snapshot) => {
                let staged = process.staged.take().expect("a snapshot was stored before it is installed");
                assert_eq!(staged.snapshot(), snapshot, "another snapshot was stored");
                let store = process.store.borrow().restored(&staged);
                *process.store.borrow_mut() = store.clone();
                self.invariants.installed(id, &store);
                self.node(id).saved = store;
                done.push(Input::Installed { snapshot });
            }
        }
        let now = self.now;
        let Some(process) = &mut self.node(id).process else { return };
        process.reported = process.reported.max(now + report);
        let delay = process.reported - now;
        for done in done {
            self.schedule(delay, Event::Report(id, incarnation, done));
        }
        if let Some(longest) = next {
            let pause = self.rng.u64(10..=longest);
            self.schedule(pause, Event::JobDone(id, incarnation));
        }
    }

    pub(crate) fn log_read(&mut self, id: NodeId, incarnation: u64, read: LogRead) {
        let delay = self.rng.u64(0..=self.plan.task);
        let node = self.node(id);
        if node.lives(incarnation) {
            let entries = node.disk.written.read(read.from, read.max_bytes);
            assert!(node.journal.reads_as(&entries), "the log of {id} does not give back what was written");
            self.schedule(delay, Event::Report(id, incarnation, Input::LogRead { read, entries }));
        }
    }

    pub(crate) fn serve_chunk(&mut self, id: NodeId, incarnation: u64, request: ChunkRequest) {
        let (forget, size) = (self.chance(1, 40), self.plan.chunk);
        let node = self.nodes.get_mut(&id).expect("a node that is asked is there");
        if !node.lives(incarnation) {
            return;
        }
        let Some(process) = &mut node.process else { return };
        let ChunkRequest { to, correlation, epoch, resume } = request;
        if forget {
            process.serving.clear();
        }
        let chunk = match resume {
            Some(position) => {
                process.serving.get(&position.snapshot).map(|snapshot| snapshot.chunk(&position.cursor, size))
            }
            None => {
                let store = process.store.borrow();
                // A changed value that was copied before it is found could not be told from a right one: that is not tried.
                let is_changed = store.is_spoiled && store.is_readable();
                let snapshot = if is_changed {
                    self.invariants.as_committed(&store).snapshot()
                } else {
                    store.snapshot()
                };
                snapshot.map(|snapshot| {
                    process.serving.entry(snapshot.id()).or_insert(snapshot).chunk(&Bytes::new(), size)
                })
            }
        };
        let reply = match chunk {
            Some(chunk) => PropagateReply::Chunk { epoch, chunk },
            None => PropagateReply::Unavailable { epoch },
        };
        self.send(id, Outgoing { to, envelope: PeerEnvelope { correlation, body: reply.into() } });
    }
}
