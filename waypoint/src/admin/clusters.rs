//! `/clusters`: every service port with its endpoints and what each is doing now.

use std::net::SocketAddr;

use cairn_config_schema::snapshot::{ClusterKey, Endpoint, Snapshot};
use serde::Serialize;

use super::state::AdminState;

/// A service port.
#[derive(Serialize)]
pub struct Cluster<'a> {
    /// `namespace/name:port`.
    cluster: String,
    hostname: Option<&'a str>,
    endpoints: Vec<EndpointState<'a>>,
}

#[derive(Serialize)]
struct EndpointState<'a> {
    address: SocketAddr,
    /// `namespace/name` of the pod.
    pod: Option<String>,
    workload: Option<&'a str>,
    /// Who must be at the other end of the tunnel; absent: plain TCP.
    hbone_identity: Option<&'a str>,
    active_requests: Option<u64>,
}

/// The list as JSON.
///
/// # Errors
/// Never in practice: all of it has a JSON form.
pub fn render(state: &AdminState) -> Result<Vec<u8>, serde_json::Error> {
    let snapshot = (state.snapshot)().unwrap_or_default();
    serde_json::to_vec_pretty(&list(&snapshot, &*state.active_requests))
}

/// All clusters of a snapshot, ordered by namespace, name and port.
pub fn list<'a>(
    snapshot: &'a Snapshot,
    active_requests: &dyn Fn(&ClusterKey, SocketAddr) -> Option<u64>,
) -> Vec<Cluster<'a>> {
    let endpoint = |key: &ClusterKey, endpoint: &'a Endpoint| {
        let workload = endpoint.workload.as_deref();
        EndpointState {
            address: endpoint.address,
            pod: workload.map(|w| w.key.to_string()),
            workload: workload.map(|w| &*w.workload_name),
            hbone_identity: endpoint.hbone_identity().map(|i| i.uri()),
            active_requests: active_requests(key, endpoint.address),
        }
    };
    let clusters = snapshot.clusters.iter().map(|(key, endpoints)| Cluster {
        cluster: key.to_string(),
        hostname: snapshot.services.get(&key.service).map(|s| &*s.hostname),
        endpoints: endpoints.iter().map(|e| endpoint(key, e)).collect(),
    });
    clusters.collect()
}
