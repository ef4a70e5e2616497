//! What the clients of a benchmark do: the same for every system.

use bytes::Bytes;

use crate::args::{BenchArguments, Op};

/// One operation of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// Replace a value.
    Put,
    /// Read what is committed.
    Get,
    /// Read what the asked node has.
    GetLocal,
}

/// Keys that are kept; others are made when they are needed.
const KEPT_KEYS: usize = 100_000;

/// Keys and the value. They live until the process ends: as static data, a copy costs nothing, not even a counter
/// that all threads would fight for.
pub(super) struct Work {
    pub(super) op: Op,
    count: usize,
    /// The first keys.
    kept: Vec<Bytes>,
    pub(super) value: Bytes,
}

impl Work {
    pub(super) fn new(arguments: &BenchArguments) -> Self {
        let forever = |bytes: Vec<u8>| Bytes::from_static(Vec::leak(bytes));
        let kept = (0..arguments.keys.min(KEPT_KEYS)).map(|number| forever(name(number))).collect();
        Self {
            op: arguments.op,
            count: arguments.keys,
            kept,
            value: forever(vec![b'v'; arguments.value_size]),
        }
    }

    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = Bytes> {
        (0..self.count).map(|number| self.key(number))
    }

    /// One of them.
    pub(super) fn first_key(&self) -> Bytes {
        self.key(0)
    }

    fn key(&self, number: usize) -> Bytes {
        self.kept.get(number).cloned().unwrap_or_else(|| name(number).into())
    }

    /// One operation on a random key.
    pub(super) fn next(&self, random: &mut Random) -> (Call, Bytes) {
        let key = self.key(random.below(self.count));
        let call = match self.op {
            Op::Put => Call::Put,
            Op::Get => Call::Get,
            Op::GetLocal => Call::GetLocal,
            Op::Mixed if random.below(10) == 0 => Call::Put,
            Op::Mixed => Call::Get,
        };
        (call, key)
    }

    /// Each operation that clients may do.
    pub(super) const fn calls(&self) -> &'static [Call] {
        match self.op {
            Op::Put => &[Call::Put],
            Op::Get => &[Call::Get],
            Op::GetLocal => &[Call::GetLocal],
            Op::Mixed => &[Call::Put, Call::Get],
        }
    }
}

fn name(number: usize) -> Vec<u8> {
    format!("bench/{number:08}").into_bytes()
}

/// A small generator of random numbers (xorshift), with the same sequence in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: usize) -> Self {
        Self(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed as u64 + 1) | 1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below a usize")]
    const fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_keys_cover_the_whole_range_evenly_enough() {
        let (mut random, mut counts) = (Random::new(3), [0_u32; 10]);
        (0..10_000).for_each(|_| counts[random.below(10)] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
