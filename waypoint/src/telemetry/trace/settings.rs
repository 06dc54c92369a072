//! What is to be traced, how often, with which tags, and for whom: one of these for each way that the
//! configuration asks for. Read on the request path, made off it.

use std::sync::Arc;

use cairn_config_schema::snapshot::{Collector, EntryLog, OtelLog};
use http::header::HeaderName;

use super::propagate::Propagation;
use super::sampler::Sampler;

/// Tracing as configured for some requests.
#[derive(Debug)]
pub struct Tracing {
    /// Which traces are kept.
    pub sampler: Sampler,
    /// Forms of the context.
    pub propagation: Propagation,
    /// Tags beside the usual ones.
    pub tags: Vec<Tag>,
    /// Spans are made; otherwise the context is told on and nothing else.
    pub reports: bool,
    /// Istio's own tags are in spans.
    pub istio_tags: bool,
    /// Who gets them.
    pub receiver: Receiver,
}

/// Who gets what is exported.
#[derive(Clone, Debug, PartialEq)]
pub enum Receiver {
    /// Whom the variables OTEL_* name.
    Environment,
    /// A provider of the mesh configuration.
    Collector(Arc<Collector>),
    /// A provider of the mesh configuration, for access logs.
    Log(Arc<OtelLog>),
    /// The same, for entries of Envoy's Access Log Service.
    Entries(Arc<EntryLog>),
}

impl Receiver {
    /// Whether it is the other, which it mostly is by its address already.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Environment, Self::Environment) => true,
            (Self::Collector(a), Self::Collector(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::Log(a), Self::Log(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::Entries(a), Self::Entries(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }
}

/// A tag of every span of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub value: TagValue,
}

/// Where the value of a tag comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagValue {
    /// The same for all.
    Literal(Arc<str>),
    /// A header of the request as it came.
    Header {
        /// Which one.
        name: HeaderName,
        /// For requests without it; none: they have no such tag.
        default: Option<Arc<str>>,
    },
}
