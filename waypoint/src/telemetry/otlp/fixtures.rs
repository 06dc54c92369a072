//! Exchanges that were sampled, for tests.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::telemetry::exchange::Exchange;
use crate::telemetry::fixtures;
use crate::telemetry::trace::Trace;
use crate::telemetry::trace::propagate::Propagation;
use crate::telemetry::trace::sampler::Sampler;
use crate::telemetry::trace::settings::{Receiver, Tag, TagValue, Tracing};

pub(super) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

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
