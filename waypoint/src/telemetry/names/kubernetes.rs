//! Metrics of the watch of the API server; only `cairn run --kube` has them.

use super::{Metric, counter, gauge};

/// Whether a kind is being watched.
pub const KUBE_CONNECTED: Metric = gauge(
    "cairn_kube_connected",
    "Whether a watch of the kind is open; kinds that the API server does not have are not shown",
    &["kind"],
);
/// Objects by kind.
pub const KUBE_OBJECTS: Metric = gauge(
    "cairn_kube_objects",
    "Objects of the kind that are known",
    &["kind"],
);
/// Lists after the first.
pub const KUBE_RELISTS: Metric = counter(
    "cairn_kube_relists_total",
    "Times a kind was listed again, because the API server no longer knew where its watch stood",
    &["kind"],
);
/// Failures by reason.
pub const KUBE_ERRORS: Metric = counter(
    "cairn_kube_watch_errors_total",
    "Lists and watches that failed, by reason",
    &["reason"],
);
/// Time since anything was heard.
pub const KUBE_QUIET: Metric = gauge(
    "cairn_kube_last_event_age_seconds",
    "Time since the API server last told anything of the kind; it does so about every minute",
    &["kind"],
);
/// How long changes waited.
pub const KUBE_PACE: Metric = gauge(
    "cairn_kube_publish_pause_seconds",
    "How long changes of endpoints wait for others now, so that putting them in force takes a few percent of a core",
    &[],
);
/// Age of the state that is in force.
pub const KUBE_STATE_AGE: Metric = gauge(
    "cairn_kube_state_age_seconds",
    "Age of the stored state that is in force until the API server is read; 0: what the API server says is",
    &[],
);
/// Times the state was stored.
pub const KUBE_STATE_STORED: Metric = counter(
    "cairn_kube_state_stored_total",
    "Times what the API server says was stored under --state-dir",
    &["result"],
);
