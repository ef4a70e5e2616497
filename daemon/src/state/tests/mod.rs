//! A log that follows from a version number alone, and the state that it must lead to.

mod apply;
mod concurrency;
mod crash;
mod damage;
mod fuzz;
mod restore;
mod scan;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use quorumkv_protocol::entry::{Asked, Body, Effect, Entry, EvaluatedWrite, Outcome, Reconfiguration};
use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::{ClientId, EntryId, Epoch, NodeId, RequestId, Version};
use quorumkv_replica::requests::Requests;

use super::{Options, Record, State};

const CLIENTS: u64 = 7;
const MAX_RESULTS: usize = 20;

fn options() -> Options {
    // Little enough to be moved into the database every fifty entries or so.
    Options { cache_bytes: 1 << 20, max_results: MAX_RESULTS, recent_bytes: 20 << 10 }
}

fn open(dir: &Path) -> State {
    let state = State::open(dir, options()).expect("open the state");
    state.begin_with(&configuration_at(0)).expect("begin");
    state
}

/// Epochs change every hundred entries.
fn id_at(version: u64) -> EntryId {
    if version == 0 {
        return EntryId::ZERO;
    }
    EntryId::new(Epoch::new(1 + version / 100, NodeId::new(9)), Version::new(version))
}

fn request_at(version: u64) -> RequestId {
    RequestId { client: ClientId::new(version % CLIENTS), sequence: version / CLIENTS + 1 }
}

fn write_entry(version: u64, effects: Vec<Effect>, outcome: Outcome) -> Entry {
    let request = request_at(version);
    let floor = request.sequence.saturating_sub(version % 3);
    Entry { id: id_at(version), body: Body::Write(EvaluatedWrite { request, floor, effects, outcome }) }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Effect {
    Effect::Put { key: key.into(), value: value.into() }
}

fn delete(key: impl Into<Bytes>) -> Effect {
    Effect::Delete { key: key.into() }
}

fn configuration_at(version: u64) -> Configuration {
    let member = |node| Member { node: NodeId::new(node), address: format!("n{node}:1") };
    let voters = (version..=version + version % 3).map(member).collect();
    Configuration { id: id_at(version), ..Configuration::first(voters) }
}

/// The entry that the test log holds at a version: opening entries, puts, deletes, failed conditions, several effects
/// in one, and changes of the members.
fn entry_at(version: u64) -> Entry {
    let mut random = fastrand::Rng::with_seed(version);
    let key = |random: &mut fastrand::Rng| format!("key-{:03}", random.u32(..200));
    let value = |random: &mut fastrand::Rng| vec![random.u8(..); random.usize(..600)];
    match random.u32(..11) {
        0 => Entry { id: id_at(version), body: Body::Open },
        1 => write_entry(version, Vec::new(), Outcome::Mismatch { actual: Version::new(version / 2) }),
        2 => write_entry(version, Vec::new(), Outcome::NotFound),
        3 => write_entry(version, vec![delete(key(&mut random))], Outcome::Applied),
        4 => {
            let key = key(&mut random);
            let effects = vec![put("several", "x"), put(key.clone(), "y"), delete(key), put("several", "z")];
            write_entry(version, effects, Outcome::Applied)
        }
        5 => {
            let request = request_at(version);
            let asked = version.is_multiple_of(2).then_some(Asked { request, floor: request.sequence });
            let change = Reconfiguration { asked, configuration: configuration_at(version) };
            Entry { id: id_at(version), body: Body::Configure(Box::new(change)) }
        }
        _ => {
            let effect = put(key(&mut random), value(&mut random));
            write_entry(version, vec![effect], Outcome::Applied)
        }
    }
}

fn entries(versions: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    versions.map(entry_at).collect()
}

/// What the log up to a version must come to, computed in the plainest way.
struct Model {
    applied: EntryId,
    records: BTreeMap<Bytes, Record>,
    configuration: Configuration,
    requests: Requests,
}

impl Model {
    fn at(version: u64) -> Self {
        let mut model = Self {
            applied: id_at(version),
            records: BTreeMap::new(),
            configuration: configuration_at(0),
            requests: Requests::with_capacity(MAX_RESULTS),
        };
        for entry in entries(1..=version) {
            model.requests.apply(&entry);
            model.configuration = entry.configuration().cloned().unwrap_or(model.configuration);
            let Body::Write(write) = entry.body else { continue };
            for effect in write.effects {
                match effect {
                    Effect::Put { key, value } => {
                        model.records.insert(key, Record::new(entry.id, value));
                    }
                    Effect::Delete { key } => {
                        model.records.remove(&key);
                    }
                }
            }
        }
        model
    }

    fn check(&self, state: &State) {
        // A view has everything moved into the database, so this comes first.
        for key in (0..200).map(|number| format!("key-{number:03}")).chain(["several".to_owned()]) {
            let record = state.get(key.as_bytes()).expect("get");
            assert_eq!(record.as_ref(), self.records.get(key.as_bytes()), "{key}");
        }
        let view = state.view().expect("view");
        assert_eq!(state.applied(), self.applied);
        assert_eq!(view.applied(), self.applied);
        assert_eq!(state.configuration(), self.configuration);
        let page = view.scan(b"", None, usize::MAX, usize::MAX).expect("scan");
        assert!(!page.more);
        assert_eq!(page.items, Vec::from_iter(self.records.clone()));
        for version in 1..=self.applied.version.get() {
            for since in [0, version - 1, self.requests.horizon().get()].map(Version::new) {
                let request = request_at(version);
                assert_eq!(state.lookup(request, since), self.requests.lookup(request, since), "{request}");
            }
        }
    }
}

/// Copies a directory as a crash would leave it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create a directory");
    for file in fs::read_dir(from).expect("read a directory") {
        let file = file.expect("read a directory");
        let target = to.join(file.file_name());
        if file.file_type().expect("a file's type").is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).expect("copy a file");
        }
    }
}
