//! What a TrafficPolicy lets through, resolved (issue 3, item 7).

use std::sync::Arc;

use http::header::HeaderName;
use serde::Serialize;

use super::ClusterKey;
use super::route::as_display;
use crate::origin::{ObjectKey, Origin};

/// A TrafficPolicy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrafficLimits {
    /// The policy.
    pub origin: Origin,
    /// What it is for, here.
    pub targets: Vec<LimitTarget>,
    /// Limits that are counted here.
    pub rates: Vec<RateLimit>,
    /// A limit that another service counts.
    pub global: Option<GlobalRateLimit>,
    /// Requests at once.
    pub concurrency: Option<Concurrency>,
    /// It could not be understood, for this reason: its targets are answered 500.
    pub broken: Option<Arc<str>>,
}

/// What a TrafficPolicy is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitTarget {
    /// Everything the waypoint serves.
    Waypoint,
    /// One service.
    Service(ObjectKey),
    /// What the rules of one route match.
    Route(Origin),
}

/// A token bucket, or one for each key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// For metrics and logs.
    pub name: Arc<str>,
    /// Requests in each interval.
    pub requests: u32,
    /// The interval in milliseconds.
    pub interval_ms: u64,
    /// Requests at once after a pause.
    pub burst: u32,
    /// Parts of the key; none: one bucket for all.
    pub by: Vec<LimitKey>,
}

/// A part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitKey {
    /// The identity in the client's certificate.
    PeerIdentity,
    /// The namespace in it.
    PeerNamespace,
    /// The address of the client.
    SourceAddress,
    /// The service that is asked.
    Service,
    /// A header; empty where it is absent.
    Header(#[serde(serialize_with = "as_display")] HeaderName),
}

/// Requests at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Concurrency {
    /// At most so many, in this waypoint.
    pub requests_max: u32,
    /// When there is no room, a service with less than an equal share still comes in.
    pub fair_share: bool,
}

/// A limit that a service of Envoy's rate limit protocol counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GlobalRateLimit {
    /// The service.
    pub cluster: ClusterKey,
    /// Its name for a set of limits.
    pub domain: Arc<str>,
    /// How long an answer may take, connecting included, in milliseconds.
    pub timeout_ms: u64,
    /// A request about which the service is silent passes; otherwise it is answered 500.
    pub fail_open: bool,
    /// What the service is told.
    pub descriptors: Vec<LimitDescriptor>,
}

/// What a service is told: keys and values, in order.
pub type LimitDescriptor = Vec<(Arc<str>, DescriptorValue)>;

/// A value of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DescriptorValue {
    /// Always this.
    Literal(Arc<str>),
    /// Of the request. Without it the whole descriptor is left out.
    Of(LimitKey),
}
