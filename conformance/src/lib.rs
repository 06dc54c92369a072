//! The laboratory of the black-box suites: processes, certificates, applications, real Envoy as the
//! tunnels on both sides, and Cairn in the middle. Judges nothing; the tests do.
//!
//! Everything lives on loopback: every pod has an address of its own in 127.0.0.0/8, virtual IPs are
//! only ever written into the authority of a CONNECT.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod app;
pub mod authorizer;
pub mod browser;
pub mod cairn;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod dns;
pub mod envoy;
pub mod golden;
pub mod hbone;
pub mod identities;
pub mod lab;
pub mod log_service;
pub mod memory;
pub mod net;
pub mod process;
pub mod prometheus;
pub mod rate_limiter;
pub mod skip;
pub mod workspace;
