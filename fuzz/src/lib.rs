//! What is fuzzed (issue 4, proof): each target takes any bytes and asserts what must hold for all of
//! them. How they are run, by libFuzzer or over the kept corpus, is in `fuzz_targets/` and `tests/`.
//!
//! There is no target for PROXY headers: Cairn reads none, neither from clients nor from endpoints.

mod authority;
mod cilium_regex;
mod path;
mod snapshot;
mod token;

pub use authority::authority;
pub use cilium_regex::cilium_regex;
pub use path::path;
pub use snapshot::snapshot;
pub use token::{keys, token};

/// A target.
pub type Target = fn(&[u8]);

/// Every target and its name, which is also that of its program and of its corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("authority", authority),
    ("cilium_regex", cilium_regex),
    ("keys", keys),
    ("path", path),
    ("snapshot", snapshot),
    ("token", token),
];
