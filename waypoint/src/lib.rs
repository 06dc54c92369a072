//! The waypoint: sockets, TLS, HBONE, the HTTP engine, configuration sources, telemetry, admin and
//! the command line. What is decided is decided in the pure crates; this one carries it out.

pub mod cli;
pub mod pki;
pub mod limits;
pub mod telemetry;
