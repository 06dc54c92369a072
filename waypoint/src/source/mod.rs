//! Where configuration comes from. Every source ends in the same resources; this module reads and
//! watches, and knows nothing of what the text means.

mod collect;
pub mod files;
mod watch;

pub use files::{Files, SourceFile};
pub use watch::Watch;

#[cfg(test)]
mod tests;
