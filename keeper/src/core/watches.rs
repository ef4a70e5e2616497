//! Who is told what happens to which znode.
//!
//! As in ZooKeeper 3.9 there are two tables, one for what happens to a znode and one for its children. A watcher can hold
//! several modes on one path; a recursive watch stands in the first table only, so it never tells of changed children.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::ConnectionId;
use crate::path;
use crate::txn::Event;
use crate::wire::{EventKind, WatchKind, WatchMode};

/// A set of [`WatchMode`]s.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Modes(u8);

impl Modes {
    const fn bit(mode: WatchMode) -> u8 {
        match mode {
            WatchMode::Standard => 1,
            WatchMode::Persistent => 2,
            WatchMode::Recursive => 4,
        }
    }

    const fn has(self, mode: WatchMode) -> bool {
        self.0 & Self::bit(mode) != 0
    }

    const fn with(self, mode: WatchMode) -> Self {
        Self(self.0 | Self::bit(mode))
    }

    const fn without(self, mode: WatchMode) -> Self {
        Self(self.0 & !Self::bit(mode))
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Watches of one sort.
#[derive(Debug, Default)]
struct Table {
    by_path: HashMap<Arc<str>, BTreeMap<ConnectionId, Modes>>,
    by_watcher: BTreeMap<ConnectionId, BTreeSet<Arc<str>>>,
    /// Whose recursive watches are where.
    recursive: BTreeMap<Arc<str>, BTreeSet<ConnectionId>>,
}

impl Table {
    fn modes(&self, path: &str, watcher: ConnectionId) -> Modes {
        self.by_path.get(path).and_then(|watchers| watchers.get(&watcher)).copied().unwrap_or_default()
    }

    fn add(&mut self, path: &str, watcher: ConnectionId, mode: WatchMode) {
        let (path, modes) = match self.by_path.get_key_value(path) {
            Some((path, watchers)) => (Arc::clone(path), watchers.get(&watcher).copied().unwrap_or_default()),
            None => (path.into(), Modes::default()),
        };
        if modes.has(mode) {
            return;
        }
        self.by_path.entry(Arc::clone(&path)).or_default().insert(watcher, modes.with(mode));
        if mode == WatchMode::Recursive {
            self.recursive.entry(Arc::clone(&path)).or_default().insert(watcher);
        }
        self.by_watcher.entry(watcher).or_default().insert(path);
    }

    /// Sets what is left of a watcher's modes on a path.
    fn set(&mut self, path: &str, watcher: ConnectionId, modes: Modes) {
        let Some(watchers) = self.by_path.get_mut(path) else { return };
        if !modes.is_empty() {
            watchers.insert(watcher, modes);
            return;
        }
        watchers.remove(&watcher);
        if watchers.is_empty() {
            self.by_path.remove(path);
        }
        if let Some(paths) = self.by_watcher.get_mut(&watcher) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_watcher.remove(&watcher);
            }
        }
    }

    /// Removes a watch in this mode, or in all; false if there is none.
    fn remove(&mut self, path: &str, watcher: ConnectionId, mode: Option<WatchMode>) -> bool {
        let modes = self.modes(path, watcher);
        let left = mode.map_or(Modes::default(), |mode| modes.without(mode));
        if modes.is_empty() || left == modes {
            return false;
        }
        if modes.has(WatchMode::Recursive) && !left.has(WatchMode::Recursive) {
            let watchers = self.recursive.get_mut(path).expect("a recursive watch is known");
            watchers.remove(&watcher);
            if watchers.is_empty() {
                self.recursive.remove(path);
            }
        }
        self.set(path, watcher, left);
        true
    }

    fn remove_watcher(&mut self, watcher: ConnectionId) {
        for path in self.by_watcher.get(&watcher).cloned().unwrap_or_default() {
            self.remove(&path, watcher, None);
        }
    }

    /// Whom an event at `path` concerns, in order; watches that fire once are gone then.
    fn fire(&mut self, path: &str) -> BTreeSet<ConnectionId> {
        let mut concerned = BTreeSet::new();
        if let Some(watchers) = self.by_path.get(path) {
            concerned.extend(watchers.keys().copied());
            let once: Vec<(ConnectionId, Modes)> = watchers
                .iter()
                .filter(|(_, modes)| modes.has(WatchMode::Standard))
                .map(|(&watcher, modes)| (watcher, modes.without(WatchMode::Standard)))
                .collect();
            for (watcher, left) in once {
                self.set(path, watcher, left);
            }
        }
        let last_upto = |path: &str| {
            let upto = (Bound::Unbounded, Bound::Included(path));
            self.recursive.range::<str, _>(upto).next_back().map(|(path, _)| &**path)
        };
        let mut above = path::parent(path);
        while let Some(found) = above.and_then(|above| path::deepest_above(above, last_upto)) {
            concerned.extend(&self.recursive[found]);
            above = path::parent(found);
        }
        concerned
    }
}

/// All watches of a server.
#[derive(Debug, Default)]
pub(super) struct Watches {
    data: Table,
    child: Table,
}

/// How many watches there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchSummary {
    /// Connections that watch something.
    pub connections: usize,
    /// Paths that are watched.
    pub paths: usize,
    /// Watches.
    pub total: usize,
}

impl Watches {
    pub(super) fn watch_data(&mut self, path: &str, watcher: ConnectionId) {
        self.data.add(path, watcher, WatchMode::Standard);
    }

    pub(super) fn watch_children(&mut self, path: &str, watcher: ConnectionId) {
        self.child.add(path, watcher, WatchMode::Standard);
    }

    /// Adds a watch that stays.
    pub(super) fn add(&mut self, path: &str, watcher: ConnectionId, mode: WatchMode) {
        self.data.add(path, watcher, mode);
        if mode != WatchMode::Recursive {
            self.child.add(path, watcher, mode);
        }
    }

    pub(super) fn contains(&self, path: &str, watcher: ConnectionId, kind: WatchKind) -> bool {
        let (data, child) = (self.data.modes(path, watcher), self.child.modes(path, watcher));
        match kind {
            WatchKind::Children => child.has(WatchMode::Standard),
            WatchKind::Data => data.has(WatchMode::Standard),
            WatchKind::Any => !data.is_empty() || !child.is_empty(),
            WatchKind::Persistent => data.has(WatchMode::Persistent),
            WatchKind::Recursive => data.has(WatchMode::Recursive),
        }
    }

    /// Removes watches; false if there are none.
    pub(super) fn remove(&mut self, path: &str, watcher: ConnectionId, kind: WatchKind) -> bool {
        let (data, child) = (&mut self.data, &mut self.child);
        match kind {
            WatchKind::Children => child.remove(path, watcher, Some(WatchMode::Standard)),
            WatchKind::Data => data.remove(path, watcher, Some(WatchMode::Standard)),
            WatchKind::Any => child.remove(path, watcher, None) | data.remove(path, watcher, None),
            WatchKind::Persistent => {
                child.remove(path, watcher, Some(WatchMode::Persistent))
                    | data.remove(path, watcher, Some(WatchMode::Persistent))
            }
            WatchKind::Recursive => data.remove(path, watcher, Some(WatchMode::Recursive)),
        }
    }

    /// A connection has ended.
    pub(super) fn remove_watcher(&mut self, watcher: ConnectionId) {
        self.data.remove_watcher(watcher);
        self.child.remove_watcher(watcher);
    }

    /// Whom an event is to be told, each once.
    pub(super) fn fire(&mut self, event: &Event) -> BTreeSet<ConnectionId> {
        match event.kind {
            EventKind::Created | EventKind::DataChanged => self.data.fire(&event.path),
            EventKind::ChildrenChanged => self.child.fire(&event.path),
            EventKind::Deleted => {
                let mut concerned = self.data.fire(&event.path);
                concerned.append(&mut self.child.fire(&event.path));
                concerned
            }
        }
    }

    pub(super) fn summary(&self) -> WatchSummary {
        let watches = |table: &Table| table.by_watcher.values().map(BTreeSet::len).sum::<usize>();
        let connections: BTreeSet<_> =
            self.data.by_watcher.keys().chain(self.child.by_watcher.keys()).collect();
        let paths: BTreeSet<_> = self.data.by_path.keys().chain(self.child.by_path.keys()).collect();
        WatchSummary {
            connections: connections.len(),
            paths: paths.len(),
            total: watches(&self.data) + watches(&self.child),
        }
    }

    /// What each connection watches, in order.
    pub(super) fn by_watcher(&self) -> BTreeMap<ConnectionId, BTreeSet<Arc<str>>> {
        let mut all = self.data.by_watcher.clone();
        for (&watcher, paths) in &self.child.by_watcher {
            all.entry(watcher).or_default().extend(paths.iter().cloned());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Acl;

    const ME: ConnectionId = ConnectionId(1);
    const YOU: ConnectionId = ConnectionId(2);

    fn event(kind: EventKind, path: &str) -> Event {
        Event { kind, path: path.into(), acl: Acl::open().into() }
    }

    fn told(watches: &mut Watches, kind: EventKind, path: &str) -> Vec<u64> {
        watches.fire(&event(kind, path)).into_iter().map(|watcher| watcher.0).collect()
    }

    #[test]
    fn standard_watches_fire_once_and_a_deletion_is_told_once() {
        let mut watches = Watches::default();
        watches.watch_data("/a", ME);
        watches.watch_children("/a", ME);
        watches.watch_children("/a", YOU);
        assert_eq!(watches.summary(), WatchSummary { connections: 2, paths: 1, total: 3 });
        assert_eq!(told(&mut watches, EventKind::Deleted, "/a"), [1, 2]);
        assert_eq!(told(&mut watches, EventKind::Deleted, "/a"), [0; 0]);
        assert_eq!(watches.summary(), WatchSummary { connections: 0, paths: 0, total: 0 });
    }

    #[test]
    fn persistent_watches_stay_and_recursive_ones_cover_all_below_but_no_children_events() {
        let mut watches = Watches::default();
        watches.add("/a", ME, WatchMode::Persistent);
        watches.add("/", YOU, WatchMode::Recursive);
        for _ in 0..2 {
            assert_eq!(told(&mut watches, EventKind::DataChanged, "/a"), [1, 2]);
            assert_eq!(told(&mut watches, EventKind::ChildrenChanged, "/a"), [1]);
            assert_eq!(told(&mut watches, EventKind::Created, "/a/b"), [2]);
        }
        assert!(watches.remove("/", YOU, WatchKind::Recursive));
        assert!(!watches.remove("/", YOU, WatchKind::Any));
        assert_eq!(told(&mut watches, EventKind::Created, "/a/b"), [0; 0]);
    }

    #[test]
    fn all_recursive_watches_above_a_path_are_found_however_deep_it_is() {
        let mut watches = Watches::default();
        let deep = "/a".repeat(200_000);
        for (number, path) in
            (1..).zip(["/", "/a!", "/a", "/a/a", "/a/a/b", "/a/a!/b", &deep, "nonsense", ""])
        {
            watches.add(path, ConnectionId(number), WatchMode::Recursive);
        }
        assert_eq!(told(&mut watches, EventKind::DataChanged, &deep), [1, 3, 4, 7]);
        assert_eq!(told(&mut watches, EventKind::DataChanged, "/a/a!/b"), [1, 3, 6]);
        assert_eq!(told(&mut watches, EventKind::DataChanged, "/a!"), [1, 2]);
    }

    #[test]
    fn modes_on_one_path_are_kept_and_removed_one_by_one() {
        let mut watches = Watches::default();
        watches.watch_data("/a", ME);
        watches.add("/a", ME, WatchMode::Persistent);
        watches.add("/a", ME, WatchMode::Recursive);
        assert_eq!(told(&mut watches, EventKind::DataChanged, "/a"), [1]);
        assert!(!watches.contains("/a", ME, WatchKind::Data), "it has fired");
        assert!(watches.contains("/a", ME, WatchKind::Persistent));
        assert!(!watches.remove("/a", ME, WatchKind::Data));
        assert!(watches.remove("/a", ME, WatchKind::Persistent));
        assert!(
            watches.contains("/a", ME, WatchKind::Recursive) && watches.contains("/a", ME, WatchKind::Any)
        );
        watches.remove_watcher(ME);
        assert!(!watches.contains("/a", ME, WatchKind::Any));
        assert!(watches.data.recursive.is_empty() && watches.data.by_path.is_empty());
    }
}
