//! `/clusters`: every service port with its endpoints and what each is doing now; and what a scrape
//! shows of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use cairn_config_schema::snapshot::{ClusterSettings, Endpoint, NetworkGateway, Snapshot};
use cairn_routing::{EjectionCause, Limited, LiveEndpoint};
use prometheus::proto::{self, MetricFamily};
use serde::Serialize;

use super::state::{AdminState, LiveCluster};
use crate::clock::now_ms;
use crate::telemetry::instruments::{family, sample};
use crate::telemetry::names;

/// A service port.
#[derive(Serialize)]
pub struct Cluster<'a> {
    /// `namespace/name:port`.
    cluster: String,
    hostname: Option<&'a str>,
    /// Of a DestinationRule; absent: the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<&'a ClusterSettings>,
    /// What is limited: taken now, at most, refused so far.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<&'static str, Limit>,
    endpoints: Vec<EndpointState<'a>>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    absence: Option<Arc<str>>,
}

#[derive(Serialize)]
struct Limit {
    taken: u32,
    max: u32,
    overflows: u64,
}

#[derive(Serialize)]
struct EndpointState<'a> {
    address: SocketAddr,
    /// `namespace/name` of the pod.
    pod: Option<String>,
    workload: Option<&'a str>,
    /// Who must be at the other end of the tunnel; absent: plain TCP.
    hbone_identity: Option<&'a str>,
    /// It is the gateway of another network: what it is asked for, and who may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<&'a NetworkGateway>,
    active_requests: Option<u32>,
    /// Present while outlier detection leaves it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected: Option<Ejected>,
}

#[derive(Serialize)]
struct Ejected {
    /// Seconds since it was ejected.
    since_s: u64,
    /// How often it was ejected lately.
    times: u32,
}

/// The list as JSON.
///
/// # Errors
/// Never in practice: all of it has a JSON form.
pub fn render(state: &AdminState) -> Result<Vec<u8>, serde_json::Error> {
    let snapshot = (state.snapshot)().unwrap_or_default();
    serde_json::to_vec_pretty(&list(&snapshot, &*state.live_cluster))
}

/// All clusters of a snapshot, ordered by namespace, name and port.
pub fn list<'a>(snapshot: &'a Snapshot, live_cluster: &LiveCluster) -> Vec<Cluster<'a>> {
    let clusters = snapshot.clusters.iter().map(|(key, endpoints)| {
        let live = live_cluster(key);
        let live_endpoints = live.as_ref().map(|live| live.endpoints());
        let endpoint = |endpoint: &'a Endpoint| {
            let mut live = live_endpoints.iter().flat_map(|all| all.iter());
            let live = live.find(|live| live.endpoint == *endpoint);
            describe(endpoint, live)
        };
        // Those that were looked up are in no snapshot.
        let is_found = snapshot.discoveries.contains_key(key);
        let found = live_endpoints.iter().flat_map(|all| all.iter());
        let found = found.filter(|live| is_found && !endpoints.contains(&live.endpoint));
        Cluster {
            cluster: key.to_string(),
            hostname: snapshot.services.get(&key.service).map(|s| &*s.hostname),
            settings: snapshot.cluster_settings.get(key).map(|s| &**s),
            limits: live.as_deref().map(limits).unwrap_or_default(),
            endpoints: endpoints
                .iter()
                .map(endpoint)
                .chain(found.map(looked_up))
                .collect(),
            absence: live.as_ref().and_then(|live| live.absence()),
        }
    });
    clusters.collect()
}

/// An address that a name has: no workload is known behind it.
fn looked_up<'a>(live: &Arc<LiveEndpoint>) -> EndpointState<'a> {
    EndpointState {
        address: live.endpoint.address,
        pod: None,
        workload: None,
        hbone_identity: None,
        gateway: None,
        active_requests: Some(live.active()),
        ejected: ejected(live),
    }
}

fn ejected(live: &LiveEndpoint) -> Option<Ejected> {
    let since_ms = now_ms().saturating_sub(live.health().ejected_at_ms()?);
    Some(Ejected {
        since_s: since_ms / 1_000,
        times: live.health().times_ejected(),
    })
}

fn describe<'a>(endpoint: &'a Endpoint, live: Option<&Arc<LiveEndpoint>>) -> EndpointState<'a> {
    let workload = endpoint.workload.as_deref();
    EndpointState {
        address: endpoint.address,
        pod: workload.map(|w| w.key.to_string()),
        workload: workload.map(|w| &*w.workload_name),
        hbone_identity: endpoint.hbone_identity().map(|i| i.uri()),
        gateway: endpoint.gateway.as_deref(),
        active_requests: live.map(|live| live.active()),
        ejected: live.and_then(|live| ejected(live)),
    }
}

/// The limits that are set.
fn limits(cluster: &cairn_routing::Cluster) -> BTreeMap<&'static str, Limit> {
    let settings = cluster.settings();
    let set = Limited::ALL.into_iter().filter_map(|limited| {
        let limit = Limit {
            taken: cluster.breaker().taken(limited),
            max: limited.most(&settings.limits)?,
            overflows: cluster.breaker().overflows(limited),
        };
        Some((limited.as_str(), limit))
    });
    set.collect()
}

/// What a scrape shows: of clusters with outlier detection or limits, for only those can have
/// anything to show.
pub fn families(state: &AdminState) -> Vec<MetricFamily> {
    let snapshot = (state.snapshot)().unwrap_or_default();
    let mut samples = Samples::default();
    for key in snapshot.cluster_settings.keys() {
        if let Some(cluster) = (state.live_cluster)(key) {
            samples.add(&key.to_string(), &cluster);
        }
    }
    [
        (&names::EJECTIONS, samples.ejections),
        (&names::EJECTED, samples.ejected),
        (&names::LIMIT_TAKEN, samples.taken),
        (&names::LIMIT_MAX, samples.max),
        (&names::LIMIT_OVERFLOWS, samples.overflows),
    ]
    .into_iter()
    .filter(|(_, samples)| !samples.is_empty())
    .map(|(metric, samples)| family(metric, samples))
    .collect()
}

#[derive(Default)]
struct Samples {
    ejections: Vec<proto::Metric>,
    ejected: Vec<proto::Metric>,
    taken: Vec<proto::Metric>,
    max: Vec<proto::Metric>,
    overflows: Vec<proto::Metric>,
}

impl Samples {
    fn add(&mut self, destination: &str, cluster: &cairn_routing::Cluster) {
        if cluster.settings().outlier_detection.is_some() {
            let endpoints = cluster.endpoints();
            let out = endpoints.iter().filter(|e| e.health().is_ejected()).count();
            self.ejected
                .push(sample(&names::EJECTED, &[destination], out as f64));
            self.ejections.extend(EjectionCause::ALL.map(|cause| {
                let total = cluster.ejections().of(cause) as f64;
                sample(&names::EJECTIONS, &[destination, cause.as_str()], total)
            }));
        }
        for (limit, now) in limits(cluster) {
            let labels = [destination, limit];
            self.taken
                .push(sample(&names::LIMIT_TAKEN, &labels, f64::from(now.taken)));
            self.max
                .push(sample(&names::LIMIT_MAX, &labels, f64::from(now.max)));
            let overflows = now.overflows as f64;
            self.overflows
                .push(sample(&names::LIMIT_OVERFLOWS, &labels, overflows));
        }
    }
}
