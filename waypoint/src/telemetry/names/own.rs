//! Cairn's own metrics of itself: connections, configuration, queues, certificates.

use super::{Metric, counter, gauge};

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
/// Access log lines dropped.
pub const ACCESS_LOG_DROPPED: Metric = counter(
    "cairn_access_log_dropped_total",
    "Access log lines dropped because stdout did not keep up",
    &[],
);
/// What workers keep of lines.
pub const ACCESS_LOG_KEPT_BYTES: Metric = gauge(
    "cairn_access_log_kept_bytes",
    "Bytes that workers keep of what lines of the access log have in common, so as not to write it anew",
    &[],
);
/// Flows that a reader did not get.
pub const FLOWS_LOST: Metric = counter(
    "cairn_flows_lost_total",
    "Flows overwritten before a reader of the flow API got them, added up over all readers",
    &[],
);
/// Spans, records and points that collectors took.
pub const OTLP_EXPORTED: Metric = counter(
    "cairn_otlp_exported_total",
    "Spans, access log records and metric points that an OpenTelemetry collector said it took, by signal; an Access Log Service says nothing, see cairn_otlp_streamed_total",
    &["signal"],
);
/// Records that nobody says were taken.
pub const OTLP_STREAMED: Metric = counter(
    "cairn_otlp_streamed_total",
    "Access log records handed to a connection to an Access Log Service, which does not say whether it took them, by signal",
    &["signal"],
);
/// Exchanges dropped before they were sent.
pub const OTLP_DROPPED: Metric = counter(
    "cairn_otlp_dropped_total",
    "Requests and TCP streams of which a collector is not told because a queue was full, by signal",
    &["signal"],
);
/// What was sent in vain.
pub const OTLP_FAILED: Metric = counter(
    "cairn_otlp_failed_total",
    "Spans, access log records and metric points that a collector rejected or did not take in time, by signal",
    &["signal"],
);
/// What waits for collectors.
pub const OTLP_WAITING_BYTES: Metric = gauge(
    "cairn_otlp_waiting_bytes",
    "Bytes of spans and access log records that wait for collectors or are being sent",
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
/// Label sets there are.
pub const SERIES: Metric = gauge(
    "cairn_metric_series",
    "Label sets of metrics that are kept, by the table they are in; each is several series",
    &["table"],
);
/// Label sets forgotten.
pub const SERIES_EXPIRED: Metric = counter(
    "cairn_metric_series_expired_total",
    "Label sets of metrics that were forgotten because nothing was counted in them for long",
    &[],
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
/// Attempts to get an identity.
pub const IDENTITY_ATTEMPTS: Metric = counter(
    "cairn_identity_attempts_total",
    "Attempts to get a certificate, or to load one that changed",
    &["outcome"],
);
/// How it stands with the identity.
pub const IDENTITY_STATE: Metric = gauge(
    "cairn_identity_state",
    "How it stands with the waypoint's certificate: 1 for the state it is in",
    &["state"],
);
/// Expiry of the certificate.
pub const CERTIFICATE_EXPIRY: Metric = gauge(
    "cairn_certificate_expiry_timestamp_seconds",
    "When the waypoint's own certificate expires, seconds since 1970",
    &[],
);
