//! Metrics of the node agent; only `cairn node` has them.

use super::{Metric, counter, gauge};

/// Pods by state.
pub const NODE_PODS: Metric = gauge(
    "cairn_node_pods",
    "Pods of this node: served; unserved, with nobody listening; failed, listed and not enrolled; earlier, known to the kernel from before; with pods from the API server also awaited, overdue, lingering, left_out",
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
