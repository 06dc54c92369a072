//! What `translate` writes, what it refuses, and what it says of each part: by examples. That what it writes
//! never allows more is asked of the engine in `authz/tests/translate`.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cilium;
mod guards;
mod istio;
mod routes;
mod support;
mod unready;
