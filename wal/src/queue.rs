//! The bounded queue between the one who submits and the thread that writes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// An item with its size in bytes.
#[derive(Debug)]
struct Weighed<I> {
    item: I,
    bytes: usize,
}

#[derive(Debug)]
struct State<I> {
    items: VecDeque<Weighed<I>>,
    bytes: usize,
    closed: bool,
    /// Somebody waits for items. Waking costs a system call even if nobody does.
    wants_items: bool,
    /// Somebody waits for room.
    wants_room: bool,
}

/// Bounded both in items and in bytes. An empty queue takes any item, so that none is too large for ever.
#[derive(Debug)]
pub(crate) struct Queue<I> {
    max_items: usize,
    max_bytes: usize,
    state: Mutex<State<I>>,
    changed: Condvar,
}

/// Whether the queue would take an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    Full,
    Closed,
}

impl<I> State<I> {
    fn room(&self, bytes: usize, max_items: usize, max_bytes: usize) -> Room {
        if self.closed {
            Room::Closed
        } else if self.items.is_empty()
            || (self.items.len() < max_items && self.bytes.saturating_add(bytes) <= max_bytes)
        {
            Room::Free
        } else {
            Room::Full
        }
    }
}

impl<I> Queue<I> {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Queue<I> {
        let state =
            State { items: VecDeque::new(), bytes: 0, closed: false, wants_items: false, wants_room: false };
        Queue { max_items, max_bytes, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn room(&self, bytes: usize) -> Room {
        self.lock().room(bytes, self.max_items, self.max_bytes)
    }

    /// Like [`Queue::room`], but waits while the queue is full.
    pub(crate) fn wait_for_room(&self, bytes: usize) -> Room {
        let mut state = self.lock();
        loop {
            match state.room(bytes, self.max_items, self.max_bytes) {
                Room::Full => {
                    state.wants_room = true;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                room => return room,
            }
        }
    }

    /// Adds an item for which there is room: with one producer, room that was seen stays. A closed queue drops it.
    pub(crate) fn push(&self, item: I, bytes: usize) {
        let mut state = self.lock();
        if !state.closed {
            state.bytes += bytes;
            state.items.push_back(Weighed { item, bytes });
            if std::mem::take(&mut state.wants_items) {
                self.changed.notify_all();
            }
        }
    }

    /// Waits for items and takes them in order: one at least, more as long as they sum up to at most `max_bytes`.
    /// `None` once the queue is closed and empty.
    pub(crate) fn take(&self, max_bytes: usize) -> Option<Vec<I>> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.closed {
                return None;
            }
            state.wants_items = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut taken = Vec::new();
        let mut sum = 0;
        while let Some(next) = state.items.front() {
            if !taken.is_empty() && sum + next.bytes > max_bytes {
                break;
            }
            sum += next.bytes;
            taken.extend(state.items.pop_front().map(|next| next.item));
        }
        state.bytes -= sum;
        if std::mem::take(&mut state.wants_room) {
            self.changed.notify_all();
        }
        Some(taken)
    }

    /// No item is taken in from now on; those inside can still be taken out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Closes the queue and drops what is inside.
    pub(crate) fn abandon(&self) {
        let dropped = {
            let mut state = self.lock();
            state.closed = true;
            state.bytes = 0;
            std::mem::take(&mut state.items)
        };
        self.changed.notify_all();
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_bytes_are_bounded_but_an_empty_queue_takes_anything() {
        let queue = Queue::new(2, 10);
        assert_eq!(queue.room(1000), Room::Free);
        queue.push('a', 8);
        assert_eq!(queue.room(3), Room::Full);
        assert_eq!(queue.room(2), Room::Free);
        queue.push('b', 1);
        assert_eq!(queue.room(0), Room::Full);
        assert_eq!(queue.take(100), Some(vec!['a', 'b']));
        assert_eq!(queue.room(0), Room::Free);
    }

    #[test]
    fn a_take_stops_at_its_limit_but_never_empty_handed() {
        let queue = Queue::new(10, 100);
        for (item, bytes) in [('a', 30), ('b', 5), ('c', 5), ('d', 1)] {
            queue.push(item, bytes);
        }
        assert_eq!(queue.take(10), Some(vec!['a']));
        assert_eq!(queue.take(10), Some(vec!['b', 'c']));
        assert_eq!(queue.take(10), Some(vec!['d']));
    }

    #[test]
    fn a_closed_queue_is_drained_and_an_abandoned_one_is_not() {
        let queue = Queue::new(10, 100);
        queue.push('a', 1);
        queue.close();
        queue.push('b', 1);
        assert_eq!(queue.room(1), Room::Closed);
        assert_eq!(queue.take(10), Some(vec!['a']));
        assert_eq!(queue.take(10), None);

        let queue = Queue::new(10, 100);
        queue.push('a', 1);
        queue.abandon();
        assert_eq!(queue.take(10), None);
    }
}
