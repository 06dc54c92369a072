//! Exchanges that were sampled, for tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};

use super::endpoint::Signal;
use super::environment::Batching;
use super::pack::Parcel;
use super::process::Process;
use super::queue::Queue;
use crate::telemetry::exchange::{Exchange, Headers, Seen};
use crate::telemetry::fixtures;
use crate::telemetry::trace::Trace;
use crate::telemetry::trace::propagate::Propagation;
use crate::telemetry::trace::sampler::Sampler;
use crate::telemetry::trace::settings::{Receiver, Tag, TagValue, Tracing};

pub(super) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// As of the environment.
pub(super) fn batching(queue_max: usize, batch_max: usize) -> [Batching; 2] {
    let batching = Batching {
        queue_max,
        batch_max,
        delay: Duration::from_secs(5),
    };
    [batching; 2]
}

/// An exchange that took a while, without headers.
pub(super) fn seen(exchange: &Exchange, elapsed: Duration) -> Seen<'_> {
    Seen {
        exchange,
        elapsed,
        headers: Headers::default(),
    }
}

/// Everything that is in a queue, with the signal it is for.
pub(super) fn drained(queue: &Queue) -> Vec<(Signal, Vec<Parcel>)> {
    let mut all = Vec::new();
    queue.close();
    queue.drain(Instant::now(), |batch| {
        all.push((batch.to.signal, batch.pack.finish()));
    });
    all
}

/// The only message of a signal that is told of an exchange; `logs`: the access log is asked for.
pub(super) fn told(
    exchange: &Exchange,
    elapsed: Duration,
    process: Process,
    (signal, logs): (Signal, bool),
) -> Parcel {
    let queue = Queue::new(process, batching(8, 8), logs);
    queue.tell(&mut queue.join(), &seen(exchange, elapsed));
    let all = drained(&queue).into_iter().filter(|(of, _)| *of == signal);
    let mut parcels: Vec<Parcel> = all.flat_map(|(_, parcels)| parcels).collect();
    assert_eq!(parcels.len(), 1);
    parcels.remove(0)
}

/// What traces everything.
pub(super) fn tracing(tags: Vec<Tag>) -> Arc<Tracing> {
    Arc::new(Tracing {
        sampler: Sampler::parent_or(1.0),
        propagation: Propagation::default(),
        tags,
        reports: true,
        istio_tags: true,
        receiver: Receiver::Environment,
    })
}

/// [`fixtures::http`], with a client's trace, span 1, and no attempt yet.
pub(crate) fn sampled() -> Exchange {
    let mut exchange = fixtures::http();
    let literal = Tag {
        name: "env".into(),
        value: TagValue::Literal("lab".into()),
    };
    let headers = HeaderMap::from_iter([(
        "traceparent".parse().unwrap(),
        HeaderValue::from_static(TRACEPARENT),
    )]);
    exchange.trace = Trace::begin(&headers, &tracing(vec![literal]), || 1);
    exchange
}
