//! The kernel redirect on a real kernel: the eBPF program, its loader, and real sockets in network
//! namespaces. Needs root; elsewhere every test says loudly that it is skipped, which REQUIRE_BPF=1
//! makes a failure.

// A panic here is a failed test.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cluster;
mod cost;
mod failure;
mod hang;
mod host;
mod in_host;
mod lab;
mod lifecycle;
mod limits;
mod listed;
mod mesh;
mod nginx;
mod node;
mod object;
mod processes;
mod room;
mod scene;
mod services;
mod sockets;
mod start;
mod steering;
mod tunnelled;
