//! A log without threads, for a caller that decides itself when things happen.

use std::fmt;
use std::sync::Arc;

use crate::append::Appender;
use crate::disk::IoError;
use crate::gate::Gate;
use crate::housekeeper::Housekeeper;
use crate::index::Shared;
use crate::reader::Reader;
use crate::record::Record;
use crate::tail::InvalidRecord;

/// Why a [`SteppedLog`] did not take something.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A record cannot follow what the log holds. Nothing of the batch was written.
    #[error("a record cannot be appended")]
    Invalid(#[from] InvalidRecord),
    /// A write failed: the log must not be used any more.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// A log that writes and syncs when it is told to: the same as with [`Writer`](crate::Writer), but for the threads and the
/// queue. For simulators.
pub struct SteppedLog {
    gate: Gate,
    appender: Appender,
    shared: Arc<Shared>,
    housekeeper: Arc<Housekeeper>,
}

impl SteppedLog {
    pub(crate) fn new(
        gate: Gate,
        appender: Appender,
        shared: Arc<Shared>,
        housekeeper: Arc<Housekeeper>,
    ) -> SteppedLog {
        SteppedLog { gate, appender, shared, housekeeper }
    }

    /// Writes records. Readers see them; they are not durable.
    ///
    /// # Errors
    /// See [`StepError`].
    pub fn write(&mut self, records: Vec<Record>) -> Result<(), StepError> {
        let records = self.gate.admit_all(records)?;
        self.appender.roll_if_asked()?;
        for record in &records {
            self.appender.append(record)?;
        }
        Ok(self.appender.flush()?)
    }

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// When the disk fails: the log must not be used any more.
    pub fn sync(&mut self) -> Result<(), IoError> {
        self.appender.sync()
    }

    /// Up to here the file that is being written is durable; what is written from now on says so.
    #[must_use]
    pub fn synced_offset(&self) -> u64 {
        self.appender.synced_offset()
    }

    /// As [`Writer::trim`](crate::Writer::trim), at once.
    pub fn trim(&mut self, below: u64) -> u64 {
        self.gate.trim(&self.shared, &self.housekeeper, below)
    }

    /// A handle for reading.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }
}

impl fmt::Debug for SteppedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteppedLog").field("gate", &self.gate).finish_non_exhaustive()
    }
}
