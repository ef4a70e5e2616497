//! Takes packets out of what comes over a connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::connection::ConnectionError;
use crate::wire::MAX_PACKET;

/// Most bytes that are taken from a connection at once.
const READ_BYTES: usize = 32 << 10;

/// A packet of which more than this has come, and that is not complete, needs memory from the budget.
const SMALL: usize = 16 << 10;

/// A packet that has got memory has to come at this rate at least, in KiB a second ...
const LEAST_RATE: u64 = 128;

/// ... after this: others may be waiting for the memory.
const GRACE: Duration = Duration::from_secs(5);

thread_local! {
    /// Where connections read to. What has come is copied out in its own size, so that silent connections, of which there may
    /// be many, hold no buffers.
    static SCRATCH: RefCell<Box<[u8; READ_BYTES]>> = RefCell::new(Box::new([0; READ_BYTES]));
}

/// Memory for large packets of all connections together, in KiB. Who finds none waits.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

/// Memory from the budget; it is given back when this is dropped.
pub(super) type Charge = OwnedSemaphorePermit;

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.max(MAX_PACKET as usize) / 1024 + 1)))
    }

    async fn charge(&self, bytes: usize) -> Charge {
        let units = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
        Arc::clone(&self.0).acquire_many_owned(units).await.expect("the semaphore is never closed")
    }
}

/// Packets that came together, and the memory that they take beyond what is small.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) frames: Vec<Bytes>,
    pub(super) charge: Option<Charge>,
}

/// The reading half of a connection.
#[derive(Debug)]
pub(super) struct Frames<R> {
    half: R,
    decoder: Decoder,
    budget: Budget,
    charge: Option<Charge>,
    /// A packet that has begun has to be complete within this time.
    patience: Duration,
    begun: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(half: R, budget: Budget, patience: Duration) -> Self {
        Self { half, decoder: Decoder::default(), budget, charge: None, patience, begun: None }
    }

    /// The next packets: all that have come together, and at least one.
    pub(super) async fn batch(&mut self) -> Result<Batch, ConnectionError> {
        loop {
            // After whole packets there may be a length that makes no sense.
            complete(&self.decoder.rest)?;
            if self.decoder.rest.len() > SMALL && self.charge.is_none() {
                self.charge = Some(self.budget.charge(self.decoder.wanted()).await);
                // The wait was not the other side's fault.
                self.begun = None;
            }
            let begun = (!self.decoder.rest.is_empty()).then(|| *self.begun.get_or_insert_with(Instant::now));
            let (mut frames, patience) = (Vec::new(), self.patience());
            let read = self.read(&mut frames);
            let more = match begun {
                Some(begun) => {
                    timeout_at(begun + patience, read).await.map_err(|_| ConnectionError::Stalled)??
                }
                None => read.await?,
            };
            if !frames.is_empty() {
                self.begun = None;
                return Ok(Batch { frames, charge: self.charge.take() });
            }
            if !more {
                return Err(ConnectionError::Closed);
            }
        }
    }

    /// How long the packet that is not complete may take.
    fn patience(&self) -> Duration {
        match &self.charge {
            Some(kib) => {
                self.patience.min(GRACE + Duration::from_millis(kib.num_permits() as u64 * 1000 / LEAST_RATE))
            }
            None => self.patience,
        }
    }

    /// Reads once. False at the end of the stream.
    async fn read(&mut self, frames: &mut Vec<Bytes>) -> Result<bool, ConnectionError> {
        let Self { half, decoder, .. } = self;
        poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(&mut scratch[..]);
                let read: io::Result<()> = ready!(Pin::new(&mut *half).poll_read(context, &mut buffer));
                read?;
                decoder.feed(buffer.filled(), frames)?;
                Poll::Ready(Ok(!buffer.filled().is_empty()))
            })
        })
        .await
    }

    /// Reads and forgets, until the other side has closed too.
    pub(super) async fn discard(&mut self) {
        self.decoder = Decoder::default();
        let mut frames = Vec::new();
        while matches!(self.read(&mut frames).await, Ok(true)) {
            frames.clear();
            self.decoder.rest.clear();
        }
    }
}

/// Cuts a stream into packets.
#[derive(Debug, Default)]
struct Decoder {
    /// A packet that is not complete, with its length.
    rest: BytesMut,
}

impl Decoder {
    /// Takes in what has come. Packets before a length that makes no sense are taken out all the same.
    fn feed(&mut self, bytes: &[u8], frames: &mut Vec<Bytes>) -> Result<(), ConnectionError> {
        if self.rest.is_empty() {
            let end = complete(bytes)?;
            cut(Bytes::copy_from_slice(&bytes[..end]), frames);
            self.rest.extend_from_slice(&bytes[end..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let end = complete(&self.rest)?;
            if end > 0 {
                cut(self.rest.split_to(end).freeze(), frames);
                // In a buffer of its own: it must not keep that of the packets before it.
                self.rest = BytesMut::from(&self.rest[..]);
            }
        }
        Ok(())
    }

    /// Bytes of the packet that is not complete, once it will be.
    fn wanted(&self) -> usize {
        self.rest.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize)
    }
}

/// Where the last complete packet ends.
fn complete(bytes: &[u8]) -> Result<usize, ConnectionError> {
    let mut end = 0;
    while let Some(header) = bytes[end..].first_chunk::<4>() {
        let length = u32::from_be_bytes(*header);
        if length > MAX_PACKET {
            // What comes before it is served; then it is the first, and an error.
            return if end == 0 { Err(ConnectionError::Length(*header)) } else { Ok(end) };
        }
        match bytes.len().checked_sub(end + 4 + length as usize) {
            Some(_) => end += 4 + length as usize,
            None => break,
        }
    }
    Ok(end)
}

fn cut(mut bytes: Bytes, frames: &mut Vec<Bytes>) {
    while bytes.has_remaining() {
        let length = bytes.get_u32() as usize;
        frames.push(bytes.split_to(length));
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn packet(content: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(content.len()).expect("short").to_be_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes
    }

    #[test]
    fn packets_come_out_whole_however_they_come_in() {
        let contents: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; usize::from(i) * 7 % 30]).collect();
        let stream: Vec<u8> = contents.iter().flat_map(|content| packet(content)).collect();
        for step in 1..stream.len() {
            let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
            for part in stream.chunks(step) {
                decoder.feed(part, &mut frames).expect("packets");
            }
            assert_eq!(frames, contents);
            assert!(decoder.rest.is_empty());
        }
    }

    #[test]
    fn lengths_that_lie_are_errors_after_what_was_whole() {
        for length in [MAX_PACKET + 1, u32::MAX, 0x8000_0000] {
            let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
            let mut stream = packet(b"whole");
            stream.extend(length.to_be_bytes());
            decoder.feed(&stream, &mut frames).expect("one packet");
            assert_eq!(frames, ["whole"]);
            let refused = decoder.feed(b"x", &mut frames);
            assert!(
                matches!(refused, Err(ConnectionError::Length(header)) if header == length.to_be_bytes())
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_memory_for_a_large_packet_has_to_send_it() {
        let budget = Budget::new(2 << 20);
        let (reader, mut client) = tokio::io::duplex(64 << 10);
        let mut slow = Frames::new(reader, budget.clone(), Duration::from_secs(60));
        client.write_all(&1_000_000_u32.to_be_bytes()).await.expect("written");
        client.write_all(&[0; 32 << 10]).await.expect("written");
        let begun = Instant::now();
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                client.write_all(b"x").await.expect("written");
            }
        };
        let ended = tokio::select! { ended = slow.batch() => ended, () = trickle => unreachable!() };
        assert!(matches!(ended, Err(ConnectionError::Stalled)));
        assert_eq!(begun.elapsed().as_secs(), 5 + 7, "a million bytes at 128 KiB a second, and the grace");
        drop(slow);
        assert_eq!(budget.0.available_permits(), 2049);
    }
}
