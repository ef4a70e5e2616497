//! How many znodes there are within a range of paths, and how many bytes they hold, without looking at each.
//!
//! The order of all paths is cut into stretches of bounded length, each of which knows its sum. So a range is a few whole
//! stretches, and a part of one at either end.

use std::ops::{AddAssign, Bound, SubAssign};
use std::sync::Arc;

use imbl::OrdMap;

use super::Tree;
use super::node::Node;

/// A stretch of more znodes is cut in two: about as many as there are stretches in a large tree.
pub(super) const LONG: usize = if cfg!(test) { 8 } else { 1024 };

/// Some znodes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Sum {
    pub(super) znodes: usize,
    /// Of their data.
    pub(super) bytes: usize,
}

impl Sum {
    pub(super) fn of(node: &Node) -> Self {
        Self { znodes: 1, bytes: node.data_len() }
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.znodes += other.znodes;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Sum {
    fn sub_assign(&mut self, other: Self) {
        self.znodes -= other.znodes;
        self.bytes -= other.bytes;
    }
}

/// Where each stretch begins, and its sum. The first begins before all paths.
#[derive(Clone, Debug)]
pub(super) struct Sums(OrdMap<Arc<str>, Sum>);

/// Where it is cut depends on what has been there before; it says nothing that the tree itself does not.
impl PartialEq for Sums {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Sums {}

impl Sums {
    pub(super) fn new() -> Self {
        Self(OrdMap::unit(Arc::from(""), Sum::default()))
    }

    /// The stretch that a path is in.
    fn stretch(&mut self, path: &str) -> (&Arc<str>, &mut Sum) {
        self.0.get_prev_mut(path).expect("the first stretch begins before all paths")
    }

    #[cfg(test)]
    pub(super) fn stretches(&self) -> impl Iterator<Item = (&Arc<str>, &Sum)> {
        self.0.iter()
    }
}

impl Tree {
    /// A znode comes. It must be in the tree already.
    pub(super) fn add_to_sums(&mut self, path: &str, sum: Sum) {
        let (start, stretch) = self.sums.stretch(path);
        *stretch += sum;
        if stretch.znodes > LONG {
            let start = Arc::clone(start);
            self.cut(&start);
        }
    }

    /// A znode goes.
    pub(super) fn take_from_sums(&mut self, path: &str, sum: Sum) {
        let (start, stretch) = self.sums.stretch(path);
        *stretch -= sum;
        if stretch.znodes == 0 && !start.is_empty() {
            let start = Arc::clone(start);
            self.sums.0.remove(&start);
        }
    }

    /// A znode holds another number of bytes.
    pub(super) fn change_sums(&mut self, path: &str, before: usize, bytes: usize) {
        if before != bytes {
            let (_, stretch) = self.sums.stretch(path);
            stretch.bytes = stretch.bytes - before + bytes;
        }
    }

    /// Cuts a stretch in two.
    fn cut(&mut self, start: &Arc<str>) {
        let (mut middle, mut rest) = (None, Sum::default());
        let stretch = self.sums.0.get(start).expect("it is there").znodes;
        let range = (Bound::Included(&**start), Bound::Unbounded);
        for (path, node) in self.nodes.range::<_, str>(range).take(stretch).skip(stretch / 2) {
            middle.get_or_insert_with(|| Arc::clone(path));
            rest += Sum::of(node);
        }
        let middle = middle.expect("a long stretch has two halves");
        *self.sums.0.get_mut(start).expect("it is there") -= rest;
        self.sums.0.insert(middle, rest);
    }

    /// The sum of all that is below a path (other than the root), at any depth.
    pub(super) fn sum_below(&self, path: &str) -> Sum {
        // '0' is the character after '/'.
        let (from, to) = (format!("{path}/"), format!("{path}0"));
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        let (mut sum, mut last) = (Sum::default(), None);
        for (start, stretch) in self.sums.0.range::<_, str>(range) {
            // All but the last one end within the range.
            sum +=
                last.replace((start, *stretch)).map_or_else(|| self.walk(&from, start), |(_, whole)| whole);
        }
        sum += self.walk(last.map_or(&from, |(start, _)| start), &to);
        sum
    }

    /// The sum of a part of a stretch.
    fn walk(&self, from: &str, to: &str) -> Sum {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let mut sum = Sum::default();
        self.nodes.range::<_, str>(range).for_each(|(_, node)| sum += Sum::of(node));
        sum
    }
}
