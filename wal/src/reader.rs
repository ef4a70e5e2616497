//! Reads current entries, from any thread.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::IoError;
use crate::format::decode_record;
use crate::index::{Shared, Span};
use crate::record::{Change, Entry, Mark};
use crate::verify::{VerifyError, verify_after};

/// Why entries could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The version is below the first retained one.
    #[error("the log starts at version {first}")]
    Trimmed {
        /// The first version that the log holds, or will hold next.
        first: u64,
    },
    /// What the disk returned is not what was written.
    #[error("the record of version {version} in {} at offset {offset} is damaged", segment.display())]
    Damaged {
        /// The segment file.
        segment: PathBuf,
        /// The record's offset in it.
        offset: u64,
        /// The entry's version.
        version: u64,
    },
    /// The disk did not return anything.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Reads the log. Cheap to clone.
///
/// An entry can be read as soon as it is written, which is before it is durable: who must not act on what a crash may take back
/// waits for its ticket first.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// The current entries from version `from` on, in order: as many as fit `max_bytes` of log (payloads and 48 to 55 bytes each),
    /// but at least one if there is one. Empty if the log ends before `from`. Checksums are verified again.
    ///
    /// # Errors
    /// See [`ReadError`]. An entry that is overwritten or trimmed meanwhile is no error: the answer is of one moment.
    pub fn read(&self, from: u64, max_bytes: u64) -> Result<Vec<Entry>, ReadError> {
        let spans = {
            let index = self.shared.read();
            let first = index.tail.base.version + 1;
            if from < first {
                return Err(ReadError::Trimmed { first });
            }
            index.plan(from, max_bytes)
        };
        let mut entries = Vec::with_capacity(spans.iter().map(|span| span.positions.len()).sum());
        for span in &spans {
            self.read_span(span, &mut entries)?;
        }
        Ok(entries)
    }

    /// Reads back the oldest segment whose number is above `after`, and checks everything in it that recovery would; returns its
    /// number, or `None` if there is no such segment. Starting with 0, and from the answer on, this goes through the whole log. Of
    /// the segment that is being written, what was written before the call is checked.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify_after(&self, after: u64) -> Result<Option<u64>, VerifyError> {
        verify_after(&self.shared, after)
    }

    /// The id of the entry at `version`, or of the base; `None` if the log holds neither.
    #[must_use]
    pub fn mark(&self, version: u64) -> Option<Mark> {
        self.shared.read().tail.mark(version)
    }

    /// The mark before the first retained entry.
    #[must_use]
    pub fn base(&self) -> Mark {
        self.shared.read().tail.base
    }

    /// The first version that the log holds, or will hold next.
    #[must_use]
    pub fn first_version(&self) -> u64 {
        self.base().version + 1
    }

    /// The highest version of any entry in the segments up to this one, also of those that were overwritten since; 0 if they
    /// hold none.
    #[must_use]
    pub fn highest_upto(&self, sequence: u64) -> u64 {
        self.shared.read().highest_upto(sequence)
    }

    /// The number of the oldest segment that is retained.
    #[must_use]
    pub fn first_segment(&self) -> u64 {
        self.shared.read().oldest().sequence
    }

    /// The last entry that was written, or the base if there is none after it.
    #[must_use]
    pub fn last(&self) -> Mark {
        self.shared.read().tail.last
    }

    /// The bytes of log that are retained, in whole segments but for the last one.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.read().bytes()
    }

    fn read_span(&self, span: &Span, entries: &mut Vec<Entry>) -> Result<(), ReadError> {
        let segment = &span.segment;
        let start = span.positions[0];
        let mut buffer = vec![0; usize::try_from(span.end - start).expect("a part of a segment fits memory")];
        segment
            .file
            .read_exact_at(&mut buffer, start - segment.start)
            .map_err(IoError::at("read", &segment.path))?;
        let buffer = Bytes::from(buffer);
        for (version, position) in (span.first..).zip(&span.positions) {
            let at = usize::try_from(position - start).expect("within the buffer");
            let found = decode_record(&buffer[at..], self.shared.log, *position);
            let (mark, payload) = match found.as_ref().map(|record| (record.change, record.payload.clone())) {
                Some((Change::Entry(mark), payload)) if mark.version == version => (mark, payload),
                _ => {
                    let offset = position - segment.start;
                    return Err(ReadError::Damaged { segment: segment.path.clone(), offset, version });
                }
            };
            entries.push(Entry { mark, payload: buffer.slice(at + payload.start..at + payload.end) });
        }
        Ok(())
    }
}
