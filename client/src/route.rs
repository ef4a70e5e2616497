//! The way of one operation from node to node until its deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::endpoint::Endpoint;
use crate::error::ConnectionError;
use crate::pool::Pool;

/// The pause before a second attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The longest time that an operation may take: what the wire can carry, and nothing that overflows a clock.
const LONGEST_TIMEOUT: Duration = Duration::from_millis(u32::MAX as u64);

/// Where an operation has been, and how long it may go on.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) deadline: Instant,
    /// The nodes asked so far, in order. The pauses keep this short.
    pub(crate) tried: Vec<Endpoint>,
    /// Nodes that would refuse the connection again.
    barred: Vec<Endpoint>,
    backoff: Backoff,
}

impl Route {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + timeout.min(LONGEST_TIMEOUT),
            tried: Vec::new(),
            barred: Vec::new(),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        }
    }

    /// Takes note that a connection failed: a refused handshake is not worth repeating.
    pub(crate) fn note(&mut self, error: &ConnectionError) {
        if error.failure.is_final() {
            self.barred.push(error.endpoint.clone());
        }
    }

    /// Waits before the next attempt. False if there should be none: the deadline has passed, or every node refuses
    /// this client.
    pub(crate) async fn goes_on(&mut self, pool: &Pool) -> bool {
        if pool.given().iter().all(|node| self.barred.contains(&node.endpoint)) {
            return false;
        }
        sleep_until(self.deadline.min(Instant::now() + self.backoff.pause())).await;
        Instant::now() < self.deadline
    }
}
