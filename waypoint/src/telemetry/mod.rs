//! What operators see of the traffic: metrics and access log. Nothing here decides anything.
//!
//! The life of an exchange. The data path makes an [`exchange::Exchange`] when the first byte of a
//! request or TCP stream is there, and fills it while the work goes on: client, service, route,
//! verdict, endpoint, outcome. At the end, however it came, it hands it to [`finish`], the one exit:
//! counts go to the series of the thread ([`metrics`]), and a line to the access log
//! ([`access_log`]), and what is left of it becomes a flow record ([`flow`]). A scrape adds up the series of all threads and writes their text
//! ([`exposition`]). TCP streams also report while they run ([`tcp`]). What happens outside an
//! exchange, a refused tunnel say, is counted directly in [`counters`].
//!
//! All names of metrics are in [`names`], all label rules in [`labels`].

pub mod access_log;
mod alike;
mod changed;
pub mod changes;
pub mod counters;
pub mod discovery;
pub mod exchange;
pub mod exposition;
pub mod expression;
mod finish;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod flow;
pub mod instruments;
mod kept;
pub mod kubernetes;
pub mod labels;
pub mod metrics;
pub mod names;
pub mod node;
pub mod otlp;
mod policies;
pub mod series;
pub mod settings;
pub mod tcp;
pub(crate) mod text;
pub mod trace;

pub use finish::{finish, finish_with};
