//! How many replicas of a waypoint there are, and how many may be away at once.

use serde_json::{Value, json};

use super::{GATEWAY_NAME, Names};
use crate::controller::gateways::Managed;

/// Two at least: with one, the loss of a node is an outage of everything behind the waypoint.
pub(super) fn autoscaler(names: &Names) -> Value {
    json!({"spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.name},
        "minReplicas": 2,
        "maxReplicas": 10,
        "metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80},
        }}],
    }})
}

/// Not `minAvailable: 1`, which keeps the node of an only replica from ever being drained.
pub(super) fn disruption_budget(gateway: &Managed) -> Value {
    json!({"spec": {
        "maxUnavailable": 1,
        "selector": {"matchLabels": {GATEWAY_NAME: &*gateway.key.name}},
    }})
}
