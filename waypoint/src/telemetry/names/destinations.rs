//! Cairn's own metrics of what is behind it: attempts, endpoints, limits of destinations, names.

use super::{Metric, counter, gauge};

/// Retries made.
pub const RETRIES: Metric = counter(
    "cairn_retries_total",
    "Attempts after the first, by what was wrong with the one before",
    &["cause"],
);
/// Retries not made.
pub const RETRIES_DENIED: Metric = counter(
    "cairn_retries_denied_total",
    "Failed attempts that their route would have retried and that were not, by reason",
    &["reason"],
);
/// Faults injected.
pub const FAULTS: Metric = counter(
    "cairn_faults_injected_total",
    "Requests that a VirtualService delayed or aborted on purpose",
    &["kind"],
);
/// Copies of requests.
pub const MIRRORED: Metric = counter(
    "cairn_mirrored_total",
    "Copies of requests for mirrors, by what became of them",
    &["outcome"],
);
/// Upstream tunnels.
pub const UPSTREAM_TUNNELS: Metric = gauge(
    "cairn_upstream_tunnels",
    "Open HBONE tunnels to destinations",
    &[],
);
/// Tunnels inside of tunnels.
pub const INNER_TUNNELS: Metric = gauge(
    "cairn_inner_tunnels",
    "Open tunnels to services of other networks, each inside of a stream of the tunnel to the gateway there",
    &[],
);
/// Streams to endpoints: those with a request and those kept for the next.
pub const UPSTREAM_STREAMS: Metric = gauge(
    "cairn_upstream_streams",
    "Streams and connections to endpoints, with a request on them or kept for the next",
    &[],
);
/// Destinations with a name.
pub const UPSTREAM_DESTINATIONS: Metric = gauge(
    "cairn_upstream_destinations",
    "Destinations that connections to endpoints are kept by",
    &[],
);
/// Ejections by outlier detection.
pub const EJECTIONS: Metric = counter(
    "cairn_endpoint_ejections_total",
    "Endpoints left out for a while by outlier detection, for services that have it",
    &["destination", "cause"],
);
/// Endpoints ejected now.
pub const EJECTED: Metric = gauge(
    "cairn_endpoints_ejected",
    "Endpoints that outlier detection leaves out now, for services that have it",
    &["destination"],
);
/// Places taken under a limit.
pub const LIMIT_TAKEN: Metric = gauge(
    "cairn_destination_limit_taken",
    "What a destination has in flight of what its DestinationRule limits",
    &["destination", "limit"],
);
/// The limits themselves.
pub const LIMIT_MAX: Metric = gauge(
    "cairn_destination_limit_max",
    "What a destination may have in flight by its DestinationRule",
    &["destination", "limit"],
);
/// Refused because of a limit.
pub const LIMIT_OVERFLOWS: Metric = counter(
    "cairn_destination_limit_overflows_total",
    "Requests, retries and streams refused because a limit of their destination was reached",
    &["destination", "limit"],
);
/// Files for TLS towards endpoints.
pub const TLS_FILES: Metric = counter(
    "cairn_tls_files_total",
    "Times files for TLS towards endpoints were read anew",
    &["result"],
);
/// Lookups of names.
pub const DNS_LOOKUPS: Metric = counter(
    "cairn_dns_lookups_total",
    "Names of endpoints looked up",
    &["result"],
);
/// Names that are followed.
pub const DNS_NAMES: Metric = gauge(
    "cairn_dns_names",
    "Names of endpoints that are looked up again when their answers expire",
    &[],
);
/// Names that had to go.
pub const DNS_CROWDED_OUT: Metric = counter(
    "cairn_dns_names_crowded_out_total",
    "Names inside of wildcards that were forgotten or not looked up for lack of room",
    &["state"],
);
