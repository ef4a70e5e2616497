//! What transactions that are logged but not applied yet will change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::tree::{Node, Tree};
use crate::txn::Owner;
use crate::wire::Acl;

/// What transactions that are logged but not applied yet will change.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Pending {
    /// Znodes as they will be after the last of these transactions.
    records: BTreeMap<Arc<str>, Record>,
    /// Which transaction has written which record, in order.
    queue: VecDeque<(i64, Arc<str>)>,
    /// The owner and the path of each ephemeral znode in `records`.
    ephemerals: BTreeSet<(i64, Arc<str>)>,
    /// Sessions that end, and with which transaction.
    closing: BTreeMap<i64, i64>,
    /// Within a `multi`: what is to be restored if it fails.
    undo: Option<Undo>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Record {
    /// The last transaction that changes the znode.
    zxid: i64,
    /// The znode by then; `None`: it is deleted.
    state: Option<State>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Undo {
    queued: usize,
    records: Vec<(Arc<str>, Option<Record>)>,
}

/// The transaction that creates a znode, and the znode's path.
pub(super) type Created<'a> = (i64, &'a Arc<str>);

/// What is to be known of a znode to decide on requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) acl: Arc<[Acl]>,
    pub(super) owner: Owner,
    pub(super) mtime: i64,
    pub(super) version: i32,
    pub(super) aversion: i32,
    pub(super) creations: i32,
    pub(super) children: usize,
}

impl State {
    fn of(node: &Node) -> Self {
        let stat = node.stat();
        Self {
            acl: Arc::clone(node.shared_acl()),
            owner: node.owner(),
            mtime: stat.mtime,
            version: stat.version,
            aversion: stat.aversion,
            creations: node.creations(),
            children: node.children().len(),
        }
    }
}

impl Pending {
    /// Nothing is pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.closing.is_empty()
    }

    /// Transactions up to this one have been applied: the tree tells the same now.
    pub fn forget(&mut self, upto_zxid: i64) {
        while let Some((_, path)) = self.queue.pop_front_if(|(zxid, _)| *zxid <= upto_zxid) {
            if self.records.get(&path).is_some_and(|record| record.zxid <= upto_zxid) {
                self.replace(&path, None);
            }
        }
        self.closing.retain(|_, zxid| *zxid > upto_zxid);
    }

    /// # Panics
    /// If `zxid` does not come after everything that is applied or pending.
    pub(super) fn check_order(&self, tree: &Tree, zxid: i64) {
        let last = self.queue.back().map_or(0, |(zxid, _)| *zxid).max(tree.last_zxid());
        assert!(zxid > last, "transaction {zxid} is prepared after {last}");
    }

    /// A znode, after all that is pending.
    pub(super) fn look(&self, tree: &Tree, path: &str) -> Option<(Arc<str>, State)> {
        match self.records.get_key_value(path) {
            Some((path, record)) => Some((Arc::clone(path), record.state.clone()?)),
            None => tree.entry(path).map(|(path, node)| (Arc::clone(path), State::of(node))),
        }
    }

    /// Whether a znode is there, after all that is pending.
    pub(super) fn is_there(&self, tree: &Tree, path: &str) -> bool {
        self.records.get(path).map_or_else(|| tree.get(path).is_some(), |record| record.state.is_some())
    }

    /// Remembers what a znode will be.
    pub(super) fn put(&mut self, zxid: i64, path: Arc<str>, state: Option<State>) {
        let before = self.replace(&path, Some(Record { zxid, state }));
        if let Some(undo) = &mut self.undo {
            undo.records.push((Arc::clone(&path), before));
        }
        self.queue.push_back((zxid, path));
    }

    fn replace(&mut self, path: &Arc<str>, record: Option<Record>) -> Option<Record> {
        let owner = |record: &Record| match record.state.as_ref()?.owner {
            Owner::Session(session) => Some(session),
            Owner::Nobody | Owner::Container | Owner::Ttl(_) => None,
        };
        let new_owner = record.as_ref().and_then(owner);
        let before = match record {
            Some(record) => self.records.insert(Arc::clone(path), record),
            None => self.records.remove(path),
        };
        let old_owner = before.as_ref().and_then(owner);
        if old_owner != new_owner {
            if let Some(session) = old_owner {
                self.ephemerals.remove(&(session, Arc::clone(path)));
            }
            if let Some(session) = new_owner {
                self.ephemerals.insert((session, Arc::clone(path)));
            }
        }
        before
    }

    /// What follows is to be kept, or not, as a whole.
    pub(super) fn begin(&mut self) {
        assert!(self.undo.is_none(), "a multi is not within another");
        self.undo = Some(Undo { queued: self.queue.len(), records: Vec::new() });
    }

    /// Keeps everything since [`Self::begin`].
    pub(super) fn commit(&mut self) {
        self.undo = None;
    }

    /// Keeps nothing since [`Self::begin`].
    pub(super) fn roll_back(&mut self) {
        let undo = self.undo.take().expect("a multi has begun");
        for (path, record) in undo.records.into_iter().rev() {
            self.replace(&path, record);
        }
        self.queue.truncate(undo.queued);
    }

    /// A session ends with this transaction.
    pub(super) fn close(&mut self, session: i64, zxid: i64) {
        self.closing.insert(session, zxid);
    }

    /// Whether a session ends with something that is pending.
    pub(super) fn is_closing(&self, session: i64) -> bool {
        self.closing.contains_key(&session)
    }

    /// The ephemeral znodes that a session has after all that is pending: those that it has already, each with the
    /// transaction that created it, and those that it will have, in the order of their transactions.
    pub(super) fn ephemerals_of<'a>(
        &'a self,
        tree: &'a Tree,
        session: i64,
    ) -> (Vec<Created<'a>>, Vec<Created<'a>>) {
        let is_its_own = |path: &str| {
            let state = self.records.get(path).map(|record| record.state.as_ref());
            state.is_none_or(|state| state.is_some_and(|state| state.owner == Owner::Session(session)))
        };
        let applied = tree
            .shared_ephemerals_of(session)
            .filter(|path| is_its_own(path))
            .filter_map(|path| Some((tree.get(path)?.stat().czxid, path)))
            .collect();
        let mut pending: Vec<_> = self
            .ephemerals
            .range((session, Arc::from(""))..)
            .take_while(|(owner, _)| *owner == session)
            .filter(|(_, path)| tree.get(path).is_none_or(|node| node.owner() != Owner::Session(session)))
            .filter_map(|(_, path)| Some((self.records.get(path)?.zxid, path)))
            .collect();
        pending.sort_by_key(|(zxid, _)| *zxid);
        (applied, pending)
    }
}
