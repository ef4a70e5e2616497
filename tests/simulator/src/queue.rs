//! What will happen, in the order of time; what happens at one moment, in the order in which it was scheduled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Things that will happen.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// When, the how manieth, and where in `things`.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    things: Vec<Option<T>>,
    free: Vec<usize>,
    scheduled: u64,
}

impl<T> Queue<T> {
    pub(crate) const fn new() -> Self {
        Self { order: BinaryHeap::new(), things: Vec::new(), free: Vec::new(), scheduled: 0 }
    }

    pub(crate) fn push(&mut self, time: u64, thing: T) {
        self.scheduled += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.things.push(None);
            self.things.len() - 1
        });
        self.things[place] = Some(thing);
        self.order.push(Reverse((time, self.scheduled, place)));
    }

    /// The next thing, and when, if that is not after `end`.
    pub(crate) fn pop_until(&mut self, end: u64) -> Option<(u64, T)> {
        let Reverse((time, _, place)) = *self.order.peek().filter(|first| first.0.0 <= end)?;
        self.order.pop();
        self.free.push(place);
        Some((time, self.things[place].take().expect("it is in the order once")))
    }
}
