//! Metrics of the controller; only `cairn controller` has them.

use super::{Metric, counter, gauge};

/// Whether this replica writes.
pub const CONTROLLER_LEADING: Metric = gauge(
    "cairn_controller_leading",
    "Whether this replica of the controller is the one that writes",
    &[],
);
/// Elections won.
pub const CONTROLLER_ELECTIONS: Metric = counter(
    "cairn_controller_elections_total",
    "How often this replica became the one that writes",
    &[],
);
/// Gateways of ours.
pub const CONTROLLER_GATEWAYS: Metric = gauge(
    "cairn_controller_gateways",
    "Gateways that the controller sees to",
    &[],
);
/// Work ahead.
pub const CONTROLLER_QUEUE: Metric = gauge(
    "cairn_controller_queue",
    "Gateways and statuses that wait to be seen to, or are being seen to",
    &[],
);
/// Work that failed.
pub const CONTROLLER_FAILURES: Metric = counter(
    "cairn_controller_failures_total",
    "Times that seeing to a Gateway or a status failed and was put off",
    &[],
);
/// Requests that write.
pub const CONTROLLER_WRITES: Metric = counter(
    "cairn_controller_writes_total",
    "Requests to the API server that may change something, by what became of them",
    &["outcome"],
);
/// States of the cluster that were read.
pub const CONTROLLER_READS: Metric = counter(
    "cairn_controller_reads_total",
    "States of the cluster that were read and resolved",
    &[],
);
/// Time of that.
pub const CONTROLLER_READ_SECONDS: Metric = counter(
    "cairn_controller_read_seconds_total",
    "Time that reading and resolving states of the cluster took",
    &[],
);
