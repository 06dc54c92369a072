//! Spans, the access log and metrics for OpenTelemetry collectors, by OTLP over gRPC or HTTP.
//!
//! A request pays for its spans and records being written, once, into a buffer of its worker ([`tell`], [`queue`]), while
//! all that they tell of is at hand: to hand the exchange over to another thread, which has none of it in its caches and
//! gives its memory back from afar, took several times as long. Everything else happens on a thread of its own: a
//! [`lane`] for each signal and receiver puts messages together, an [`export`] sends them and tries again. What is too
//! much is dropped and counted; a collector that is slow, dead or lying costs a queue of fixed size.
//!
//! The types of the messages are those of the crate opentelemetry-proto; what there are many of, spans and records,
//! is written with prost's own means instead ([`pairs`]), and those types are the oracle of its tests. Its sister crates,
//! the SDK and the exporter, are not used: they can not be given connections of this process's own (into the mesh, with
//! TLS of `tls/`), and they tell nobody what they dropped.

mod attributes;
mod conventions;
pub mod endpoint;
pub mod entries;
pub mod environment;
mod export;
#[cfg(test)]
pub(crate) mod fixtures;
mod grpc;
mod known;
mod lane;
mod logs;
mod message;
mod metrics;
mod pack;
mod pairs;
pub mod process;
mod queue;
mod spans;
mod spares;
mod thread;
mod transport;

pub use queue::{known, let_go, of_snapshot, tell, waiting};
pub use thread::{Exports, Parts, prepare, start};
