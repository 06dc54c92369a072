//! Where a waypoint's certificate comes from, and what istiod tells it of workloads: small servers that speak the
//! protocols of Istio's CA, of its discovery and of the SPIFFE Workload API for real, and Cairn between real Envoys
//! (specs/istio-waypoint.md 3, 6).

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod ca;
mod discovery;
mod grpc;
mod istio_ca;
mod istiod;
mod listening;
mod mesh;
mod networks;
mod spiffe;
mod workload_api;
