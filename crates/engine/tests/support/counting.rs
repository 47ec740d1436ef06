//! An allocator that counts: the system's, with the number of blocks, and of bytes, that each thread has asked of it.
//!
//! Invariant: every call goes on as it came, and counting allocates nothing (a cell without a destructor, made at compile
//! time), so it may run inside the allocator and until the thread is gone.
#![allow(unsafe_code, unreachable_pub, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static BLOCKS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

/// To be set as the global allocator.
pub struct Counting;

/// How many blocks this thread asks for, or asks to be made larger or smaller, while `work` runs.
#[allow(dead_code)]
pub fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = BLOCKS.get();
    work();
    BLOCKS.get() - before
}

/// How many bytes this thread asks for while `work` runs; of a block that is made larger or smaller its whole new size.
#[allow(dead_code)]
pub fn bytes_of(work: impl FnOnce()) -> u64 {
    let before = BYTES.get();
    work();
    BYTES.get() - before
}

fn count(bytes: usize) {
    BLOCKS.set(BLOCKS.get() + 1);
    BYTES.set(BYTES.get() + bytes as u64);
}

// SAFETY: every call goes to the system's allocator as it came; counting touches nothing that was allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: the caller keeps the contract of `realloc`; the block is the system's.
        unsafe { System.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is the system's, with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}
