//! HBONE on the wire (specs/istio-waypoint.md section 2), bytes against `cairn run`: what is refused
//! and with what, what must be tolerated, and what an endpoint is shown. Routing and policy are the
//! business of the golden and end-to-end suites.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod certificates;
mod connect;
mod drain;
mod endpoint;
mod frames;
mod headers;
mod http1;
mod http1_refused;
mod mesh;
mod paths;
mod smuggling;
mod tcp;
mod tls;
mod tunnel;
