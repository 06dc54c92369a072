//! Lints on configurations as they are written: what is found, what is left alone, and what it costs.
//! The mistake and its mending for each code are golden cases.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cni;
mod dns;
mod support;
mod time;
