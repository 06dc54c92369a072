//! How requests are spread over the endpoints of a cluster, when an endpoint is left out, and how
//! much a cluster takes at once (specs/policies.md 2.7, specs/istio-waypoint.md 4.7). What a
//! DestinationRule and a Service say is resolved to this; nothing here picks or counts.

use std::sync::Arc;

use http::header::HeaderName;
use serde::Serialize;

use super::route::as_display;
use super::{LocalityPreference, ProxyProtocol, RetryBudget, SessionPersistence, TlsOrigination};
use crate::origin::Origin;

/// Everything that holds for one cluster. The default is what an undecorated Service gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClusterSettings {
    /// Which endpoint a request goes to.
    pub balancing: LoadBalancing,
    /// When an endpoint is left out for a while. `None`: never.
    pub outlier_detection: Option<OutlierDetection>,
    /// What the cluster takes at once.
    pub limits: ConnectionLimits,
    /// How long a connection to an endpoint may take to come about, in milliseconds. `None`: as the
    /// mesh configuration says.
    pub connect_timeout_ms: Option<u64>,
    /// TLS of our own towards the endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<TlsOrigination>>,
    /// Endpoints are reached by their tunnel or not at all (`tls.mode: ISTIO_MUTUAL`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tunnel_only: bool,
    /// The endpoint is told first whose connection it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many retries it bears at once.
    pub retry_budget: RetryBudget,
    /// Requests of one session go to one endpoint, unless their rule has sessions of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<SessionPersistence>>,
    /// Set when nothing may be sent there, for this reason: the configuration asks for more safety
    /// than Cairn can give.
    pub refused: Option<Arc<str>>,
    /// The DestinationRule all this is from.
    pub origin: Option<Origin>,
}

/// Which endpoint a request goes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadBalancing {
    /// The algorithm.
    pub balancer: Balancer,
    /// Endpoints of which places are preferred, if the DestinationRule says so. Endpoints have it in
    /// their weight and priority already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<LocalityPreference>,
    /// New endpoints get their share step by step. Honoured by [`Balancer::LeastRequest`] and
    /// [`Balancer::RoundRobin`] alone, as in Istio.
    pub warmup: Option<Warmup>,
    /// Below this share of endpoints that are not ejected, in percent, ejected ones are picked as
    /// well. 0: they are picked only when there is no other (`outlierDetection.minHealthPercent`).
    pub panic_threshold_percent: u8,
}

/// A load-balancing algorithm.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balancer {
    /// Of two random endpoints the one with fewer requests in flight: Istio's default.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The same endpoint for the same key, as long as it is there.
    Hash(ConsistentHash),
}

/// Consistent hashing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConsistentHash {
    /// What the key is taken from. A request without it goes to a random endpoint.
    pub by: HashBy,
    /// How keys are mapped to endpoints.
    pub table: HashTable,
    /// An endpoint with more than this share of the mean number of requests in flight, in percent
    /// (above 100), passes its requests on. `None`: it takes them all.
    pub load_bound_percent: Option<u32>,
}

/// What a hash key is taken from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HashBy {
    /// The value of a request header.
    Header(#[serde(serialize_with = "as_display")] HeaderName),
    /// The value of a cookie.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// `Path` of the cookie that is made.
        path: Option<Arc<str>>,
        /// Made for clients that have none, good for so long, in seconds; 0: for the session.
        /// `None`: never made.
        ttl_s: Option<u64>,
    },
    /// The address of the client.
    SourceIp,
    /// The first value of a query parameter.
    Query(Arc<str>),
}

/// How keys are mapped to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HashTable {
    /// Points on a circle: at least so many in all.
    Ring {
        /// `minimumRingSize`, 1,024 unless told.
        points_min: u32,
    },
    /// Maglev's table.
    Maglev {
        /// Entries; a prime, 65,537 unless told.
        size: u32,
    },
}

/// Slow start: the share of a new endpoint grows from `minimum_percent` to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Warmup {
    /// How long it grows, in milliseconds.
    pub duration_ms: u64,
    /// The share it starts with, in percent of a full one.
    pub minimum_percent: u8,
    /// 1.0: grows evenly; more: fast at first.
    pub aggression: f64,
}

/// When an endpoint is ejected: left out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OutlierDetection {
    /// 5xx answers in a row, failed connections included unless `split_local_origin`. 0: off.
    pub consecutive_5xx: u32,
    /// 502, 503 and 504 in a row. 0: off.
    pub consecutive_gateway_errors: u32,
    /// Failures without an answer are counted by themselves, not as 5xx.
    pub split_local_origin: bool,
    /// Connections that failed or timed out in a row, with `split_local_origin`. 0: off.
    pub consecutive_local_origin_failures: u32,
    /// Ejection of endpoints whose share of good answers is far below the others'. `None`: off.
    pub success_rate: Option<SuccessRate>,
    /// Between two looks at who may come back, and at success rates, in milliseconds.
    pub interval_ms: u64,
    /// An ejection takes this, times how often the endpoint was ejected lately, in milliseconds.
    pub base_ejection_ms: u64,
    /// No ejection takes longer, in milliseconds. Never below `base_ejection_ms`.
    pub ejection_max_ms: u64,
    /// At most this share of the endpoints is out at a time, in percent. One may always be.
    pub ejected_percent_max: u8,
}

/// Ejection by success rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SuccessRate {
    /// With fewer endpoints of enough volume nobody is judged.
    pub hosts_min: u32,
    /// An endpoint with fewer requests in an interval is not judged.
    pub requests_min: u32,
    /// Ejected below the mean minus so many thousandths of the standard deviation.
    pub stdev_factor_thousandths: u32,
}

/// What a cluster takes at once, from all workers together. `None`: without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionLimits {
    /// TCP streams to its endpoints (`connectionPool.tcp.maxConnections`). Requests have limits of
    /// their own: over HTTP/2 they share connections, and none waits for another.
    pub connections_max: Option<u32>,
    /// Requests in flight (`http2MaxRequests`).
    pub requests_max: Option<u32>,
    /// Retries in flight (`maxRetries`).
    pub retries_max: Option<u32>,
}
