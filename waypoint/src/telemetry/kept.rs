//! How much all workers keep of what they wrote before, to write it again. Keeps nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many objects all workers keep, and the bytes of what is said of them.
#[derive(Debug, Default)]
pub struct Size {
    objects: AtomicUsize,
    bytes: AtomicUsize,
}

impl Size {
    /// Objects and bytes.
    pub fn get(&self) -> (usize, usize) {
        (self.objects.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// One object among all, as long as it is kept.
#[derive(Debug)]
pub struct Counted {
    bytes: usize,
    of: Arc<Size>,
}

impl Counted {
    /// Counts it.
    pub fn new(bytes: usize, of: &Arc<Size>) -> Self {
        of.objects.fetch_add(1, Relaxed);
        of.bytes.fetch_add(bytes, Relaxed);
        let of = of.clone();
        Self { bytes, of }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of.objects.fetch_sub(1, Relaxed);
        self.of.bytes.fetch_sub(self.bytes, Relaxed);
    }
}
