//! What `translate` writes of policies, asked of the engine beside the original: it never allows what the
//! original denies, and where every part is said to be replaced both judge alike (specs/policies.md 1.7, Y28).

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod generate;
mod mesh;
mod pods;
mod properties;
