//! Samples of who allocates, taken around another allocator while somebody asks for them. Allocates nothing of its own
//! meanwhile, and names no functions. Beside that, what the program's code takes of memory (`program`).
//!
//! While nobody asks, each call costs one load and a branch. While somebody does, each thread counts the bytes that it
//! allocates down to a moment drawn by chance, on average [`PERIOD_BYTES`] away, as Go, tcmalloc and jemalloc do; what
//! is allocated then is noted with its stack, until it is freed.

mod amount;
mod program;
mod sample;
mod table;

use std::alloc::{GlobalAlloc, Layout};

pub use amount::Amount;
pub use program::give_back_code;
pub use sample::{PERIOD_BYTES, Taking, start};
pub use table::{Room, Sampled, Stack};

/// An allocator that is watched while somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched<A>(A);

impl<A> Watched<A> {
    /// Watches this one.
    pub const fn new(allocator: A) -> Self {
        Self(allocator)
    }
}

// Never inline: what is done beside each call would be in every place that allocates, 1.5 MB of the program.
// SAFETY: every call is handed to the allocator inside with the arguments it came with, and its answer is returned. What
// is done beside that neither allocates nor unwinds, and never looks into the memory.
#[allow(unsafe_code, reason = "this is how an allocator is declared")]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Watched<A> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: what the caller promised to us, it promised to it.
        let at = unsafe { self.0.alloc(layout) };
        if let Some(number) = sample::taken() {
            sample::allocated(number, at.addr(), layout.size());
        }
        at
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let at = unsafe { self.0.alloc_zeroed(layout) };
        if let Some(number) = sample::taken() {
            sample::allocated(number, at.addr(), layout.size());
        }
        at
    }

    #[inline(never)]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // Before it is given back: a moment later the address may be another's.
        if let Some(number) = sample::taken() {
            sample::freed(number, at.addr());
        }
        // SAFETY: as above.
        unsafe { self.0.dealloc(at, layout) };
    }

    #[inline(never)]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(number) = sample::taken() else {
            // SAFETY: as above.
            return unsafe { self.0.realloc(at, layout, new_size) };
        };
        let before = sample::freed(number, at.addr());
        // SAFETY: as above.
        let moved = unsafe { self.0.realloc(at, layout, new_size) };
        if moved.is_null() {
            // It is where it was.
            sample::kept(number, at.addr(), before);
        } else {
            sample::allocated(number, moved.addr(), new_size);
        }
        moved
    }
}
