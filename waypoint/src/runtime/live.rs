//! The clusters of a runtime: what is alive outlives the snapshot, its endpoints and settings do not. Answers no
//! request.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use cairn_config_schema::snapshot::{
    AppProtocol, ClusterKey, Discovery, Endpoint, Service, Snapshot,
};
use cairn_routing::Cluster;
use rustc_hash::FxHashMap;

use super::Runtime;
use crate::clock::now_ms;
use crate::names::Names;
use crate::names::answer::{self, DNS, MeshAddresses};

/// The same cluster with this address for its only endpoint. No identity is expected there and none is
/// shown: what is of the mesh is a Service's, or dialled as a workload.
pub(super) fn dialled(cluster: &Cluster, address: SocketAddr) -> Arc<Cluster> {
    let endpoint = Endpoint::new(address, None);
    let key = cluster.key().clone();
    Arc::new(Cluster::new(key, &[endpoint], cluster.settings(), now_ms()))
}

/// The endpoints of a cluster, those of its names included; and why there are none.
pub(super) fn with_names<'s>(
    snapshot: &Snapshot,
    mesh: &MeshAddresses,
    key: &ClusterKey,
    listed: &'s [Endpoint],
    names: &Names,
) -> (Cow<'s, [Endpoint]>, Option<Arc<str>>) {
    match snapshot.discoveries.get(key).map(|found| &**found) {
        Some(discovery @ Discovery::Names { .. }) => {
            let known = |name: &str| names.known(name);
            let (endpoints, reason) = answer::endpoints(listed, discovery, mesh, known);
            (endpoints.into(), reason)
        }
        Some(Discovery::RequestedHost { suffix, .. }) => {
            let reason = format!("{DNS}the request says which host inside of *{suffix} is meant");
            (listed.into(), Some(reason.into()))
        }
        _ => (listed.into(), None),
    }
}

/// Every cluster of a snapshot: as it was, with the endpoints and settings there are now, or new.
pub(super) fn live_clusters(
    snapshot: &Snapshot,
    previous: Option<&Runtime>,
    mesh: &MeshAddresses,
    names: &Names,
) -> FxHashMap<ClusterKey, Arc<Cluster>> {
    let mut clusters = FxHashMap::default();
    for (key, endpoints) in &snapshot.clusters {
        let settings = snapshot.cluster_settings.get(key).cloned();
        let settings = settings.unwrap_or_default();
        let (endpoints, reason) = with_names(snapshot, mesh, key, endpoints, names);
        let cluster = match previous.and_then(|p| p.clusters.get(key)) {
            Some(live) => {
                live.update(&endpoints, settings, now_ms());
                live.clone()
            }
            None => Arc::new(Cluster::new(key.clone(), &endpoints, settings, now_ms())),
        };
        cluster.explain_absence(reason);
        clusters.insert(key.clone(), cluster);
    }
    clusters
}

/// What the port behind each cluster declares.
pub(super) fn protocols(snapshot: &Snapshot) -> FxHashMap<ClusterKey, AppProtocol> {
    let of_service = |service: &Arc<Service>| {
        let key = service.key.clone();
        let ports: Vec<_> = service
            .ports
            .iter()
            .map(|p| (p.number, p.protocol))
            .collect();
        ports.into_iter().map(move |(port, protocol)| {
            let service = key.clone();
            (ClusterKey::new(service, port), protocol)
        })
    };
    let declared = snapshot.services.values().flat_map(of_service);
    let mut protocols: FxHashMap<ClusterKey, AppProtocol> = declared.collect();
    let subsets = snapshot.clusters.keys().filter(|k| k.subset.is_some());
    for key in subsets {
        let whole = ClusterKey::new(key.service.clone(), key.port);
        if let Some(protocol) = protocols.get(&whole).copied() {
            protocols.insert(key.clone(), protocol);
        }
    }
    protocols
}
