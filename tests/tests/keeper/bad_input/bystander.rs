//! Somebody who does nothing wrong, and has to be served all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Result, ensure};

use crate::raw::{Session, body, op};

/// A session that writes and reads, one after the other, until it is asked how that went.
#[derive(Debug)]
pub(super) struct Bystander {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Bystander {
    pub(super) fn start(address: &str, name: &str) -> Result<Self> {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut session = Session::start(address)?;
        let path = session.create(&format!("/bystander-{name}"), b"0", 1)?;
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&served));
        let thread = thread::spawn(move || {
            for count in 0_i32.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let data = count.to_string();
                session.ok(op::SET_DATA, &body::set(&path, Some(data.as_bytes()), count))?;
                let found = session.ok(op::GET_DATA, &body::watched(&path, false))?;
                ensure!(found[4..].starts_with(data.as_bytes()), "{data} is not what is read: {found:?}");
                counter.fetch_add(1, Ordering::Relaxed);
            }
            session.close()
        });
        Ok(Self { stop, served, thread })
    }

    /// How often it has been served so far.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Waits until it has been served once more, from now on.
    pub(super) fn is_served(&self) -> Result<()> {
        // Each time is bounded by the patience of its session.
        let before = self.served();
        while self.served() < before + 2 {
            ensure!(!self.thread.is_finished(), "the bystander has given up");
            thread::yield_now();
        }
        Ok(())
    }

    /// Checks that it has been served to the end.
    pub(super) fn end(self) -> Result<()> {
        self.is_served()?;
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic in a bystander")
    }
}
