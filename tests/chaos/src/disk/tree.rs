//! Directories and files, and which of their changes are durable.
//!
//! Changes of names are durable in the order in which they were made, as in the journal of ext4 or XFS: a sync of a file or
//! directory makes all changes durable up to the last that concerns it, and a loss of power keeps those, and any number of
//! the next ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};

use fuser::Errno;

use super::file::Content;

/// The number of the root, as FUSE has it.
pub(super) const ROOT: u64 = 1;

/// A file or directory.
#[derive(Clone, Debug)]
pub(super) enum Body {
    File(Content),
    Directory(BTreeMap<OsString, u64>),
}

#[derive(Clone, Debug)]
struct Node {
    body: Body,
    /// Names, also those that an undone change would bring back.
    references: u32,
    /// What the kernel knows of it: it may be open although no name is left.
    lookups: u64,
}

/// A change of names that is not durable yet.
#[derive(Debug)]
struct Step {
    /// What these names stood for before, in the order of the changes.
    before: Vec<(u64, OsString, Option<u64>)>,
    /// What has to be synced to make it durable.
    concerns: Vec<u64>,
}

/// What a loss of power leaves of that which was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Nothing.
    All,
    /// Any of it.
    Some(u64),
}

/// A file system in memory.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<u64, Node>,
    steps: VecDeque<Step>,
    next: u64,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node { body: Body::Directory(BTreeMap::new()), references: 1, lookups: 0 };
        Self { nodes: HashMap::from([(ROOT, root)]), steps: VecDeque::new(), next: ROOT + 1 }
    }
}

impl Tree {
    pub(super) fn body(&self, ino: u64) -> Result<&Body, Errno> {
        Ok(&self.nodes.get(&ino).ok_or(Errno::ENOENT)?.body)
    }

    pub(super) fn directory(&self, ino: u64) -> Result<&BTreeMap<OsString, u64>, Errno> {
        match self.body(ino)? {
            Body::Directory(names) => Ok(names),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn file(&self, ino: u64) -> Result<&Content, Errno> {
        match self.body(ino)? {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(Errno::EISDIR),
        }
    }

    pub(super) fn file_mut(&mut self, ino: u64) -> Result<&mut Content, Errno> {
        match self.nodes.get_mut(&ino).map(|node| &mut node.body) {
            Some(Body::File(content)) => Ok(content),
            Some(Body::Directory(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.directory(parent)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Makes a file or directory.
    pub(super) fn create(&mut self, parent: u64, name: &OsStr, body: Body) -> Result<u64, Errno> {
        if self.directory(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, Node { body, references: 0, lookups: 0 });
        self.change(vec![(parent, name.to_owned(), Some(ino))], vec![parent, ino]);
        Ok(ino)
    }

    /// Removes a file, or an empty directory.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?;
        self.expect_empty(ino)?;
        self.change(vec![(parent, name.to_owned(), None)], vec![parent, ino]);
        Ok(())
    }

    /// Gives a file or directory another name, in place of what has it.
    pub(super) fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        may_replace: bool,
    ) -> Result<(), Errno> {
        let ino = self.lookup(from.0, from.1)?;
        let mut concerns = vec![from.0, to.0, ino];
        if let Some(&replaced) = self.directory(to.0)?.get(to.1) {
            if !may_replace {
                return Err(Errno::EEXIST);
            }
            if replaced == ino {
                return Ok(());
            }
            self.expect_empty(replaced)?;
            concerns.push(replaced);
        }
        self.change(vec![(to.0, to.1.to_owned(), Some(ino)), (from.0, from.1.to_owned(), None)], concerns);
        Ok(())
    }

    /// Makes a file or directory durable, with all changes of names up to the last one that concerns it.
    pub(super) fn sync(&mut self, ino: u64) -> Result<(), Errno> {
        if let Body::File(content) = &mut self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)?.body {
            content.sync();
        }
        let last = self.steps.iter().rposition(|step| step.concerns.contains(&ino));
        for step in self.steps.drain(..last.map_or(0, |last| last + 1)).collect::<Vec<_>>() {
            self.settle(&step);
        }
        Ok(())
    }

    /// The kernel has heard of it once more.
    pub(super) fn remember(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    /// The kernel has forgotten what it heard so many times.
    pub(super) fn forget(&mut self, ino: u64, times: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(times);
            self.drop_unknown(ino);
        }
    }

    /// Loses what was not synced. Nobody may have a file open.
    pub(super) fn lose(&mut self, loss: Loss) {
        let mut rng = match loss {
            Loss::All => None,
            Loss::Some(seed) => Some(fastrand::Rng::with_seed(seed)),
        };
        let kept = rng.as_mut().map_or(0, |rng| rng.usize(..=self.steps.len()));
        let undone = self.steps.split_off(kept);
        for step in std::mem::take(&mut self.steps) {
            self.settle(&step);
        }
        for step in undone.into_iter().rev() {
            for (directory, name, before) in step.before.into_iter().rev() {
                let now = self.point(directory, name, before);
                now.into_iter().for_each(|ino| self.release(ino));
            }
        }
        let mut dirty: Vec<u64> = self.nodes.keys().copied().collect();
        dirty.sort_unstable();
        for ino in dirty {
            if let Some(Body::File(content)) = self.nodes.get_mut(&ino).map(|node| &mut node.body)
                && content.is_dirty()
            {
                content.lose(rng.as_mut());
            }
        }
    }

    /// Loses what was not synced of one file, as a page cache drops what it could not write.
    pub(super) fn lose_file(&mut self, ino: u64) {
        if let Ok(content) = self.file_mut(ino) {
            content.lose(None);
        }
    }

    /// Removes everything, durably.
    pub(super) fn clear(&mut self) {
        let next = self.next;
        *self = Self::default();
        // Numbers are never used again: the kernel may remember what they stood for.
        self.next = next;
    }

    /// Files in a directory, by their path from the root.
    pub(super) fn files_in(&self, path: &str) -> Vec<(OsString, u64)> {
        let mut ino = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Ok(next) = self.lookup(ino, OsStr::new(name)) else { return Vec::new() };
            ino = next;
        }
        let names = self.directory(ino).into_iter().flatten();
        names.filter(|(_, ino)| self.file(**ino).is_ok()).map(|(name, ino)| (name.clone(), *ino)).collect()
    }

    /// Bytes that all files take.
    pub(super) fn allocated(&self) -> u64 {
        let sizes = self.nodes.values().map(|node| match &node.body {
            Body::File(content) => content.allocated(),
            Body::Directory(_) => 0,
        });
        sizes.sum()
    }

    fn expect_empty(&self, ino: u64) -> Result<(), Errno> {
        match self.body(ino)? {
            Body::Directory(names) if !names.is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    fn change(&mut self, names: Vec<(u64, OsString, Option<u64>)>, concerns: Vec<u64>) {
        let mut before = Vec::new();
        for (directory, name, ino) in names {
            if let Some(node) = ino.and_then(|ino| self.nodes.get_mut(&ino)) {
                node.references += 1;
            }
            // The reference that the name had is the step's from now on.
            let was = self.point(directory, name.clone(), ino);
            before.push((directory, name, was));
        }
        self.steps.push_back(Step { before, concerns });
    }

    /// Lets a name stand for something else; returns what it stood for.
    fn point(&mut self, directory: u64, name: OsString, ino: Option<u64>) -> Option<u64> {
        let Some(Body::Directory(names)) = self.nodes.get_mut(&directory).map(|node| &mut node.body) else {
            return None;
        };
        match ino {
            Some(ino) => names.insert(name, ino),
            None => names.remove(&name),
        }
    }

    /// Forgets how a step could be undone.
    fn settle(&mut self, step: &Step) {
        for (_, _, before) in &step.before {
            before.iter().for_each(|&ino| self.release(ino));
        }
    }

    fn release(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.references = node.references.saturating_sub(1);
            self.drop_unknown(ino);
        }
    }

    fn drop_unknown(&mut self, ino: u64) {
        if self.nodes.get(&ino).is_some_and(|node| node.references == 0 && node.lookups == 0) {
            self.nodes.remove(&ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn file(tree: &mut Tree, parent: u64, text: &str) -> u64 {
        tree.create(parent, name(text), Body::File(Content::default())).unwrap()
    }

    fn names(tree: &Tree, ino: u64) -> Vec<String> {
        tree.directory(ino).unwrap().keys().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_name_is_durable_when_its_directory_or_its_file_is_synced() {
        let mut tree = Tree::default();
        file(&mut tree, ROOT, "a");
        tree.sync(ROOT).unwrap();
        let b = file(&mut tree, ROOT, "b");
        tree.sync(b).unwrap();
        file(&mut tree, ROOT, "c");
        tree.lose(Loss::All);
        assert_eq!(names(&tree, ROOT), ["a", "b"]);
    }

    #[test]
    fn a_rename_that_was_not_synced_is_undone_with_what_it_replaced() {
        let mut tree = Tree::default();
        let (old, new) = (file(&mut tree, ROOT, "node.json"), file(&mut tree, ROOT, "node.json.new"));
        tree.file_mut(old).unwrap().write(0, b"old");
        tree.file_mut(new).unwrap().write(0, b"new");
        tree.sync(old).unwrap();
        tree.sync(new).unwrap();
        tree.rename((ROOT, name("node.json.new")), (ROOT, name("node.json")), true).unwrap();
        assert_eq!(tree.lookup(ROOT, name("node.json")).unwrap(), new);
        tree.lose(Loss::All);
        assert_eq!(names(&tree, ROOT), ["node.json", "node.json.new"]);
        let ino = tree.lookup(ROOT, name("node.json")).unwrap();
        assert_eq!(tree.file(ino).unwrap().read(0, 9), b"old");
        tree.rename((ROOT, name("node.json.new")), (ROOT, name("node.json")), true).unwrap();
        tree.sync(ROOT).unwrap();
        tree.lose(Loss::All);
        assert_eq!(names(&tree, ROOT), ["node.json"]);
        assert_eq!(tree.nodes.len(), 2, "what nobody can reach is gone");
    }

    #[test]
    fn changes_of_names_are_lost_from_the_last_one_on() {
        let mut seen = [0; 4];
        for seed in 0..60 {
            let mut tree = Tree::default();
            let inside = tree.create(ROOT, name("d"), Body::Directory(BTreeMap::new())).unwrap();
            file(&mut tree, inside, "x");
            tree.rename((inside, name("x")), (ROOT, name("y")), true).unwrap();
            tree.lose(Loss::Some(seed));
            let inside = tree.lookup(ROOT, name("d"));
            let state = match (names(&tree, ROOT).as_slice(), inside.map(|d| names(&tree, d).len())) {
                ([], _) => 0,
                ([d], Ok(0)) if d == "d" => 1,
                ([d], Ok(1)) if d == "d" => 2,
                ([d, y], Ok(0)) if d == "d" && y == "y" => 3,
                other => panic!("no prefix of the changes: {other:?}"),
            };
            seen[state] += 1;
        }
        assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
    }

    #[test]
    fn a_file_that_is_open_outlives_its_name() {
        let mut tree = Tree::default();
        let ino = file(&mut tree, ROOT, "f");
        tree.remember(ino);
        tree.remove(ROOT, name("f")).unwrap();
        tree.sync(ROOT).unwrap();
        assert!(tree.file(ino).is_ok());
        tree.forget(ino, 1);
        assert!(tree.file(ino).is_err());
        assert_eq!(tree.remove(ROOT, name("f")).unwrap_err().code(), Errno::ENOENT.code());
    }
}
