//! HBONE on the wire (specs/istio-waypoint.md section 2), bytes against `cairn run`: what is refused
//! and with what, what must be tolerated, and what an endpoint is shown. Routing and policy are the
//! business of the golden and end-to-end suites.

// A panic here is a failed test, and a long function a table of cases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines
)]

mod authority;
mod certificates;
mod connect;
mod drain;
mod endpoint;
mod floods;
mod frames;
mod grpc;
mod headers;
mod host;
mod http1;
mod http1_refused;
mod http2_inside;
mod jwks_abuse;
mod jwks_tls;
mod log;
mod mesh;
mod paths;
mod recheck;
mod refusals;
mod smuggling;
mod spoofing;
mod tcp;
mod tls;
mod token;
mod token_envoy;
mod tunnel;
mod upstream_tunnel;
mod workload;
