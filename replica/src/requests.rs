//! Results of recent requests, which make retries harmless (DESIGN 5).
//!
//! The table is part of the replicated state: it depends on nothing but the sequence of applied entries, so it is the
//! same on every replica, whether that replayed the log or joined by a snapshot. It is bounded by forgetting, and
//! forgetting is safe because a request that might be a retry of something forgotten is told so ([`Known::Expired`])
//! instead of being run again.

use std::collections::BTreeMap;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::entry::{Answered, Entry, Outcome};
use quorumkv_protocol::{ClientId, RequestId, Version};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Most results that are remembered, over all clients: about 12 MiB of memory. All replicas of a cluster must agree on
/// it, which is why it is no setting.
pub const MAX_RESULTS: usize = 100_000;

/// The results of recent requests.
///
/// A result is forgotten when its client says that the request is finished (its floor passes it), or when there are
/// too many and it is the oldest. A client without results is forgotten altogether.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requests {
    clients: BTreeMap<ClientId, Client>,
    /// Which result to forget first, with the floor of its client when it came: what is stored of it must not depend on when that is.
    oldest: BTreeMap<Version, (RequestId, u64)>,
    horizon: Version,
    capacity: usize,
}

/// What is known of one client. It has at least one result.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Client {
    /// Requests below this sequence number are finished.
    floor: u64,
    results: BTreeMap<u64, Done>,
}

/// The result of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// The version of its entry.
    pub version: Version,
    /// What it came to.
    pub outcome: Outcome,
}

/// What the table knows of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// It was applied: this is its result.
    Done(Done),
    /// It was never applied.
    Fresh,
    /// It may have been applied and forgotten, so it can be neither answered nor run.
    Expired,
}

/// One result in the form in which it is stored and sent to other replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Whose result it is. Unique among the rows of a table.
    pub request: RequestId,
    /// A floor of the client. The client's own is the highest among its rows.
    pub floor: u64,
    /// The version of the request's entry. Unique among the rows of a table.
    pub version: Version,
    /// What the request came to.
    pub outcome: Outcome,
}

/// What applying one entry changed, for whoever stores the table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// The new result.
    pub inserted: Option<Row>,
    /// Results that are forgotten, with their versions.
    pub removed: SmallVec<[(RequestId, Version); 2]>,
    /// The new horizon, if it moved.
    pub horizon: Option<Version>,
}

impl Default for Requests {
    fn default() -> Self {
        Self::new()
    }
}

impl Requests {
    /// An empty table that remembers up to [`MAX_RESULTS`].
    #[must_use]
    pub const fn new() -> Self {
        Self::with_capacity(MAX_RESULTS)
    }

    /// An empty table that remembers up to `capacity` results: for tests, since replicas must agree on it.
    ///
    /// # Panics
    /// If `capacity` is zero: the result of the entry that was just applied is always remembered.
    #[must_use]
    pub const fn with_capacity(capacity: usize) -> Self {
        assert!(capacity > 0, "the last result is always remembered");
        Self { clients: BTreeMap::new(), oldest: BTreeMap::new(), horizon: Version::ZERO, capacity }
    }

    /// How many results are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.oldest.len()
    }

    /// Whether no result is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.oldest.is_empty()
    }

    /// The highest version whose result was forgotten for lack of room.
    #[must_use]
    pub const fn horizon(&self) -> Version {
        self.horizon
    }

    /// What is known of `request`, whose client knew `since` to be committed before it sent the request for the first
    /// time: everything that the request ever came to has a higher version.
    #[must_use]
    pub fn lookup(&self, request: RequestId, since: Version) -> Known {
        let client = self.clients.get(&request.client);
        if let Some(done) = client.and_then(|client| client.results.get(&request.sequence)) {
            return Known::Done(*done);
        }
        // A client that was forgotten altogether lost its last result at the horizon, after all its others: so if the
        // request was ever applied, that was at or before the horizon.
        let finished = client.is_some_and(|client| client.floor > request.sequence);
        if (finished || since < self.horizon) && !Mutant::ForgottenRunAgain.on() {
            Known::Expired
        } else {
            Known::Fresh
        }
    }

    /// Takes in the next entry of the log and says what changed.
    ///
    /// A request that has a result changes nothing: the first result is the one that was answered. A leader never logs
    /// such an entry, nor one whose floor is above its own sequence number, nor one below its client's floor; the rules
    /// for them only keep the table sound.
    pub fn apply(&mut self, entry: &Entry) -> Changes {
        let Some(Answered { request, floor, outcome }) = entry.answered() else { return Changes::default() };
        let RequestId { client: id, sequence } = request;
        let mut changes = Changes::default();

        let known = self.clients.get(&id);
        if known.is_some_and(|client| client.floor > sequence || client.results.contains_key(&sequence)) {
            return changes;
        }
        let client = self.clients.entry(id).or_insert_with(|| Client { floor: 0, results: BTreeMap::new() });
        client.floor = client.floor.max(floor.min(sequence));
        client.results.insert(sequence, Done { version: entry.id.version, outcome });
        while let Some(first) = client.results.first_entry()
            && *first.key() < client.floor
        {
            let request = RequestId { client: id, sequence: *first.key() };
            let version = first.remove().version;
            self.oldest.remove(&version);
            changes.removed.push((request, version));
        }
        self.oldest.insert(entry.id.version, (request, client.floor));
        changes.inserted = Some(Row { request, floor: client.floor, version: entry.id.version, outcome });
        self.evict(&mut changes);
        changes
    }

    /// Forgets the oldest results until the table is within its capacity.
    fn evict(&mut self, changes: &mut Changes) {
        while self.oldest.len() > self.capacity {
            let Some((version, (request, _))) = self.oldest.pop_first() else { return };
            if let Some(client) = self.clients.get_mut(&request.client) {
                client.results.remove(&request.sequence);
                if client.results.is_empty() {
                    self.clients.remove(&request.client);
                }
            }
            self.horizon = self.horizon.max(version);
            changes.horizon = Some(self.horizon);
            changes.removed.push((request, version));
        }
    }

    /// All results, ordered by request: together with the [horizon](Self::horizon) they are the whole table.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.clients.iter().flat_map(|(id, client)| {
            client.results.iter().map(|(sequence, done)| Row {
                request: RequestId { client: *id, sequence: *sequence },
                floor: self.oldest[&done.version].1,
                version: done.version,
                outcome: done.outcome,
            })
        })
    }

    /// The results of entries after `version`, in their order.
    pub fn rows_after(&self, version: Version) -> impl Iterator<Item = Row> {
        self.oldest.range(version.next()..).map(|(&version, &(request, floor))| {
            let outcome = self.clients[&request.client].results[&request.sequence].outcome;
            Row { request, floor, version, outcome }
        })
    }

    /// Puts a stored or received result into a table that is being rebuilt. The order of the rows does not matter.
    ///
    /// # Errors
    /// The row, if its request or its version is there already or the table is full: then the rows are not those of a
    /// table.
    pub fn restore_row(&mut self, row: Row) -> Result<(), Row> {
        if Mutant::ResultsLostInSnapshot.on() {
            return Ok(());
        }
        let client = self.clients.get(&row.request.client);
        let is_known = client.is_some_and(|client| client.results.contains_key(&row.request.sequence));
        if is_known || self.oldest.contains_key(&row.version) || self.oldest.len() == self.capacity {
            return Err(row);
        }
        self.oldest.insert(row.version, (row.request, row.floor));
        let client = self
            .clients
            .entry(row.request.client)
            .or_insert_with(|| Client { floor: 0, results: BTreeMap::new() });
        client.floor = client.floor.max(row.floor);
        client.results.insert(row.request.sequence, Done { version: row.version, outcome: row.outcome });
        Ok(())
    }

    /// Sets the horizon of a table that is being rebuilt.
    pub const fn restore_horizon(&mut self, horizon: Version) {
        self.horizon = horizon;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use quorumkv_protocol::entry::{Body, EvaluatedWrite};
    use quorumkv_protocol::{EntryId, Epoch, NodeId};

    use super::*;

    fn request(client: u64, sequence: u64) -> RequestId {
        RequestId { client: ClientId::new(client), sequence }
    }

    fn entry(version: u64, request: RequestId, floor: u64) -> Entry {
        let id = EntryId::new(Epoch::new(1, NodeId::new(1)), Version::new(version));
        let write = EvaluatedWrite { request, floor, effects: Vec::new(), outcome: Outcome::Applied };
        Entry { id, body: Body::Write(write) }
    }

    fn done(version: u64) -> Known {
        Known::Done(Done { version: Version::new(version), outcome: Outcome::Applied })
    }

    fn row(version: u64, request: RequestId, floor: u64) -> Row {
        Row { request, floor, version: Version::new(version), outcome: Outcome::Applied }
    }

    #[test]
    fn a_retry_is_answered_with_the_first_result() {
        let mut requests = Requests::new();
        assert_eq!(requests.lookup(request(7, 1), Version::ZERO), Known::Fresh);
        let changes = requests.apply(&entry(5, request(7, 1), 1));
        let inserted = Some(row(5, request(7, 1), 1));
        assert_eq!(changes, Changes { inserted, ..Changes::default() });
        assert_eq!(requests.lookup(request(7, 1), Version::ZERO), done(5));
        assert_eq!(requests.lookup(request(8, 1), Version::ZERO), Known::Fresh, "another client's request");
        assert_eq!(requests.apply(&entry(6, request(7, 1), 1)), Changes::default());
        assert_eq!(requests.lookup(request(7, 1), Version::ZERO), done(5));
    }

    #[test]
    fn an_opening_entry_changes_nothing() {
        let mut requests = Requests::new();
        let opening = Entry { id: EntryId::ZERO, body: Body::Open };
        assert_eq!(requests.apply(&opening), Changes::default());
        assert_eq!(requests, Requests::new());
    }

    #[test]
    fn finished_requests_are_forgotten_and_expire() {
        let mut requests = Requests::new();
        for sequence in 1..=3 {
            requests.apply(&entry(sequence, request(7, sequence), 1));
        }
        let changes = requests.apply(&entry(4, request(7, 4), 3));
        assert_eq!(changes.removed[..], [(request(7, 1), Version::new(1)), (request(7, 2), Version::new(2))]);
        assert_eq!(requests.lookup(request(7, 2), Version::new(9)), Known::Expired);
        assert_eq!(requests.lookup(request(7, 3), Version::new(9)), done(3));
        assert_eq!(requests.lookup(request(7, 5), Version::new(9)), Known::Fresh);
        assert_eq!(requests.len(), 2);
    }

    #[test]
    fn a_floor_never_sinks_and_never_passes_its_own_request() {
        let mut requests = Requests::new();
        requests.apply(&entry(1, request(7, 5), 99));
        assert_eq!(requests.lookup(request(7, 5), Version::ZERO), done(1), "its own result stays");
        assert_eq!(requests.lookup(request(7, 4), Version::ZERO), Known::Expired);
        requests.apply(&entry(2, request(7, 6), 0));
        assert_eq!(requests.lookup(request(7, 4), Version::ZERO), Known::Expired);
        assert_eq!(requests.apply(&entry(3, request(7, 4), 0)), Changes::default(), "below the floor");
    }

    #[test]
    fn the_oldest_result_makes_room() {
        let mut requests = Requests::with_capacity(2);
        requests.apply(&entry(1, request(7, 1), 1));
        requests.apply(&entry(2, request(8, 1), 1));
        let changes = requests.apply(&entry(3, request(8, 2), 1));
        assert_eq!(changes.removed[..], [(request(7, 1), Version::new(1))]);
        assert_eq!(changes.horizon, Some(Version::new(1)));
        assert_eq!(requests.horizon(), Version::new(1));
        assert!(!requests.clients.contains_key(&ClientId::new(7)), "a client without results is forgotten");
        assert_eq!(requests.lookup(request(7, 1), Version::ZERO), Known::Expired);
        assert_eq!(requests.lookup(request(9, 1), Version::ZERO), Known::Expired, "may have been evicted");
        assert_eq!(requests.lookup(request(9, 1), Version::new(1)), Known::Fresh, "begun after the horizon");
        assert_eq!(requests.lookup(request(8, 1), Version::ZERO), done(2));
    }

    #[test]
    fn rows_that_are_no_table_are_refused() {
        let mut requests = Requests::with_capacity(2);
        assert_eq!(requests.restore_row(row(1, request(7, 1), 1)), Ok(()));
        for bad in [row(2, request(7, 1), 1), row(1, request(7, 2), 1)] {
            assert_eq!(requests.restore_row(bad), Err(bad));
        }
        assert_eq!(requests.restore_row(row(2, request(7, 2), 1)), Ok(()));
        let excess = row(3, request(7, 3), 1);
        assert_eq!(requests.restore_row(excess), Err(excess));
    }

    const CAPACITY: usize = 6;

    /// What a client sent: the network may deliver it any number of times, at any later moment.
    #[derive(Clone, Copy)]
    struct Sent {
        request: RequestId,
        floor: u64,
        since: Version,
    }

    /// Clients, a leader that asks the table before it logs a request, and a store that keeps up by changes alone.
    struct World {
        requests: Requests,
        stored: BTreeMap<RequestId, Row>,
        stored_horizon: Version,
        version: u64,
        sent: Vec<Sent>,
        runs: BTreeMap<RequestId, Version>,
    }

    impl World {
        fn new() -> Self {
            Self {
                requests: Requests::with_capacity(CAPACITY),
                stored: BTreeMap::new(),
                stored_horizon: Version::ZERO,
                version: 0,
                sent: Vec::new(),
                runs: BTreeMap::new(),
            }
        }

        /// A client's next request: it has finished all but its last `pending` and knows of commits up to `lag` ago.
        fn send(&mut self, client: u64, pending: u64, lag: u64) {
            let of_client = self.sent.iter().filter(|sent| sent.request.client == ClientId::new(client));
            let floors = of_client.clone().map(|sent| sent.floor).max().unwrap_or(1);
            let sequence = of_client.count() as u64 + 1;
            let floor = sequence.saturating_sub(pending).max(floors);
            let since = Version::new(self.version.saturating_sub(lag));
            self.sent.push(Sent { request: request(client, sequence), floor, since });
            self.deliver(self.sent.len() - 1);
        }

        fn deliver(&mut self, index: usize) {
            let Some(sent) = self.sent.get(index).copied() else { return };
            match self.requests.lookup(sent.request, sent.since) {
                Known::Done(done) => assert_eq!(self.runs.get(&sent.request), Some(&done.version)),
                Known::Expired => {}
                Known::Fresh => {
                    self.version += 1;
                    let before = self.runs.insert(sent.request, Version::new(self.version));
                    assert_eq!(before, None, "{} ran twice", sent.request);
                    self.apply(&entry(self.version, sent.request, sent.floor));
                }
            }
        }

        fn apply(&mut self, entry: &Entry) {
            let changes = self.requests.apply(entry);
            self.stored.extend(changes.inserted.map(|row| (row.request, row)));
            for (request, version) in changes.removed {
                let row = self.stored.remove(&request).expect("it was not forgotten before");
                assert_eq!(row.version, version);
            }
            self.stored_horizon = changes.horizon.unwrap_or(self.stored_horizon);
        }

        fn rebuilt(&self, rows: impl Iterator<Item = Row>) -> Requests {
            let mut requests = Requests::with_capacity(CAPACITY);
            for row in rows {
                assert_eq!(requests.restore_row(row), Ok(()));
            }
            requests.restore_horizon(self.stored_horizon);
            requests
        }
    }

    proptest! {
        /// However requests are delayed and repeated, none runs twice; and what is stored is always the whole table.
        #[test]
        fn no_request_runs_twice(
            steps in prop::collection::vec((any::<bool>(), 0..4u64, 0..4u64, any::<prop::sample::Index>()), 1..120)
        ) {
            let mut world = World::new();
            for (is_new, client, spread, index) in steps {
                if is_new || world.sent.is_empty() {
                    world.send(client, spread, spread);
                } else {
                    world.deliver(index.index(world.sent.len()));
                }
                prop_assert!(world.requests.len() <= CAPACITY);
                prop_assert_eq!(&world.rebuilt(world.stored.values().copied()), &world.requests);
                prop_assert_eq!(&world.rebuilt(world.requests.rows()), &world.requests);
                prop_assert_eq!(&world.rebuilt(world.requests.rows_after(Version::ZERO)), &world.requests);
            }
        }

        /// A replica that joined by a snapshot has the same table ever after, whatever the log holds.
        #[test]
        fn a_replica_that_joined_by_snapshot_agrees(
            log in prop::collection::vec((0..3u64, 0..8u64, 0..10u64), 1..80),
            joined in any::<prop::sample::Index>(),
        ) {
            let joined = joined.index(log.len());
            let mut world = World::new();
            let mut newcomer = None;
            for (index, (client, sequence, floor)) in log.into_iter().enumerate() {
                let entry = entry(index as u64 + 1, request(client, sequence), floor);
                world.apply(&entry);
                if let Some(newcomer) = &mut newcomer {
                    Requests::apply(newcomer, &entry);
                }
                if index == joined {
                    newcomer = Some(world.rebuilt(world.requests.rows()));
                }
            }
            prop_assert_eq!(newcomer, Some(world.requests));
        }
    }
}
