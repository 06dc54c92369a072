//! Metrics of what istiod tells of workloads (`--discovery istiod`).

use super::{Metric, counter, gauge};

/// Whether a stream is open.
pub const XDS_CONNECTED: Metric = gauge(
    "cairn_xds_connected",
    "Whether a stream to istiod is open that has told something; shown with --discovery alone",
    &[],
);
/// What is known.
pub const XDS_RESOURCES: Metric = gauge(
    "cairn_xds_resources",
    "Resources that istiod tells of: workloads and services that are known, and those of which the last version was refused",
    &["kind"],
);
/// How large it is.
pub const XDS_BYTES: Metric = gauge(
    "cairn_xds_bytes",
    "Bytes of the resources that are known, as istiod sent them",
    &[],
);
/// Answers.
pub const XDS_RESPONSES: Metric = counter(
    "cairn_xds_responses_total",
    "Answers of istiod that were accepted, or refused in part",
    &["result"],
);
/// Streams that ended.
pub const XDS_ERRORS: Metric = counter(
    "cairn_xds_errors_total",
    "Streams to istiod that ended or did not come to be, by reason",
    &["reason"],
);
