//! Byte strings that are parts of the frame they came in, instead of copies.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error, Visitor};

thread_local! {
    /// The frame that this thread is decoding, if parts of it may be kept. serde offers no way to hand it to `deserialize_with`.
    static FRAME: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Decodes with `decode`, which reads `frame`; byte strings that were decoded by [`part`] share its memory.
pub(crate) fn of<T>(frame: &Bytes, decode: impl FnOnce() -> T) -> T {
    FRAME.with(|shared| shared.replace(frame.clone()));
    let decoded = decode();
    FRAME.with(|shared| shared.replace(Bytes::new()));
    decoded
}

/// Decodes a byte string: as a part of the frame, if that may be kept, or as a copy.
pub(crate) fn part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_bytes(Part)
}

struct Part;

impl<'de> Visitor<'de> for Part {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Bytes, E> {
        Ok(FRAME.with_borrow(|frame| {
            let is_within = frame.as_ptr_range().start <= bytes.as_ptr_range().start
                && bytes.as_ptr_range().end <= frame.as_ptr_range().end;
            if is_within { frame.slice_ref(bytes) } else { Bytes::copy_from_slice(bytes) }
        }))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }
}
