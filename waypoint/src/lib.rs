//! The waypoint: sockets, TLS, HBONE, the HTTP engine, configuration sources, telemetry, admin and
//! the command line. What is decided is decided in the pure crates; this one carries it out.

pub mod admin;
pub mod cli;
pub mod client;
pub mod client_stream;
pub mod clock;
mod dead_peer;
pub mod demo;
pub mod diff;
pub mod drain;
pub mod explain;
pub mod external;
mod grpc;
mod guarded;
#[cfg(test)]
mod http2_peer;
pub mod hubble;
pub mod identity;
pub mod istiod;
pub mod jwks;
pub mod limits;
pub mod listener;
pub mod log;
mod memory;
pub mod names;
pub mod node;
pub mod outliers;
pub mod pki;
mod priority;
pub mod proxy;
pub mod publish;
pub mod recheck;
pub mod run;
pub mod runtime;
pub mod source;
pub mod telemetry;
pub mod throttle;
pub mod tls;
pub mod tunnel_stream;
pub mod upstream;
pub mod worker;
