//! Text to resources: what is refused, where, and with which words. One file per topic; each test
//! shows a piece of YAML and every finding it gives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod documents;
mod kinds;
mod kubectl;
mod mesh;
mod never_panics;
mod pods;
mod salvage;
mod strict;
mod support;
