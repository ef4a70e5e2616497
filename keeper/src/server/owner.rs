//! The owner: the only task that touches the keeper and its storage.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::connection::{Link, Peer};
use super::four_letter::{self, Facts, Word};
use super::frames::{Batch, Charge};
use super::notices::Notices;
use super::outbox::{self, Total};
use crate::core::{ConnectionId, Effects, Input, Keeper, Notice, Settings};
use crate::storage::Storage;
use crate::tree::Tree;

/// Most events that are handled before their effects go out.
const BATCH: usize = 1024;

/// A server that stops waits this long for what it was asked to become durable.
const DRAIN: Duration = Duration::from_secs(3);

/// What connections tell the owner.
#[derive(Debug)]
pub(super) enum Event {
    /// There is a new one, which has sent its first packet.
    Opened {
        /// Who it is.
        peer: Peer,
        /// Random bytes.
        entropy: [u8; 16],
        /// How it is reached.
        link: Arc<Link>,
    },
    /// Packets came. One permit of the link's gate was taken for them.
    Packets { connection: ConnectionId, batch: Batch },
    /// There is room in its outbox again.
    Room(ConnectionId),
    /// It is gone. Sent once for every one that was opened.
    Closed(ConnectionId),
    /// Somebody wants to know.
    Word { word: Word, from: SocketAddr, reply: oneshot::Sender<String> },
}

/// Where what happens comes from.
pub(super) struct Sources {
    pub(super) events: mpsc::Receiver<Event>,
    /// The zxid up to which the log is durable.
    pub(super) durable: watch::Receiver<i64>,
    /// Why storage has failed, if it has.
    pub(super) failure: watch::Receiver<Option<String>>,
    pub(super) stopping: CancellationToken,
}

/// The keeper, its storage, and the connections.
#[derive(Debug)]
pub(super) struct Owner {
    keeper: Keeper,
    storage: Storage,
    connections: HashMap<ConnectionId, Connection>,
    /// Those with packets that have to wait.
    stalled: BTreeSet<ConnectionId>,
    /// Where among them the next turn begins.
    turn: ConnectionId,
    /// The last zxid that was handed to the log.
    logged: i64,
    clock: Clock,
    tick: Duration,
    facts: Facts,
    notices: Notices,
    /// What waits to be sent to all connections together.
    outboxes: Arc<Total>,
}

#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    link: Arc<Link>,
    /// Packets that have to wait, and the memory that they take. While there are any, nothing is read from the connection.
    held: VecDeque<Bytes>,
    charge: Option<Charge>,
    /// Whether it has more to be answered than it had room for.
    is_waiting: bool,
}

impl Owner {
    pub(super) fn new(
        tree: Tree,
        storage: Storage,
        settings: Settings,
        facts: Facts,
        outboxes: Arc<Total>,
    ) -> Self {
        let tick = Duration::from_millis(u64::from(settings.tick_ms / 4).clamp(5, 100));
        let mut clock = Clock::new();
        let logged = tree.last_zxid();
        let keeper = Keeper::new(tree, settings, clock.now());
        let (connections, stalled) = (HashMap::new(), BTreeSet::new());
        let (turn, notices) = (ConnectionId(0), Notices::default());
        Self { keeper, storage, connections, stalled, turn, logged, clock, tick, facts, notices, outboxes }
    }

    /// Runs until the server is told to stop, or storage fails. Returns the storage, to be closed.
    pub(super) async fn run(mut self, mut sources: Sources) -> Storage {
        let mut tick = interval(self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Vec::with_capacity(BATCH);
        let (mut more, mut until_tick, mut kept_up) = (false, None, true);
        loop {
            // Nothing new is taken in before the log has room for what it comes to, and before all has been told of what is
            // durable.
            let is_behind = self.keeper.is_behind();
            let keeps_up = self.storage.keeps_up() && !is_behind;
            if keeps_up && !kept_up {
                // What has come while nothing was taken in counts, too.
                until_tick = until_tick.map(|_| sources.events.len());
            }
            kept_up = keeps_up;
            tokio::select! {
                changed = sources.durable.changed() => match changed {
                    Ok(()) => self.on_durable(&mut sources.durable),
                    Err(_) => break,
                },
                count = sources.events.recv_many(&mut events, BATCH), if keeps_up => {
                    assert!(count > 0, "the server itself holds a sender");
                }
                _ = tick.tick() => {
                    until_tick.get_or_insert_with(|| sources.events.len());
                    let is_full = self.storage.is_nearly_full();
                    self.keeper.handle(self.clock.now(), Input::DiskFull(is_full));
                }
                // Those who send what there is to be told may have to have this very thread.
                () = tokio::task::yield_now(), if is_behind || (more && keeps_up) => {}
                () = sources.stopping.cancelled() => break,
                _ = sources.failure.wait_for(Option::is_some) => return self.storage,
            }
            // What is durable by now comes first: then what is asked of it is answered at once.
            self.on_durable(&mut sources.durable);
            // Sessions expire only after everything was looked at that had come from them at the tick, however long that took.
            until_tick = until_tick.map(|waiting: usize| waiting.saturating_sub(events.len()));
            for event in events.drain(..) {
                self.on_event(event);
            }
            if keeps_up && until_tick == Some(0) {
                until_tick = None;
                self.tick();
            }
            self.carry_out();
            more = if keeps_up { self.go_on() } else { !self.stalled.is_empty() };
        }
        self.finish(sources).await
    }

    fn tick(&mut self) {
        // Nothing is read from these, pings neither: they wait for this server, or have to take what they are sent.
        for (id, connection) in self.stalled.iter().filter_map(|id| Some((*id, self.connections.get(id)?))) {
            let outbox = &connection.link.outbox;
            if outbox.has_room() || outbox.has_moved() {
                self.keeper.handle(self.clock.now(), Input::Alive { connection: id });
            }
        }
        self.keeper.handle(self.clock.now(), Input::Tick);
    }

    /// Waits until everything that was taken in is durable, and answers it.
    async fn finish(mut self, mut sources: Sources) -> Storage {
        let until = tokio::time::Instant::now() + DRAIN;
        self.carry_out();
        while self.keeper.is_behind() || self.keeper.tree().last_zxid() < self.logged {
            self.storage.keeps_up();
            let failed = sources.failure.borrow().is_some();
            let waits = !self.keeper.is_behind();
            if failed || (waits && !matches!(timeout_at(until, sources.durable.changed()).await, Ok(Ok(()))))
            {
                break;
            }
            self.on_durable(&mut sources.durable);
            self.carry_out();
        }
        // What was too much for one turn.
        while !self.keeper.is_behind() && self.stalled.clone().into_iter().any(|id| self.resume(id)) {
            self.carry_out();
        }
        for connection in self.connections.values() {
            connection.link.outbox.close();
        }
        self.storage
    }

    fn on_durable(&mut self, durable: &mut watch::Receiver<i64>) {
        let zxid = *durable.borrow_and_update();
        if zxid > self.keeper.tree().last_zxid() || self.keeper.is_behind() {
            self.keeper.handle(self.clock.now(), Input::Durable(zxid));
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened { peer: Peer { connection, address, certificate }, entropy, link } => {
                let opened =
                    Connection { address, link, held: VecDeque::new(), charge: None, is_waiting: false };
                self.connections.insert(connection, opened);
                self.facts.connect_requests += 1;
                self.keeper
                    .handle(self.clock.now(), Input::Opened { connection, address, certificate, entropy });
            }
            Event::Packets { connection: id, batch } => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                assert!(connection.held.is_empty(), "one permit, one batch");
                connection.held = batch.frames.into();
                connection.charge = batch.charge;
                self.take_in(id);
            }
            Event::Room(id) => {
                self.take_in(id);
            }
            Event::Closed(id) => {
                self.connections.remove(&id);
                self.stalled.remove(&id);
                self.keeper.handle(self.clock.now(), Input::Closed { connection: id });
            }
            Event::Word { word, from, reply } => {
                // Whoever asked may be gone.
                let _ = reply.send(four_letter::answer(word, from, &mut self.keeper, &mut self.facts));
            }
        }
    }

    /// Hands a connection's packets to the keeper as long as it takes them, and has more read when there are none left.
    /// Whether any was handed over.
    fn take_in(&mut self, id: ConnectionId) -> bool {
        let resumes = self.resume(id);
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let before = connection.held.len();
        if connection.is_waiting || before == 0 {
            return resumes;
        }
        let now = self.clock.now();
        while !connection.held.is_empty() {
            if self.keeper.is_busy(id) || !connection.link.outbox.has_room() {
                self.stalled.insert(id);
                return resumes || connection.held.len() < before;
            }
            if let Some(frame) = connection.held.pop_front() {
                self.facts.received += 1;
                self.keeper.handle(now, Input::Frame { connection: id, frame });
            }
        }
        connection.charge = None;
        connection.link.gate.add_permits(1);
        self.stalled.remove(&id);
        true
    }

    /// Goes on with what a connection has to be answered, if that had to wait and there is room for it.
    fn resume(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.is_waiting)
        else {
            return false;
        };
        if !connection.link.outbox.has_room() {
            self.stalled.insert(id);
            return false;
        }
        connection.is_waiting = false;
        self.stalled.remove(&id);
        self.keeper.resume(id);
        true
    }

    /// Takes up packets that had to wait. Whether that came to anything.
    fn go_on(&mut self) -> bool {
        // Another one is the first each time: one turn may not be enough for all.
        let (after, upto) = (self.stalled.range(self.turn..), self.stalled.range(..self.turn));
        let stalled: Vec<_> = after.chain(upto).copied().collect();
        let Some(ConnectionId(first)) = stalled.first().copied() else { return false };
        self.turn = ConnectionId(first + 1);
        let mut progress = false;
        for id in stalled {
            progress |= self.take_in(id);
        }
        progress
    }

    fn tell_of(slow: &Connection) {
        tracing::warn!(address = %slow.address, "closes a connection: its client takes too little of what it is sent");
    }

    /// Does what the keeper says.
    fn carry_out(&mut self) {
        let Effects { log, sends, closes, waiting, notices } = self.keeper.flush();
        if let Some(last) = log.last() {
            self.logged = last.zxid;
            self.storage.append(&log);
        }
        for (id, bytes) in sends {
            self.facts.sent += packets(&bytes);
            let Some(connection) = self.connections.get(&id) else { continue };
            if !connection.link.outbox.push(bytes) {
                Self::tell_of(connection);
            }
        }
        let outboxes = self.connections.values().map(|connection| (connection, &connection.link.outbox));
        for connection in outbox::relieve(&self.outboxes, &outboxes) {
            Self::tell_of(connection);
        }
        for id in closes {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.held.clear();
                connection.charge = None;
                connection.link.outbox.close();
            }
            self.stalled.remove(&id);
        }
        for id in waiting {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.is_waiting = true;
                self.stalled.insert(id);
            }
        }
        for notice in notices {
            self.facts.expired_sessions += u64::from(matches!(notice, Notice::SessionExpired { .. }));
            self.notices.log(notice);
        }
        self.storage.maybe_snapshot(self.keeper.tree());
    }
}

/// How many packets there are in what is sent.
fn packets(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while bytes.has_remaining() {
        let length = bytes.get_u32() as usize;
        bytes.advance(length);
        count += 1;
    }
    count
}
