//! Istio's metrics (specs/istio-waypoint.md 5.1) and Hubble's of HTTP (specs/policies.md 3.5).

use prometheus::proto::MetricType as MetricKind;

use super::{Metric, counter, gauge, histogram};

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
/// Messages of gRPC requests.
pub const REQUEST_MESSAGES: Metric = counter(
    "istio_request_messages_total",
    "Messages that gRPC clients sent, counted at the end of a request",
    &HTTP_LABELS,
);
/// Messages of gRPC responses.
pub const RESPONSE_MESSAGES: Metric = counter(
    "istio_response_messages_total",
    "Messages that gRPC clients were sent, counted at the end of a request",
    &HTTP_LABELS,
);

/// Labels of Hubble's metrics of HTTP, as its dashboard by workload needs them.
pub const HUBBLE_LABELS: [&str; 8] = [
    "cluster",
    "reporter",
    "method",
    "status",
    "source_namespace",
    "source_workload",
    "destination_namespace",
    "destination_workload",
];

/// Upper bounds of Hubble's histogram, in seconds: the defaults of Prometheus' client.
pub const HUBBLE_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Requests as Hubble counts them.
pub const HUBBLE_REQUESTS: Metric = counter(
    "hubble_http_requests_total",
    "HTTP requests by their answers, as Cilium's Hubble counts them",
    &HUBBLE_LABELS,
);
/// Their durations.
pub const HUBBLE_DURATION: Metric = Metric {
    name: "hubble_http_request_duration_seconds",
    help: "Time from the first byte of a request to the end of its response, in seconds",
    kind: MetricKind::HISTOGRAM,
    labels: &HUBBLE_LABELS,
};
