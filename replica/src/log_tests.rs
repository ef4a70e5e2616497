use proptest::prelude::*;
use quorumkv_protocol::NodeId;
use quorumkv_protocol::entry::Body;

use super::*;

/// Counters below this are drawn for epochs.
const EPOCHS: u64 = 6;

fn epoch(counter: u64) -> Epoch {
    Epoch::new(counter, NodeId::new(counter % 3))
}

fn id(counter: u64, version: u64) -> EntryId {
    EntryId::new(if counter == 0 { Epoch::ZERO } else { epoch(counter) }, Version::new(version))
}

fn entry(id: EntryId) -> Arc<Entry> {
    Arc::new(Entry { id, body: Body::Open })
}

/// A log with an entry for each of these epochs, from version 1 on.
fn log(counters: &[u64]) -> Log {
    let mut log = Log::recover(&Recovered::fresh());
    for &counter in counters {
        log.append(entry(id(counter, log.last().get() + 1)));
    }
    log
}

#[test]
fn a_fresh_log_holds_only_the_place_before_its_first_entry() {
    let log = log(&[]);
    assert_eq!((log.base(), log.last_id()), (EntryId::ZERO, EntryId::ZERO));
    assert_eq!(log.id_at(Version::new(1)), None);
    assert_eq!(log.entry(Version::ZERO), None);
    assert!(log.holds(EntryId::ZERO));
}

#[test]
fn every_version_has_the_id_of_its_run() {
    let log = log(&[1, 1, 4, 4, 5]);
    let ids: Vec<EntryId> = (0..=5).filter_map(|version| log.id_at(Version::new(version))).collect();
    assert_eq!(ids, [id(0, 0), id(1, 1), id(1, 2), id(4, 3), id(4, 4), id(5, 5)]);
    assert_eq!(log.last_id(), id(5, 5));
    assert!(log.holds(id(4, 3)) && !log.holds(id(1, 3)) && !log.holds(id(5, 6)));
}

#[test]
fn truncation_returns_what_it_drops_newest_first() {
    let mut log = log(&[1, 1, 4, 5]);
    let dropped: Vec<EntryId> =
        log.truncate_after(Version::new(1)).iter().map(|dropped| dropped.id).collect();
    assert_eq!(dropped, [id(5, 4), id(4, 3), id(1, 2)]);
    assert_eq!(log.last_id(), id(1, 1));
    log.append(entry(id(2, 2)));
    assert_eq!(log.last_id(), id(2, 2));
}

#[test]
fn logs_meet_at_or_before_the_last_entry_that_is_not_too_new() {
    let log = log(&[1, 1, 4, 4, 5]);
    assert_eq!(log.last_possible_match(id(5, 9)), Some(id(5, 5)));
    assert_eq!(log.last_possible_match(id(4, 9)), Some(id(4, 4)));
    assert_eq!(log.last_possible_match(id(3, 9)), Some(id(1, 2)), "all of epochs 4 and 5 is too new");
    assert_eq!(log.last_possible_match(id(3, 1)), Some(id(1, 1)));
    assert_eq!(log.last_possible_match(EntryId::ZERO), Some(EntryId::ZERO));
}

#[test]
fn a_trimmed_log_may_meet_another_only_before_all_that_it_knows() {
    let mut log = log(&[1, 1, 4, 4, 5]);
    log.trim(id(4, 3));
    assert_eq!(log.last_possible_match(id(3, 9)), None, "the base itself is too new");
    assert_eq!(log.last_possible_match(id(4, 2)), None, "before the base nothing is known");
    assert_eq!(log.last_possible_match(id(4, 3)), Some(id(4, 3)));
}

#[test]
fn a_batch_makes_durable_what_was_appended_before_it() {
    let mut log = log(&[1, 1]);
    log.persisting(PersistId(1));
    log.append(entry(id(1, 3)));
    log.persisting(PersistId(2));
    assert_eq!(log.durable(), Version::ZERO);
    log.persisted(PersistId(1));
    assert_eq!(log.durable(), Version::new(2));
    log.persisted(PersistId(2));
    assert_eq!(log.durable(), Version::new(3));
}

#[test]
fn a_batch_from_before_a_truncation_says_nothing_about_what_replaced_its_entries() {
    let mut log = log(&[1, 1, 1]);
    log.persisting(PersistId(1));
    log.truncate_after(Version::new(1));
    log.append(entry(id(2, 2)));
    log.append(entry(id(2, 3)));
    log.persisting(PersistId(2));
    log.persisted(PersistId(1));
    assert_eq!(log.durable(), Version::new(1), "the batch wrote other entries at 2 and 3");
    log.persisted(PersistId(2));
    assert_eq!(log.durable(), Version::new(3));
}

#[test]
fn a_batch_from_before_a_snapshot_says_nothing_about_what_follows_it() {
    let mut log = log(&[1, 1, 1, 1]);
    log.persisting(PersistId(1));
    log.reset(id(3, 2));
    log.append(entry(id(3, 3)));
    log.persisted(PersistId(1));
    assert_eq!(log.durable(), Version::new(2));
    assert_eq!((log.base(), log.last_id()), (id(3, 2), id(3, 3)));
}

#[test]
fn what_was_trimmed_is_durable_in_the_state() {
    let mut log = log(&[1, 1, 2]);
    log.persisting(PersistId(1));
    log.trim(id(1, 2));
    assert_eq!(log.durable(), Version::new(2));
    assert_eq!(log.id_at(log.durable()), Some(id(1, 2)));
}

#[test]
fn a_log_cannot_be_trimmed_to_an_entry_that_it_does_not_hold() {
    let mut log = log(&[1, 1, 2]);
    for unknown in [id(2, 2), id(2, 4), id(0, 0)] {
        log.trim(unknown);
        assert_eq!(log.base(), EntryId::ZERO);
    }
}

#[test]
fn only_applied_entries_leave_the_memory() {
    let mut log = log(&[1, 1, 1, 1]);
    log.release(Version::new(2), 0);
    assert_eq!(log.first_in_memory(), Version::new(3));
    assert_eq!(log.entry(Version::new(2)), None);
    assert_eq!(log.entry(Version::new(3)).map(|entry| entry.id), Some(id(1, 3)));
    assert_eq!(log.memory_bytes(), 2 * ENTRY_OVERHEAD);
    assert!(log.holds(id(1, 2)), "its id is still known");
    log.release(Version::new(4), ENTRY_OVERHEAD);
    assert_eq!(log.first_in_memory(), Version::new(4), "one entry fits the cache");
}

/// The same log as a plain list.
#[derive(Clone, Debug)]
struct Naive {
    base: EntryId,
    ids: Vec<EntryId>,
    durable: Version,
    persisting: Vec<(u64, Version)>,
}

impl Naive {
    fn new() -> Self {
        Self { base: EntryId::ZERO, ids: Vec::new(), durable: Version::ZERO, persisting: Vec::new() }
    }

    fn known(&self) -> impl DoubleEndedIterator<Item = EntryId> {
        std::iter::once(self.base).chain(self.ids.iter().copied())
    }

    fn last(&self) -> EntryId {
        self.known().next_back().expect("there is always the base")
    }

    fn cut(&mut self, version: Version) {
        self.ids.retain(|id| id.version <= version);
        self.limit_durable(version);
    }

    fn limit_durable(&mut self, version: Version) {
        self.durable = self.durable.min(version);
        for (_, upto) in &mut self.persisting {
            *upto = (*upto).min(version);
        }
    }
}

/// What can happen to a log.
#[derive(Clone, Debug)]
enum Step {
    Append { epochs_later: u64 },
    Truncate { part: u64 },
    Trim { part: u64 },
    Reset { epochs_later: u64, versions_later: u64 },
    Persist,
    Persisted { part: u64 },
    Release { part: u64, entries: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2u64).prop_map(|epochs_later| Step::Append { epochs_later }),
        1 => (0..8u64).prop_map(|part| Step::Truncate { part }),
        1 => (0..8u64).prop_map(|part| Step::Trim { part }),
        1 => (0..2u64, 0..3u64)
            .prop_map(|(epochs_later, versions_later)| Step::Reset { epochs_later, versions_later }),
        3 => Just(Step::Persist),
        2 => (0..8u64).prop_map(|part| Step::Persisted { part }),
        1 => (0..8u64, 0..4usize).prop_map(|(part, entries)| Step::Release { part, entries }),
    ]
}

/// Some version from the base to the last; `part` is in eighths.
fn somewhere(naive: &Naive, part: u64) -> Version {
    let (base, last) = (naive.base.version.get(), naive.last().version.get());
    Version::new(base + (last - base) * part / 7)
}

/// Both logs, and what has to be known beside them to take only permitted steps.
struct Pair {
    log: Log,
    naive: Naive,
    batch: u64,
    /// Entries up to here may have left the memory, so the log is never truncated below.
    released: Version,
}

impl Pair {
    fn take(&mut self, step: &Step) {
        let (log, naive) = (&mut self.log, &mut self.naive);
        let last = naive.last();
        match *step {
            Step::Append { epochs_later } => {
                let counter = (last.epoch.counter() + epochs_later).max(1);
                let next = id(counter, last.version.get() + 1);
                log.append(entry(next));
                naive.ids.push(next);
            }
            Step::Truncate { part } => {
                let version = somewhere(naive, part).max(self.released);
                log.truncate_after(version);
                naive.cut(version);
            }
            Step::Trim { part } => {
                let version = somewhere(naive, part);
                let base = naive.known().find(|id| id.version == version).expect("it lies within the log");
                log.trim(base);
                naive.base = base;
                naive.ids.retain(|id| id.version > version);
                naive.durable = naive.durable.max(version);
                self.released = self.released.max(version);
            }
            Step::Reset { epochs_later, versions_later } => {
                let counter = (last.epoch.counter() + epochs_later).max(1);
                let base = id(counter, last.version.get() + versions_later);
                log.reset(base);
                *naive = Naive {
                    base,
                    ids: Vec::new(),
                    durable: base.version,
                    persisting: std::mem::take(&mut naive.persisting),
                };
                for (_, upto) in &mut naive.persisting {
                    *upto = base.version;
                }
                self.released = base.version;
            }
            Step::Persist => {
                self.batch += 1;
                log.persisting(PersistId(self.batch));
                naive.persisting.push((self.batch, last.version));
            }
            Step::Persisted { part } => {
                let upto = self.batch * part / 7;
                log.persisted(PersistId(upto));
                for (_, version) in naive.persisting.extract_if(.., |(batch, _)| *batch <= upto) {
                    naive.durable = naive.durable.max(version);
                }
            }
            Step::Release { part, entries } => {
                let version = somewhere(naive, part);
                log.release(version, entries * ENTRY_OVERHEAD);
                self.released = self.released.max(version);
            }
        }
    }

    fn check(&self) {
        let (log, naive) = (&self.log, &self.naive);
        assert_eq!((log.base(), log.last_id()), (naive.base, naive.last()));
        assert_eq!(log.durable(), naive.durable);
        for version in 0..=naive.last().version.get() + 1 {
            let version = Version::new(version);
            let known = naive.known().find(|id| id.version == version);
            assert_eq!(log.id_at(version), known);
            let in_memory = version >= log.first_in_memory() && version <= log.last();
            assert_eq!(log.entry(version).is_some(), in_memory);
            assert!(in_memory || version <= self.released || version > log.last());
            for counter in 0..EPOCHS {
                let probe = id(counter, version.get());
                assert_eq!(log.holds(probe), known == Some(probe));
                let behind = |id: &EntryId| id.version <= version && id.epoch <= probe.epoch;
                let meets = naive.known().rev().find(behind);
                let reaches = version >= naive.base.version;
                assert_eq!(log.last_possible_match(probe), meets.filter(|_| reaches));
            }
        }
    }
}

proptest! {
    #[test]
    fn the_log_is_a_list_of_ids(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair {
            log: Log::recover(&Recovered::fresh()),
            naive: Naive::new(),
            batch: 0,
            released: Version::ZERO,
        };
        for step in &steps {
            pair.take(step);
            pair.check();
        }
    }
}
