//! Every metric: its name, help text and labels. Values live elsewhere, so that this page can be
//! read as the reference of what a scrape gives.

use prometheus::proto::MetricType;

/// How a metric appears in a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name as scraped.
    pub name: &'static str,
    /// One sentence, without a full stop.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// Label names in the order of exposition; `le` of histograms not included.
    pub labels: &'static [&'static str],
}

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric {
        name,
        help,
        kind: MetricType::COUNTER,
        labels,
    }
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Metric {
    Metric {
        name,
        help,
        kind: MetricType::GAUGE,
        labels,
    }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        help,
        kind: MetricType::HISTOGRAM,
        labels: &HTTP_LABELS,
    }
}

// --- Istio's (specs/istio-waypoint.md 5.1)

/// Labels of the HTTP metrics in Istio's order. All are always present: Kiali skips a series that
/// lacks one.
pub const HTTP_LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// Labels of the TCP metrics: those of HTTP without `response_code` and `grpc_response_status`.
pub const TCP_LABELS: [&str; 23] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
];

/// Upper bounds of every histogram, in milliseconds or bytes: Envoy's defaults. `+Inf` follows.
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Requests, counted at their end.
pub const REQUESTS: Metric = counter(
    "istio_requests_total",
    "HTTP and gRPC requests, those denied by policy included",
    &HTTP_LABELS,
);
/// First byte of the request to the last of the response.
pub const REQUEST_DURATION: Metric = histogram(
    "istio_request_duration_milliseconds",
    "Time from the first byte of a request to the end of its response, in milliseconds",
);
/// Bytes of requests.
pub const REQUEST_BYTES: Metric = histogram(
    "istio_request_bytes",
    "Bytes of requests, headers and body, as received from the client",
);
/// Bytes of responses.
pub const RESPONSE_BYTES: Metric = histogram(
    "istio_response_bytes",
    "Bytes of responses, headers and body, as sent to the client",
);
/// TCP streams opened.
pub const TCP_OPENED: Metric = counter(
    "istio_tcp_connections_opened_total",
    "TCP streams opened",
    &TCP_LABELS,
);
/// TCP streams closed.
pub const TCP_CLOSED: Metric = counter(
    "istio_tcp_connections_closed_total",
    "TCP streams closed",
    &TCP_LABELS,
);
/// TCP bytes, waypoint to client.
pub const TCP_SENT: Metric = counter(
    "istio_tcp_sent_bytes_total",
    "Bytes of TCP streams sent to the client",
    &TCP_LABELS,
);
/// TCP bytes, client to waypoint.
pub const TCP_RECEIVED: Metric = counter(
    "istio_tcp_received_bytes_total",
    "Bytes of TCP streams received from the client",
    &TCP_LABELS,
);
/// Always 1.
pub const ISTIO_BUILD: Metric = gauge(
    "istio_build",
    "Version of the proxy, as Istio's components report theirs",
    &["component", "tag"],
);

// --- Cairn's own

/// Always 1.
pub const BUILD_INFO: Metric = gauge("cairn_build_info", "Version of Cairn", &["version"]);
/// CONNECT requests refused.
pub const TUNNEL_REFUSED: Metric = counter(
    "cairn_tunnel_refused_total",
    "CONNECT requests refused before a byte was forwarded",
    &["reason"],
);
/// HTTP requests refused.
pub const REQUEST_REFUSED: Metric = counter(
    "cairn_request_refused_total",
    "HTTP requests refused for what they are, before policy was asked",
    &["reason"],
);
/// TLS handshakes failed.
pub const HANDSHAKE_FAILED: Metric = counter(
    "cairn_handshake_failed_total",
    "Connections that did not become a tunnel",
    &["reason"],
);
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
/// Verdicts of policy.
pub const VERDICTS: Metric = counter(
    "cairn_policy_verdicts_total",
    "Verdicts of policy, by the policy and rule that decided; policy is `default` where none did",
    &["policy", "rule", "outcome"],
);
/// What policies that are tried say.
pub const DRY_RUN: Metric = counter(
    "cairn_policy_dry_run_total",
    "Requests and streams on which a policy that is tried was judged, by what it says",
    &["policy", "rule", "outcome"],
);
/// What would have been answered with everything that is tried.
pub const DRY_RUN_VERDICTS: Metric = counter(
    "cairn_policy_dry_run_verdicts_total",
    "Verdicts there would be with the policies that are tried, beside the verdict that was enforced",
    &["outcome", "enforced"],
);
/// Matches of AUDIT policies.
pub const AUDIT: Metric = counter(
    "cairn_policy_audit_total",
    "Requests and streams that a rule of an AUDIT policy matched",
    &["policy", "rule"],
);
/// What was open and was closed because policy changed.
pub const CLOSED_BY_POLICY: Metric = counter(
    "cairn_closed_by_policy_total",
    "Open streams, upgraded connections and tunnels closed because a new configuration denies them",
    &["kind"],
);
/// What was open and was judged again.
pub const RECHECKED: Metric = counter(
    "cairn_rechecked_total",
    "Open streams, upgraded connections and tunnels judged again because the configuration changed",
    &[],
);
/// Duration of the last recheck.
pub const RECHECK_DURATION: Metric = gauge(
    "cairn_recheck_duration_seconds",
    "How long a worker took to judge again what is open, the last time",
    &[],
);
/// Accepted TCP connections, tunnels or not yet.
pub const CONNECTIONS: Metric = gauge(
    "cairn_downstream_connections",
    "Accepted TCP connections, handshakes in progress included",
    &[],
);
/// Client tunnels.
pub const TUNNELS: Metric = gauge(
    "cairn_downstream_tunnels",
    "Open HBONE tunnels of clients",
    &[],
);
/// Client streams.
pub const STREAMS: Metric = gauge(
    "cairn_downstream_streams",
    "Open CONNECT streams of clients",
    &[],
);
/// Upstream tunnels.
pub const UPSTREAM_TUNNELS: Metric = gauge(
    "cairn_upstream_tunnels",
    "Open HBONE tunnels to destinations",
    &[],
);
/// Streams to endpoints: those with a request and those kept for the next.
pub const UPSTREAM_STREAMS: Metric = gauge(
    "cairn_upstream_streams",
    "Streams and connections to endpoints, with a request on them or kept for the next",
    &[],
);
/// Access log lines dropped.
pub const ACCESS_LOG_DROPPED: Metric = counter(
    "cairn_access_log_dropped_total",
    "Access log lines dropped because stdout did not keep up",
    &[],
);
/// Flows that a reader did not get.
pub const FLOWS_LOST: Metric = counter(
    "cairn_flows_lost_total",
    "Flows overwritten before a reader of the flow API got them, added up over all readers",
    &[],
);
/// Lines of the process's own log dropped.
pub const LOG_DROPPED: Metric = counter(
    "cairn_log_dropped_total",
    "Lines of the log dropped because stderr did not keep up",
    &[],
);
/// Overflow of label sets.
pub const SERIES_OVERFLOW: Metric = counter(
    "cairn_metric_series_overflow_total",
    "Exchanges counted in the series `other` (cause series), and clients whose names in baggage were not taken (cause baggage), because there are too many label sets",
    &["cause"],
);
/// Reloads.
pub const RELOADS: Metric = counter(
    "cairn_config_reloads_total",
    "Times the configuration was read; a failure means that something in it is not in force as written",
    &["result"],
);
/// Duration of the last reload.
pub const RELOAD_DURATION: Metric = gauge(
    "cairn_config_reload_duration_seconds",
    "Time the last reload took, from the change noticed to the snapshot in force",
    &[],
);
/// Version in force.
pub const SNAPSHOT_VERSION: Metric = gauge(
    "cairn_snapshot_version",
    "Version of the snapshot in force",
    &[],
);
/// Findings of the configuration in force.
pub const DIAGNOSTICS: Metric = gauge(
    "cairn_config_diagnostics",
    "Findings about the configuration in force",
    &["severity"],
);
/// L7 policies not enforced as written.
pub const L7_POLICY_UNENFORCED: Metric = gauge(
    "cairn_l7_policy_unenforced",
    "L7 policies that are not enforced as they are written, by kind of the policy and why",
    &["kind", "reason"],
);
/// Expiry of the certificate.
pub const CERTIFICATE_EXPIRY: Metric = gauge(
    "cairn_certificate_expiry_timestamp_seconds",
    "When the waypoint's own certificate expires, seconds since 1970",
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
/// Requests that rate limits saw.
pub const RATE_LIMITED: Metric = counter(
    "cairn_rate_limit_requests_total",
    "Requests that a rate limit of a TrafficPolicy let pass, or limited",
    &["policy", "limit", "outcome"],
);
/// Buckets.
pub const RATE_LIMIT_KEYS: Metric = gauge(
    "cairn_rate_limit_keys",
    "Keys of a rate limit with a bucket of their own that is not full",
    &["policy", "limit"],
);
/// Requests without a bucket of their own.
pub const RATE_LIMIT_SHARED: Metric = counter(
    "cairn_rate_limit_shared_total",
    "Requests that shared a bucket because a rate limit had too many keys",
    &["policy", "limit"],
);
/// Requests in flight under a TrafficPolicy.
pub const CONCURRENCY_TAKEN: Metric = gauge(
    "cairn_concurrency_requests",
    "Requests being answered under the limit of a TrafficPolicy",
    &["policy"],
);
/// That limit.
pub const CONCURRENCY_MAX: Metric = gauge(
    "cairn_concurrency_requests_max",
    "Requests at once that a TrafficPolicy allows",
    &["policy"],
);
/// Refused for it.
pub const CONCURRENCY_REFUSED: Metric = counter(
    "cairn_concurrency_refused_total",
    "Requests refused because a TrafficPolicy allows no more at once",
    &["policy"],
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
/// Tokens found valid.
pub const JWT_VALID: Metric = counter(
    "cairn_jwt_valid_total",
    "HTTP requests with a valid JSON Web Token",
    &[],
);
/// Tokens refused.
pub const JWT_REFUSED: Metric = counter(
    "cairn_jwt_refused_total",
    "HTTP requests refused because of a JSON Web Token that is not valid",
    &[],
);
/// Signatures checked.
pub const JWT_SIGNATURES: Metric = counter(
    "cairn_jwt_signatures_total",
    "Signatures of JSON Web Tokens checked: tokens that are remembered need none",
    &[],
);
/// Fetches of keys.
pub const JWKS_FETCHES: Metric = counter(
    "cairn_jwks_fetches_total",
    "Times keys of token issuers were fetched",
    &["result"],
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
/// Checks by authorization services.
pub const EXT_AUTHZ_CHECKS: Metric = counter(
    "cairn_ext_authz_checks_total",
    "Questions to authorization services",
    &["result"],
);
/// Checks without an answer.
pub const EXT_AUTHZ_ERRORS: Metric = counter(
    "cairn_ext_authz_errors_total",
    "Questions to authorization services without a usable answer",
    &["reason"],
);
/// Checks that wait.
pub const EXT_AUTHZ_WAITING: Metric = gauge(
    "cairn_ext_authz_waiting",
    "Questions to authorization services that wait for their answer",
    &[],
);
/// Bodies held for checks.
pub const EXT_AUTHZ_BODIES: Metric = gauge(
    "cairn_ext_authz_bodies",
    "Bodies of requests that are read or held for authorization services",
    &[],
);
/// Keys in force.
pub const JWKS_KEYS: Metric = gauge(
    "cairn_jwks_keys",
    "Keys in force of a source; without any, every token of it is refused",
    &["source"],
);
/// Age of keys.
pub const JWKS_AGE: Metric = gauge(
    "cairn_jwks_age_seconds",
    "Time since the keys in force of a source were fetched",
    &["source"],
);

// --- The node agent's; only `cairn node` has them

/// Pods by state.
pub const NODE_PODS: Metric = gauge(
    "cairn_node_pods",
    "Pods of this node: served; unserved, with nobody listening; failed, listed and not enrolled; earlier, known to the kernel from before",
    &["state"],
);
/// Services by state.
pub const NODE_SERVICES: Metric = gauge(
    "cairn_node_services",
    "Service ports that need a proxy: flagged in the kernel, or left_out, so that their connections go direct past policy",
    &["state"],
);
/// Fill of the kernel's maps.
pub const NODE_MAP_ENTRIES: Metric = gauge(
    "cairn_node_map_entries",
    "Entries in the kernel's maps of the redirect",
    &["map"],
);
/// Room of the kernel's maps.
pub const NODE_MAP_LIMIT: Metric = gauge(
    "cairn_node_map_limit",
    "Entries that the kernel's maps of the redirect have room for",
    &["map"],
);
/// What became of flagged connections.
pub const NODE_CONNECTIONS: Metric = counter(
    "cairn_node_connections_total",
    "Connections to flagged services as the kernel decided while they connected, since its maps were made",
    &["outcome"],
);
/// What happened to those who serve.
pub const NODE_EVENTS: Metric = counter(
    "cairn_node_events_total",
    "What the watchdog of the node agent noticed",
    &["event"],
);
