//! Spans, the access log and metrics for OpenTelemetry collectors, by OTLP over gRPC or HTTP.
//!
//! A request pays for a push into a queue, which never waits: [`take`] of an exchange that ended, whole, with
//! copies of a few headers. Everything else happens on a thread of its own: a [`lane`] for each signal and receiver
//! gathers batches, an [`export`] sends them and tries again. What is too much is dropped and counted; a
//! collector that is slow, dead or lying costs a queue of fixed size.
//!
//! The types of the messages are those of the crate opentelemetry-proto; what there are many of, attributes of spans,
//! is written with prost's own means instead ([`pairs`]), and those types are the oracle of its tests. Its sister crates, the SDK and the
//! exporter, are not used: they can not be given connections of this process's own (into the mesh, with TLS
//! of `tls/`), and they tell nobody what they dropped.

mod attributes;
mod conventions;
pub mod endpoint;
pub mod environment;
mod export;
#[cfg(test)]
pub(crate) mod fixtures;
mod grpc;
mod lane;
mod logs;
mod message;
mod metrics;
mod pack;
mod pairs;
pub mod process;
mod queue;
mod spans;
mod thread;
mod transport;

pub use logs::{Line, lines};
pub use queue::{Ended, take, waiting, wants};
pub use thread::{Exports, Parts, prepare, start};
