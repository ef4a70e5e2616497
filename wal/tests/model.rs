//! Random lives of a log against a model that is a vector.

mod common;

use common::{as_entry, open, read_all, sized_entry, small};
use proptest::prelude::*;
use quorumkv_wal::{Entry, Epoch, Mark, Record, Recovered};

/// A step; positions are fractions of what there is, in 1/256.
#[derive(Clone, Debug)]
enum Step {
    Append { entries: u64, payload: usize, new_epoch: bool, waits: bool },
    Overwrite { at: u8, entries: u64 },
    Truncate { at: u8 },
    Promise { ahead: u64 },
    Base { ahead: u64, back: bool },
    Trim { at: u8 },
    Read { max_bytes: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..40u64, 0..1500usize, prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(entries, payload, new_epoch, waits)| Step::Append { entries, payload, new_epoch, waits }),
        3 => (any::<u8>(), 1..10u64).prop_map(|(at, entries)| Step::Overwrite { at, entries }),
        1 => any::<u8>().prop_map(|at| Step::Truncate { at }),
        2 => (0..3u64).prop_map(|ahead| Step::Promise { ahead }),
        1 => (0..100u64, any::<bool>()).prop_map(|(ahead, back)| Step::Base { ahead, back }),
        3 => any::<u8>().prop_map(|at| Step::Trim { at }),
        2 => (0..20_000u64).prop_map(|max_bytes| Step::Read { max_bytes }),
        2 => Just(Step::Reopen),
    ]
}

#[derive(Debug, Default)]
struct Model {
    counter: u64,
    promise: Option<Epoch>,
    base: Mark,
    entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> Mark {
        self.entries.last().map_or(self.base, |entry| entry.mark)
    }

    /// A version from the base to the last.
    fn pick(&self, at: u8) -> u64 {
        self.base.version + self.entries.len() as u64 * u64::from(at) / 255
    }

    fn truncate(&mut self, version: u64) {
        self.entries.truncate(usize::try_from(version - self.base.version).unwrap());
    }

    fn push(&mut self, records: &[Record]) {
        self.entries.extend(records.iter().map(as_entry));
    }

    fn recovered(&self) -> Recovered {
        let mut epochs: Vec<(Epoch, u64)> = Vec::new();
        for Entry { mark, .. } in &self.entries {
            if epochs.last().is_none_or(|(epoch, _)| *epoch != mark.epoch) {
                epochs.push((mark.epoch, mark.version));
            }
        }
        Recovered { promise: self.promise, base: self.base, last: self.last(), epochs, torn: None }
    }
}

fn entries_from(counter: u64, first: u64, count: u64, payload: usize) -> Vec<Record> {
    (first..first + count).map(|version| sized_entry(counter, version, payload)).collect()
}

fn live(steps: Vec<Step>) {
    let directory = tempfile::tempdir().unwrap();
    let mut model = Model { counter: 1, ..Model::default() };
    let (mut log, _) = open(directory.path(), small());
    for step in steps {
        match step {
            Step::Append { entries, payload, new_epoch, waits } => {
                model.counter += u64::from(new_epoch);
                let records = entries_from(model.counter, model.last().version + 1, entries, payload);
                model.push(&records);
                log.submit(records);
                if waits {
                    log.wait();
                }
            }
            Step::Overwrite { at, entries } => {
                let before = model.pick(at);
                model.truncate(before);
                model.counter += 1;
                let records = entries_from(model.counter, before + 1, entries, 100);
                model.push(&records);
                log.submit(records);
            }
            Step::Truncate { at } => {
                model.truncate(model.pick(at));
                log.submit(vec![Record::Truncate { to: model.last() }]);
            }
            Step::Promise { ahead } => {
                let counter = model.promise.map_or(0, |promise| promise.counter) + ahead;
                model.promise = Some(common::epoch(counter));
                log.submit(vec![Record::Promise { epoch: common::epoch(counter) }]);
            }
            Step::Base { ahead, back } => {
                model.counter += 1;
                let version = model.last().version;
                let version = if back { version.saturating_sub(ahead).max(1) } else { version + ahead };
                model.base = common::mark(model.counter, version);
                model.entries.clear();
                log.submit(vec![Record::Base { mark: model.base }]);
            }
            Step::Trim { at } => {
                log.wait();
                let below = model.pick(at);
                let first = log.writer.trim(below);
                assert!(first == model.base.version + 1 || first <= below, "{first} is above {below}");
                let gone = usize::try_from(first - 1 - model.base.version).unwrap();
                model.base = model.entries.drain(..gone).last().map_or(model.base, |entry| entry.mark);
            }
            Step::Read { max_bytes } => {
                log.wait();
                assert_eq!(read_all(&log.reader, max_bytes), model.entries);
            }
            Step::Reopen => {
                drop(log);
                let recovered;
                (log, recovered) = open(directory.path(), small());
                assert_eq!(recovered, model.recovered());
            }
        }
    }
    log.wait();
    assert_eq!((log.reader.base(), log.reader.last()), (model.base, model.last()));
    assert_eq!(log.read_all(), model.entries);
    drop(log);
    let (log, recovered) = open(directory.path(), small());
    assert_eq!(recovered, model.recovered());
    assert_eq!(log.read_all(), model.entries);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_log_holds_what_a_vector_would(steps in prop::collection::vec(step(), 1..60)) {
        live(steps);
    }
}
