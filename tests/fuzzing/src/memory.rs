//! How much memory a piece of code takes.

#![allow(unsafe_code, reason = "a global allocator that counts is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts what each thread holds, and the most that it held. It is to be a test's global allocator.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let held = HELD.get() + change;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: all requests go to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as above. Zeros that the system has need not be written, so that counting costs nothing there.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above; `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `work` returns, and the most bytes that this thread held meanwhile beyond what it held before.
///
/// # Panics
/// If [`Counting`] is not the global allocator.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    // The name of the thread is memory, too, and other threads count for themselves.
    assert!(is_counting(), "Counting is not the global allocator");
    (result, (PEAK.get() - before).unsigned_abs())
}

thread_local! {
    static IS_COUNTING: Cell<Option<bool>> = const { Cell::new(None) };
}

fn is_counting() -> bool {
    IS_COUNTING.get().unwrap_or_else(|| {
        let (before, peak) = (HELD.get(), PEAK.get());
        let some = std::hint::black_box(Box::new(0_u64));
        let is = HELD.get() > before;
        drop(some);
        PEAK.set(peak);
        IS_COUNTING.set(Some(is));
        is
    })
}
