//! Where configuration comes from. Every source ends in the same resources; this module reads and
//! watches, and knows nothing of what the text means.

mod collect;
pub mod files;
pub mod istiod;
pub mod kube;
mod watch;

pub use files::{Files, SourceFile};
pub use watch::Watch;

use std::collections::BTreeSet;
use std::sync::Arc;

/// Files beside another source: which of them are gone, for only that source knows what else there is.
#[derive(Debug, Default)]
pub struct Beside {
    known: BTreeSet<Arc<str>>,
}

impl Beside {
    /// The paths that were there the last time and are not now.
    pub fn gone(&mut self, files: &[SourceFile]) -> Vec<Arc<str>> {
        let now: BTreeSet<Arc<str>> = files.iter().map(|file| file.path.clone()).collect();
        let before = std::mem::replace(&mut self.known, now);
        before.difference(&self.known).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
