//! Bounds on what decoding may allocate.
//!
//! postcard decodes what it is told to: a frame of tiny elements can become a structure many times its size. Each
//! sequence on the wire therefore has a bound on its length, and all the sequences of one frame share a budget of
//! bytes for their elements (DESIGN 10).

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

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
    deserializer.deserialize_seq(Bounded::<T, T, MAX> { cost: size_of::<T>(), element: PhantomData })
}

/// As [`bounded`], for elements that are shared: each costs its pointer, two counters and itself.
pub(crate) fn bounded_shared<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<Arc<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let cost = size_of::<Arc<T>>() + 2 * size_of::<usize>() + size_of::<T>();
    deserializer.deserialize_seq(Bounded::<T, Arc<T>, MAX> { cost, element: PhantomData })
}

/// Decodes each element as a `T` and keeps it as an `E`, which takes `cost` bytes.
struct Bounded<T, E, const MAX: usize> {
    cost: usize,
    element: PhantomData<(T, E)>,
}

impl<'de, T: Deserialize<'de>, E: From<T>, const MAX: usize> Visitor<'de> for Bounded<T, E, MAX> {
    type Value = Vec<E>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<E>, A::Error> {
        const { assert!(size_of::<T>() > 0, "a sequence of zero-sized elements has no bound in bytes") };
        let claimed = seq.size_hint().unwrap_or(0);
        if claimed > MAX {
            return Err(A::Error::invalid_length(claimed, &self));
        }
        let mut elements = Vec::with_capacity(claimed.min(RESERVE));
        while let Some(element) = seq.next_element::<T>()? {
            let left = LEFT.get().checked_sub(self.cost).ok_or_else(|| A::Error::custom("over budget"))?;
            LEFT.set(left);
            if elements.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            elements.push(E::from(element));
        }
        Ok(elements)
    }
}
