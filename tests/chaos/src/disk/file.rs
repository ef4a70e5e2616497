//! A file's bytes: what a reader sees, and what a loss of power leaves of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Files are kept in pages of this size. Those that were never written take no memory.
pub(super) const PAGE: usize = 4096;

/// What a disk writes as one.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    now: Bytes,
    durable: Bytes,
    /// Pages that may differ between the two.
    dirty: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
struct Bytes {
    size: u64,
    pages: BTreeMap<u64, Page>,
}

impl Content {
    /// Its size as a reader sees it.
    pub(super) fn size(&self) -> u64 {
        self.now.size
    }

    /// Whether writing there would need room that the file does not have yet.
    pub(super) fn grows(&self, offset: u64, length: usize) -> bool {
        pages(offset, length).any(|page| !self.now.pages.contains_key(&page))
    }

    /// Bytes of memory that its pages take, as a disk would count them.
    pub(super) fn allocated(&self) -> u64 {
        self.now.pages.len() as u64 * PAGE as u64
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let left = usize::try_from(self.now.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        let length = bytes.len();
        for page in pages(offset, length) {
            let Some(stored) = self.now.pages.get(&page) else { continue };
            let (inside, outside) = overlap(page, offset, length);
            bytes[outside.clone()].copy_from_slice(&stored[inside..inside + outside.len()]);
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for page in pages(offset, bytes.len()) {
            let stored = self.now.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            let (inside, outside) = overlap(page, offset, bytes.len());
            Arc::make_mut(stored)[inside..inside + outside.len()].copy_from_slice(&bytes[outside]);
            self.dirty.insert(page);
        }
        self.now.size = self.now.size.max(offset + bytes.len() as u64);
    }

    /// Cuts or extends the file.
    pub(super) fn resize(&mut self, size: u64) {
        if size < self.now.size {
            let first_gone = size.div_ceil(PAGE as u64);
            let gone = self.now.pages.split_off(&first_gone);
            self.dirty.extend(gone.into_keys());
            let inside = usize::try_from(size % PAGE as u64).expect("below a page");
            if inside > 0
                && let Some(last) = self.now.pages.get_mut(&(size / PAGE as u64))
            {
                Arc::make_mut(last)[inside..].fill(0);
                self.dirty.insert(size / PAGE as u64);
            }
        }
        self.now.size = size;
    }

    /// Makes what a reader sees durable.
    pub(super) fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            match self.now.pages.get(&page) {
                Some(stored) => drop(self.durable.pages.insert(page, Arc::clone(stored))),
                None => drop(self.durable.pages.remove(&page)),
            }
        }
        self.durable.size = self.now.size;
    }

    /// Whether anything was not synced.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.now.size != self.durable.size
    }

    /// Loses what was not synced: all of it, or with `luck` any of its sectors, each with an even chance.
    pub(super) fn lose(&mut self, luck: Option<&mut fastrand::Rng>) {
        let dirty = std::mem::take(&mut self.dirty);
        let written = std::mem::replace(&mut self.now, self.durable.clone());
        if let Some(rng) = luck {
            for page in dirty {
                let Some(new) = written.pages.get(&page) else { continue };
                let mut mixed = self.now.pages.get(&page).map_or([0; PAGE], |old| **old);
                for sector in (0..PAGE).step_by(SECTOR).filter(|_| rng.bool()) {
                    mixed[sector..sector + SECTOR].copy_from_slice(&new[sector..sector + SECTOR]);
                }
                self.now.pages.insert(page, Arc::new(mixed));
            }
            // Pages behind the end are not there, whatever was written to them.
            let size = if rng.bool() { written.size } else { self.durable.size };
            self.now.size = u64::MAX;
            self.resize(size);
        }
        // What the disk holds after a loss of power is all there is.
        self.sync();
        self.durable = self.now.clone();
    }

    /// Changes bits of one byte, on the disk as well as in what a reader sees.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let (page, inside) =
            (offset / PAGE as u64, usize::try_from(offset % PAGE as u64).expect("below a page"));
        for bytes in [&mut self.now, &mut self.durable] {
            if let Some(stored) = bytes.pages.get_mut(&page) {
                Arc::make_mut(stored)[inside] ^= mask;
            }
        }
    }

    /// The offset after the last byte that is not zero.
    pub(super) fn used(&self) -> u64 {
        let used = self.now.pages.iter().rev().find_map(|(&page, stored)| {
            let last = stored.iter().rposition(|&byte| byte != 0)?;
            Some(page * PAGE as u64 + last as u64 + 1)
        });
        used.unwrap_or(0)
    }
}

/// The pages that these bytes touch.
fn pages(offset: u64, length: usize) -> std::ops::Range<u64> {
    if length == 0 {
        return 0..0;
    }
    offset / PAGE as u64..(offset + length as u64).div_ceil(PAGE as u64)
}

/// Where in a page, and where in the bytes, they meet.
fn overlap(page: u64, offset: u64, length: usize) -> (usize, std::ops::Range<usize>) {
    let start = page * PAGE as u64;
    let from = offset.max(start);
    let to = (offset + length as u64).min(start + PAGE as u64);
    let small = |number: u64| usize::try_from(number).expect("within a request");
    (small(from - start), small(from - offset)..small(to - offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_also_across_pages_and_holes() {
        let mut content = Content::default();
        content.write(4090, b"across the edge");
        content.write(20_000, b"far");
        assert_eq!(content.read(4090, 15), b"across the edge");
        assert_eq!(content.read(4088, 4), [0, 0, b'a', b'c']);
        assert_eq!((content.size(), content.read(19_999, 100)), (20_003, b"\0far".to_vec()));
        content.resize(4094);
        content.resize(5000);
        assert_eq!(content.read(4090, 8), b"acro\0\0\0\0");
    }

    #[test]
    fn only_what_was_synced_outlives_a_loss_of_power() {
        let mut content = Content::default();
        content.write(0, b"synced");
        content.sync();
        content.write(0, b"SYN");
        content.write(9000, b"new");
        assert!(content.is_dirty());
        content.lose(None);
        assert_eq!((content.size(), content.read(0, 10)), (6, b"synced".to_vec()));
        assert!(!content.is_dirty());
    }

    #[test]
    fn with_luck_sectors_of_what_was_not_synced_stay_and_those_that_were_synced_always_do() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..50 {
            let mut content = Content::default();
            content.write(0, &[1; 2 * PAGE]);
            content.sync();
            content.write(100, &[2; 1000]);
            content.lose(Some(&mut fastrand::Rng::with_seed(seed)));
            let bytes = content.read(0, 2 * PAGE);
            assert!(bytes[..100].iter().chain(&bytes[1100..]).all(|&byte| byte == 1));
            assert!(bytes[100..512].iter().all(|&byte| byte == bytes[100]), "a sector is written as one");
            kept += usize::from(bytes[600] == 2);
            lost += usize::from(bytes[600] == 1);
        }
        assert!(kept > 5 && lost > 5, "{kept} kept, {lost} lost");
    }

    #[test]
    fn a_flipped_byte_stays_flipped() {
        let mut content = Content::default();
        content.write(5000, b"abc");
        content.sync();
        assert_eq!(content.used(), 5003);
        content.flip(5001, 0x20);
        content.lose(None);
        assert_eq!(content.read(5000, 3), b"aBc");
    }
}
