//! Endpoints of every service port, from EndpointSlices (specs/istio-waypoint.md 4.1). Kubernetes has
//! already resolved named target ports: a slice's port has the name of the service port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::workloads::Pods;
use super::{Findings, Options, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::kube::{EndpointSliceSpec, ServiceSpec, SliceEndpoint};
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{
    ClusterKey, Endpoint, Locality, Service, ServicePort, Whereabouts, Workload,
};

type Slices<'a> = FxHashMap<(&'a str, &'a str), Vec<&'a Object<EndpointSliceSpec>>>;

/// What a service's endpoints are picked by.
struct Picking<'a> {
    service: &'a Object<ServiceSpec>,
    pods: &'a Pods,
    /// The node that endpoints must be on.
    node: Option<&'a str>,
}

/// Endpoints that may receive traffic, for every port of every service; sorted, without doubles.
pub(super) fn resolve(
    resources: &Resources,
    options: &Options,
    services: &BTreeMap<ObjectKey, Service>,
    pods: &Pods,
    findings: &mut Findings,
) -> BTreeMap<ClusterKey, Arc<[Endpoint]>> {
    let slices = by_service(resources, findings);
    let mut clusters = BTreeMap::new();
    for (key, service) in services {
        let Some(object) = resources.services.get(key).and_then(Loaded::object) else {
            continue;
        };
        let own = slices
            .get(&(&*key.namespace, &*key.name))
            .map_or(&[][..], Vec::as_slice);
        if own.is_empty() && object.spec.has_selector() && !object.spec.external_name {
            let finding = Diagnostic::warning(
                Code::NoEndpoints,
                format!("Service {key} has a selector but no EndpointSlice"),
            )
            .with_effect("requests to it are answered 503")
            .with_hint("in files, EndpointSlices are not derived from Pods: write them too, or export them with kubectl");
            findings.push(object.mark(finding, "spec.selector"));
        }
        let picking = Picking {
            service: object,
            pods,
            node: local_node(object, options, findings),
        };
        for port in &service.ports {
            let cluster = ClusterKey::new(key.clone(), port.number);
            clusters.insert(cluster, picking.endpoints(port, own, findings));
        }
    }
    clusters
}

/// Addresses of pods that are no workloads: those that can not be read, and those that EndpointSlices
/// alone know of. Pods in the network of their node have the node's address, which is no pod's.
pub(super) fn unidentified(resources: &Resources, pods: &Pods) -> BTreeSet<IpAddr> {
    let mut found: BTreeSet<IpAddr> = pods.unknown_addresses.iter().copied().collect();
    let slices = resources.endpoint_slices.values();
    let endpoints = slices
        .filter_map(Loaded::object)
        .flat_map(|slice| &slice.spec.endpoints);
    for endpoint in endpoints {
        let is_of_pod = |pod: &ObjectKey| !pods.by_key.get(pod).is_some_and(|w| w.host_network);
        if endpoint.pod.as_ref().is_some_and(is_of_pod) {
            let addresses = endpoint.addresses.iter().copied();
            found.extend(addresses.filter(|ip| !pods.by_address.contains_key(ip)));
        }
    }
    found
}

fn by_service<'a>(resources: &'a Resources, findings: &mut Findings) -> Slices<'a> {
    let mut slices = Slices::default();
    for loaded in resources.endpoint_slices.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                let service = &*object.spec.service_name;
                let namespace = &*object.origin.key.namespace;
                if service.is_empty() {
                    continue;
                }
                let key = ObjectKey::new(namespace, service);
                if !resources.services.contains_key(&key) {
                    let finding = Diagnostic::new(
                        Severity::Info,
                        Code::ParentNotFound,
                        format!("there is no Service {key} for this EndpointSlice"),
                    )
                    .with_effect("nothing uses its endpoints");
                    findings.push(object.mark(finding, ""));
                }
                slices.entry((namespace, service)).or_default().push(object);
            }
            Loaded::Broken(broken) => {
                findings.push(unreadable(broken, "its endpoints receive nothing"))
            }
        }
    }
    slices
}

/// `internalTrafficPolicy: Local` keeps to endpoints of the waypoint's own node.
fn local_node<'a>(
    object: &Object<ServiceSpec>,
    options: &'a Options,
    findings: &mut Findings,
) -> Option<&'a str> {
    if !object.spec.internal_traffic_policy_local {
        return None;
    }
    if options.node.is_none() {
        let finding = Diagnostic::warning(
            Code::Unsupported,
            "internalTrafficPolicy: Local can not be honoured, for the name of this node is unknown",
        )
        .with_effect("endpoints of all nodes receive traffic");
        findings.push(object.mark(finding, "spec.internalTrafficPolicy"));
    }
    options.node.as_deref()
}

impl Picking<'_> {
    fn endpoints(
        &self,
        port: &ServicePort,
        slices: &[&Object<EndpointSliceSpec>],
        findings: &mut Findings,
    ) -> Arc<[Endpoint]> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut named = false;
        for slice in slices {
            let numbers = slice.spec.ports.iter().filter(|p| p.name == port.name);
            for number in numbers.filter_map(|p| p.port) {
                named = true;
                for endpoint in &slice.spec.endpoints {
                    endpoints.extend(self.endpoint(slice, endpoint, number, findings));
                }
            }
        }
        if !named && slices.iter().any(|slice| !slice.spec.endpoints.is_empty()) {
            let key = &self.service.origin.key;
            let finding = Diagnostic::warning(
                Code::NoEndpoints,
                match &*port.name {
                    "" => format!("no EndpointSlice of {key} has a port without a name"),
                    name => format!("no EndpointSlice of {key} has a port named '{name}'"),
                },
            )
            .with_effect(format!(
                "requests to {key}:{} are answered 503",
                port.number
            ))
            .with_hint("ports of EndpointSlices have the names of the Service's ports");
            findings.push(self.service.mark(finding, "spec.ports"));
        }
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        endpoints.into()
    }

    fn endpoint(
        &self,
        slice: &Object<EndpointSliceSpec>,
        endpoint: &SliceEndpoint,
        port: u16,
        findings: &mut Findings,
    ) -> Option<Endpoint> {
        if !endpoint.ready && !self.service.spec.publish_not_ready_addresses {
            return None;
        }
        let address = *endpoint.addresses.first()?;
        let of_pod = endpoint.pod.as_ref();
        if of_pod.is_some_and(|pod| self.pods.unknown.contains(pod))
            || self.pods.unknown_addresses.contains(&address)
        {
            let finding = Diagnostic::error(
                Code::NoEndpoints,
                format!("the identity of the pod at {address} is unknown"),
            )
            .with_effect("this endpoint receives nothing");
            findings.push(slice.mark(finding, ""));
            return None;
        }
        let by_name = of_pod.and_then(|pod| self.pods.by_key.get(pod));
        let workload: Option<&Arc<Workload>> = by_name
            .filter(|workload| workload.addresses.contains(&address))
            .or_else(|| self.pods.by_address.get(&address))
            // Files may have Pods without a status; better a pin too strict than plain text.
            .or(by_name);
        if of_pod.is_some() && workload.is_none() {
            let finding = Diagnostic::warning(
                Code::BadValue,
                "pods that this EndpointSlice names are not in the configuration",
            )
            .with_effect("they are reached by plain TCP, without mTLS");
            findings.push(slice.mark(finding, ""));
        }
        let on_node = endpoint
            .node
            .as_deref()
            .or_else(|| workload.map(|workload| &*workload.node));
        if self.node.is_some_and(|node| on_node != Some(node)) {
            return None;
        }
        let address = SocketAddr::new(address, port);
        Some(Endpoint {
            whereabouts: whereabouts(endpoint, on_node, workload, self.told(workload)),
            ..Endpoint::new(address, workload.cloned())
        })
    }

    /// Where istiod says that a pod is.
    fn told(&self, workload: Option<&Arc<Workload>>) -> Option<&Locality> {
        self.pods.localities.get(&workload?.key)
    }
}

/// Where an endpoint is: by its slice, else by the labels of its pod, which newer Kubernetes and Istio
/// put there; and what neither says as istiod tells it, unless it tells of another zone.
fn whereabouts(
    endpoint: &SliceEndpoint,
    node: Option<&str>,
    workload: Option<&Arc<Workload>>,
    told: Option<&Locality>,
) -> Option<Arc<Whereabouts>> {
    let label = |key: &str| workload?.label(key).cloned();
    let whole = label("istio-locality").map(|text| Locality::parse(&text.replace('.', "/")));
    let whole = whole.unwrap_or_default();
    let part = |written: Option<Arc<str>>, key: &str, whole: Arc<str>| {
        written.or_else(|| label(key)).unwrap_or(whole)
    };
    let zone = endpoint.zone.clone();
    let mut locality = Locality {
        region: part(None, "topology.kubernetes.io/region", whole.region),
        zone: part(zone, "topology.kubernetes.io/zone", whole.zone),
        subzone: part(None, "topology.istio.io/subzone", whole.subzone),
    };
    if let Some(told) = told {
        locality.complete(told);
    }
    let found = Whereabouts {
        locality,
        node: node.unwrap_or_default().into(),
        for_zones: endpoint.for_zones.to_vec(),
    };
    (found != Whereabouts::default()).then(|| Arc::new(found))
}
