//! Jute, ZooKeeper's serialization: big-endian integers, and strings, buffers and vectors that begin with their length as
//! a 32-bit integer, where -1 stands for null.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum JuteError {
    /// They end in the middle of something.
    #[error("the record ends too early")]
    Short,
    /// A length is negative.
    #[error("a length is negative")]
    NegativeLength,
    /// A string is null that must not be.
    #[error("a string is null")]
    Null,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
}

/// Reads one record.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads what is in `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JuteError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(JuteError::Short)?;
        self.rest = rest;
        Ok(*array)
    }

    /// A byte that says whether something is true: 0 or anything else.
    ///
    /// # Errors
    /// The record ends too early.
    pub fn boolean(&mut self) -> Result<bool, JuteError> {
        Ok(self.array::<1>()?[0] != 0)
    }

    /// A 32-bit integer.
    ///
    /// # Errors
    /// The record ends too early.
    pub fn int(&mut self) -> Result<i32, JuteError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A 64-bit integer.
    ///
    /// # Errors
    /// The record ends too early.
    pub fn long(&mut self) -> Result<i64, JuteError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A length and as many bytes; `None` is null.
    ///
    /// # Errors
    /// The length is negative (other than null), or there are not as many bytes.
    pub fn slice(&mut self) -> Result<Option<&'a [u8]>, JuteError> {
        let length = self.int()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| JuteError::NegativeLength)?;
        let (slice, rest) = self.rest.split_at_checked(length).ok_or(JuteError::Short)?;
        self.rest = rest;
        Ok(Some(slice))
    }

    /// A buffer, copied: what is kept must not keep the frame that it came in.
    ///
    /// # Errors
    /// See [`Self::slice`].
    pub fn buffer(&mut self) -> Result<Option<Bytes>, JuteError> {
        Ok(self.slice()?.map(Bytes::copy_from_slice))
    }

    /// A string that must not be null.
    ///
    /// # Errors
    /// See [`Self::slice`]; or it is null, or not UTF-8.
    pub fn string(&mut self) -> Result<String, JuteError> {
        self.nullable()?.ok_or(JuteError::Null)
    }

    /// A string that may be null.
    ///
    /// # Errors
    /// See [`Self::slice`]; or it is not UTF-8.
    pub fn nullable(&mut self) -> Result<Option<String>, JuteError> {
        let text = self.slice()?.map(std::str::from_utf8).transpose().map_err(|_| JuteError::NotUtf8)?;
        Ok(text.map(ToOwned::to_owned))
    }

    /// A vector whose elements `read` reads, each of which takes at least four bytes; null becomes the empty one.
    ///
    /// # Errors
    /// The length is negative (other than null), there are fewer elements, or `read` fails.
    pub fn vector<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, JuteError>,
    ) -> Result<Vec<T>, JuteError> {
        let length = self.int()?;
        if length == -1 {
            return Ok(Vec::new());
        }
        let length = usize::try_from(length).map_err(|_| JuteError::NegativeLength)?;
        if length > self.rest.len() / 4 {
            return Err(JuteError::Short);
        }
        (0..length).map(|_| read(self)).collect()
    }
}

/// Writes records at the end of a buffer.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut BytesMut,
}

impl<'a> Encoder<'a> {
    /// Writes at the end of `out`.
    #[must_use]
    pub const fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// Writes whether something is true.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.out.put_u8(value.into());
        self
    }

    /// Writes a 32-bit integer.
    pub fn int(&mut self, value: i32) -> &mut Self {
        self.out.put_i32(value);
        self
    }

    /// Writes a 64-bit integer.
    pub fn long(&mut self, value: i64) -> &mut Self {
        self.out.put_i64(value);
        self
    }

    /// Writes a buffer; `None` is null.
    pub fn buffer(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            None => self.int(-1),
            Some(bytes) => {
                self.length(bytes.len());
                self.out.put_slice(bytes);
                self
            }
        }
    }

    /// Writes a string.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.buffer(Some(value.as_bytes()))
    }

    /// Writes what is encoded already.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.put_slice(bytes);
        self
    }

    /// Writes a vector's length; its elements are to follow.
    ///
    /// # Panics
    /// If the length does not fit into 31 bits, which no vector in memory reaches.
    pub fn length(&mut self, length: usize) -> &mut Self {
        self.int(i32::try_from(length).expect("a length fits into 31 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = BytesMut::new();
        Encoder::new(&mut out)
            .int(-7)
            .long(1 << 40)
            .boolean(true)
            .string("zoo")
            .buffer(None)
            .length(1)
            .int(5);
        let mut decoder = Decoder::new(&out);
        assert_eq!(decoder.int(), Ok(-7));
        assert_eq!(decoder.long(), Ok(1 << 40));
        assert_eq!(decoder.boolean(), Ok(true));
        assert_eq!(decoder.string().as_deref(), Ok("zoo"));
        assert_eq!(decoder.buffer(), Ok(None));
        assert_eq!(decoder.vector(Decoder::int), Ok(vec![5]));
        assert!(decoder.is_empty());
        assert_eq!(decoder.int(), Err(JuteError::Short));
    }

    #[test]
    fn lengths_that_lie_are_errors_and_take_no_memory() {
        let lengths: [(i32, JuteError); 3] = [
            (-2, JuteError::NegativeLength),
            (i32::MIN, JuteError::NegativeLength),
            (i32::MAX, JuteError::Short),
        ];
        for (length, error) in lengths {
            let bytes = length.to_be_bytes();
            assert_eq!(Decoder::new(&bytes).buffer(), Err(error));
            assert_eq!(Decoder::new(&bytes).string(), Err(error));
            assert_eq!(Decoder::new(&bytes).vector(Decoder::int), Err(error));
        }
        assert_eq!(Decoder::new(&[0, 0, 0, 2, 0xc3, 0x28]).string(), Err(JuteError::NotUtf8));
    }
}
