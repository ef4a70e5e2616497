//! Bounds on what decoding may allocate.
//!
//! postcard decodes what it is told to: a frame of tiny elements can become a structure many times its size. Each
//! sequence on the wire therefore has a bound on its length, and all the sequences of one frame share a budget of
//! bytes for their elements (DESIGN 10).

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// What the elements of a frame's sequences may take beyond a multiple of the frame's size.
const BASE: usize = 8 << 20;

/// The multiple of the frame's size that the elements of its sequences may take.
const FACTOR: usize = 4;

/// Elements that are reserved for up front, whatever length the sequence claims.
const RESERVE: usize = 64;

thread_local! {
    /// What is left for the frame that this thread is decoding. serde offers no way to hand a context to
    /// `deserialize_with`; decoding is synchronous, so a thread holds at most one frame's budget.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Gives the frame that is about to be decoded on this thread its budget.
pub(crate) fn grant(frame_length: usize) {
    LEFT.set(BASE + FACTOR * frame_length);
}

/// Decodes a sequence of at most `MAX` elements, charging their memory to the frame's budget before it is taken.
pub(crate) fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

struct Bounded<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        const { assert!(size_of::<T>() > 0, "a sequence of zero-sized elements has no bound in bytes") };
        let claimed = seq.size_hint().unwrap_or(0);
        if claimed > MAX {
            return Err(A::Error::invalid_length(claimed, &self));
        }
        let mut elements = Vec::with_capacity(claimed.min(RESERVE));
        while let Some(element) = seq.next_element()? {
            let left =
                LEFT.get().checked_sub(size_of::<T>()).ok_or_else(|| A::Error::custom("over budget"))?;
            LEFT.set(left);
            if elements.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}
