//! Frames: a 32-bit big-endian length, then that many bytes of postcard.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::{budget, slices};

/// Bytes in front of every body.
pub const HEADER_LENGTH: usize = 4;

/// Largest body between a client and a node, unless configured otherwise.
pub const CLIENT_FRAME_LIMIT: u32 = 10 << 20;

/// Largest body between nodes, unless configured otherwise: more than a client's, so that what was accepted from a
/// client can always be replicated.
pub const PEER_FRAME_LIMIT: u32 = 16 << 20;

/// Largest body of a first frame: nobody is trusted with more before saying Hello.
pub const HELLO_FRAME_LIMIT: u32 = 4 << 10;

/// Why bytes from the other side were not understood. The connection cannot go on after any of these.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FrameError {
    /// The header announces more than this connection permits. Not a byte of the body was buffered.
    #[error("{}", too_long(*length, *limit))]
    TooLong {
        /// What the header announces, in bytes.
        length: u32,
        /// What is permitted, in bytes.
        limit: u32,
    },
    /// The body is not a message: an unknown variant, bad UTF-8, a length that lies, too many elements, an end too soon.
    #[error("the frame is not a valid message: {0}")]
    Malformed(postcard::Error),
    /// The body holds more bytes than the message in it needs: trailing bytes or numbers in a longer form than theirs.
    #[error("the frame has {length} bytes, but its message takes {canonical}")]
    NotCanonical {
        /// Bytes in the frame.
        length: usize,
        /// Bytes that the message takes when this crate encodes it.
        canonical: usize,
    },
}

fn too_long(length: u32, limit: u32) -> String {
    if length.to_be_bytes() == *b"HTTP" {
        return "this is HTTP, and not quorumkv's protocol: it may be the port for health and metrics"
            .to_owned();
    }
    format!("a frame of {length} bytes is over the limit of {limit}")
}

/// Appends `message` as one frame.
///
/// # Panics
/// If the body is over `u32::MAX` bytes; every message is bounded far below by the limits on what it carries.
pub fn encode<T: Serialize>(message: &T, out: &mut BytesMut) {
    let start = out.len();
    out.put_u32(0);
    encode_body(message, out);
    let length = out.len() - start - HEADER_LENGTH;
    let header = u32::try_from(length).expect("messages are far smaller than 4 GiB");
    out[start..start + HEADER_LENGTH].copy_from_slice(&header.to_be_bytes());
}

/// Appends `message` without a header, as it stands in a frame; the log and the snapshots use this form too.
pub fn encode_body<T: Serialize>(message: &T, out: &mut BytesMut) {
    postcard::serialize_with_flavor(message, Appender(out)).expect("messages always encode");
}

/// Bytes that the body of `message` takes in a frame.
#[must_use]
pub fn encoded_length<T: Serialize>(message: &T) -> usize {
    postcard::experimental::serialized_size(message).expect("messages always encode")
}

/// Decodes the body of one frame. All of it must be used, in the one form that [`encode`] writes.
///
/// # Errors
/// [`FrameError::Malformed`] or [`FrameError::NotCanonical`]; never a panic, and never memory beyond the budget of a
/// frame of this size.
pub fn decode<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    budget::grant(body.len());
    let message = postcard::from_bytes(body).map_err(FrameError::Malformed)?;
    // postcard accepts numbers in overlong forms and ignores what follows the message. A canonical encoding is the
    // shortest, so equal lengths prove that neither is there, at the price of counting instead of encoding.
    let canonical = encoded_length(&message);
    if canonical == body.len() {
        Ok(message)
    } else {
        Err(FrameError::NotCanonical { length: body.len(), canonical })
    }
}

/// As [`decode`]. Keys and values of entries are not copied, but are parts of the frame: they keep all of its memory.
///
/// # Errors
/// As for [`decode`].
pub fn decode_shared<T: Serialize + DeserializeOwned>(body: &Bytes) -> Result<T, FrameError> {
    slices::of(body, || decode(body))
}

/// Lets postcard write into a [`BytesMut`], whole slices at a time.
struct Appender<'a>(&'a mut BytesMut);

impl Flavor for Appender<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Cuts a stream of bytes into the bodies of frames.
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder {
    limit: u32,
}

impl FrameDecoder {
    /// A decoder that refuses frames with bodies of more than `limit` bytes.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        Self { limit }
    }

    /// Permits bodies of up to `limit` bytes from the next frame on.
    pub const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Length of the body at the front of `buffer`, as soon as its header has arrived.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if it is over the limit.
    pub fn announced(&self, buffer: &[u8]) -> Result<Option<u32>, FrameError> {
        let Some(header) = buffer.first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header);
        if length > self.limit {
            return Err(FrameError::TooLong { length, limit: self.limit });
        }
        Ok(Some(length))
    }

    /// Takes the next body from the front of `buffer`; `None` until all of it has arrived.
    ///
    /// Nothing is reserved for a body that has only been announced: the buffer grows with what arrives.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] as soon as the header says so.
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(announced) = self.announced(buffer)? else { return Ok(None) };
        let length = announced as usize;
        if buffer.len() - HEADER_LENGTH < length {
            return Ok(None);
        }
        buffer.advance(HEADER_LENGTH);
        Ok(Some(buffer.split_to(length).freeze()))
    }
}
