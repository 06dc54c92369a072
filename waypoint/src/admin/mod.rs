//! The endpoints for operators: metrics, readiness, and on loopback what the waypoint has in mind.
//! They run on a thread of their own, so that neither a scrape nor a dump takes a worker's time.
//!
//! Three addresses, as Istio's (specs/istio-waypoint.md 1.6): metrics (15020), readiness (15021) and
//! admin (15000, loopback). What each serves is the table in `answer`.

mod answer;
mod clusters;
mod config_dump;
mod limits;
mod page;
mod readiness;
mod server;
mod state;

pub use answer::scrape;
pub use readiness::{NotReady, Readiness};
pub use server::{Addresses, Server, Surface};
pub use state::{AdminState, LiveCluster, Reload, SetLogFilter};

#[cfg(test)]
mod tests;
