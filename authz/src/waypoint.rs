//! Who the waypoint is to those who see it as a client: the CNI and the destination's ztunnel.

use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{Snapshot, Workload};

/// Label that istiod and Cairn's controller put on the pods of a Gateway.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The pods of the waypoint itself. Empty: none is in the configuration.
pub fn pods(snapshot: &Snapshot) -> Vec<&Arc<Workload>> {
    let Some(waypoint) = &snapshot.waypoint else {
        return Vec::new();
    };
    let own = &waypoint.origin.key;
    let is_own = |w: &&Arc<Workload>| {
        w.key.namespace == own.namespace && w.label(GATEWAY_NAME) == Some(&own.name)
    };
    let mut pods: Vec<_> = snapshot.workloads.values().filter(is_own).collect();
    pods.sort_by(|a, b| a.key.cmp(&b.key));
    pods.dedup_by(|a, b| a.key == b.key);
    pods
}

/// Who the waypoint is to others: the identity of its pods, else that of the service account with
/// the Gateway's name, which is what istiod gives them (specs/istio-waypoint.md 1.5).
pub fn identity(snapshot: &Snapshot) -> Option<Identity> {
    if let Some(pod) = pods(snapshot).first() {
        return Some(pod.identity.clone());
    }
    let own = &snapshot.waypoint.as_ref()?.origin.key;
    Identity::of_workload(&snapshot.mesh.trust_domain, &own.namespace, &own.name).ok()
}
