//! What `translate` writes of routes, asked of the engine beside the original: every request is answered, sent on
//! and changed as before, whatever was written and whatever stayed (specs/policies.md 1.7, Y28).

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cases;
mod envoy;
mod istio;
mod matches;
mod properties;
mod requests;
mod world;
