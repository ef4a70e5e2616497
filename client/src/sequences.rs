//! Numbers of requests, and which of them are finished for good.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorumkv_protocol::{ClientId, RequestId};

/// Hands out the request ids of one client, and knows its floor: the lowest number that may still be retried.
#[derive(Debug)]
pub(crate) struct Sequences {
    client: ClientId,
    unfinished: Mutex<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    /// The next number to hand out.
    next: u64,
    /// Numbers that were handed out and are not finished.
    open: BTreeSet<u64>,
}

impl Sequences {
    pub(crate) fn new(client: ClientId) -> Arc<Self> {
        Arc::new(Self { client, unfinished: Mutex::new(Unfinished { next: 1, open: BTreeSet::new() }) })
    }

    /// A new request. It is finished when its ticket is dropped, however that comes about.
    pub(crate) fn begin(self: &Arc<Self>) -> Ticket {
        let mut unfinished = self.lock();
        let sequence = unfinished.next;
        unfinished.next += 1;
        unfinished.open.insert(sequence);
        drop(unfinished);
        Ticket { sequences: Arc::clone(self), sequence }
    }

    /// All requests below this are finished: answered, or given up by their callers. They are never sent again.
    pub(crate) fn floor(&self) -> u64 {
        let unfinished = self.lock();
        unfinished.open.first().copied().unwrap_or(unfinished.next)
    }

    /// Nothing panics while the lock is held, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that may still be sent.
#[derive(Debug)]
pub(crate) struct Ticket {
    sequences: Arc<Sequences>,
    sequence: u64,
}

impl Ticket {
    /// The identity that each attempt at this request carries.
    pub(crate) fn id(&self) -> RequestId {
        RequestId { client: self.sequences.client, sequence: self.sequence }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.sequences.lock().open.remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_oldest_unfinished_request_in_whatever_order_they_finish() {
        let sequences = Sequences::new(ClientId::new(1));
        assert_eq!(sequences.floor(), 1);
        let (first, second, third) = (sequences.begin(), sequences.begin(), sequences.begin());
        assert_eq!([first.id().sequence, second.id().sequence, third.id().sequence], [1, 2, 3]);
        drop(second);
        assert_eq!(sequences.floor(), 1);
        drop(first);
        assert_eq!(sequences.floor(), 3);
        drop(third);
        assert_eq!(sequences.floor(), 4);
    }

    #[test]
    fn the_floor_never_passes_an_open_request_under_concurrency() {
        let sequences = Sequences::new(ClientId::new(1));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let ticket = sequences.begin();
                        assert!(sequences.floor() <= ticket.id().sequence);
                    }
                });
            }
        });
        assert_eq!(sequences.floor(), 8_001);
    }
}
