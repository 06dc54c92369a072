//! Whom the egress part of network policies is about: the clients it selects, and what they may be
//! after (specs/policies.md 2.4: a connection passes the source's egress and the destination's
//! ingress). What it says is read in `network_cilium` and `network_calico`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::network::{Selected, Selecting, same_policies, view};
use super::workloads::Pods;
use crate::origin::ObjectKey;
use crate::resources::{Loaded, Resources};
use crate::snapshot::{
    Binding, ClusterKey, Criteria, Destination, DestinationAddress, DestinationPlace, Discovery,
    Egress, Endpoint, Family, LabelView, NetworkSubject, Peer, Peers, Workload,
};

/// Stands for the name of a Pod that is not known.
const ANY_POD: &str = "*";

/// Finds the clients of all policies and the destinations of all ports.
pub(super) fn resolve(
    resources: &Resources,
    policies: &[Selecting],
    clusters: &BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    discoveries: &BTreeMap<ClusterKey, Arc<Discovery>>,
    pods: &Pods,
) -> Egress {
    if policies.is_empty() {
        return Egress::default();
    }
    let asked = Asked::of(policies);
    let services = match asked.services {
        true => services(clusters),
        false => Services::default(),
    };
    let destinations = Destinations {
        resources,
        asked,
        services,
    };
    let of_cluster = |(key, endpoints): (&ClusterKey, &Arc<[Endpoint]>)| {
        let found_later = discoveries.get(key).map(|discovery| &**discovery);
        let behind = destinations.behind(key, endpoints, found_later);
        (key.clone(), behind)
    };
    let served = pods.by_address.iter();
    let served = served.filter(|(_, workload)| workload.binding == Binding::Served);
    Egress {
        destinations: clusters.iter().map(of_cluster).collect(),
        workloads: served
            .map(|(ip, workload)| (*ip, destinations.workload(workload, *ip, None)))
            .collect(),
        ..clients(resources, policies, pods)
    }
}

/// The clients, without destinations.
fn clients(resources: &Resources, policies: &[Selecting], pods: &Pods) -> Egress {
    let mut egress = Egress::default();
    let mut shared: Vec<Arc<NetworkSubject>> = Vec::new();
    let mut share = |subject: NetworkSubject| {
        let same = |other: &&Arc<NetworkSubject>| {
            other.unknown == subject.unknown
                && other.unknown_in_trial == subject.unknown_in_trial
                && same_policies(&other.policies, &subject.policies)
        };
        if let Some(there) = shared.iter().find(same) {
            return there.clone();
        }
        let new = Arc::new(subject);
        shared.push(new.clone());
        new
    };
    // A client of another cluster is known by its certificate alone.
    let here = pods.by_address.iter();
    for (ip, workload) in here.filter(|(_, workload)| workload.labels.is_some()) {
        let selected = Selected::by_view(&view(workload), policies);
        let subject = selected.subject(&workload.key, None);
        egress.clients.extend(subject.map(|s| (*ip, share(s))));
    }
    let nameless = |view: LabelView<'_>, policies: &[&Selecting]| {
        let key = ObjectKey::new(view.namespace.unwrap_or_default(), ANY_POD);
        let selected = Selected::by_view(&view, policies.iter().copied());
        selected.subject(&key, None).map(Arc::new)
    };
    let all: Vec<&Selecting> = policies.iter().collect();
    let namespace = |s: &&Selecting| s.policy.origin.key.namespace.clone();
    let written = resources.namespaces.values().filter_map(Loaded::object);
    let labels: BTreeMap<_, _> = written
        .map(|n| (n.origin.key.name.clone(), &*n.meta.labels))
        .collect();
    let mut namespaces: BTreeSet<Arc<str>> = all.iter().map(namespace).collect();
    namespaces.extend(labels.keys().cloned());
    for name in namespaces.into_iter().filter(|name| !name.is_empty()) {
        let view = LabelView {
            namespace: Some(&name),
            namespace_labels: labels.get(&name).copied(),
            ..LabelView::default()
        };
        egress.namespaces.insert(name.clone(), nameless(view, &all));
    }
    let clusterwide = all.iter().copied().filter(|s| namespace(s).is_empty());
    egress.elsewhere = nameless(LabelView::default(), &clusterwide.collect::<Vec<_>>());
    egress.unidentified = nameless(LabelView::default(), &all);
    egress
}

/// What policies ask of destinations beyond labels.
#[derive(Clone, Copy)]
struct Asked {
    addresses: bool,
    services: bool,
}

impl Asked {
    fn of(policies: &[Selecting]) -> Self {
        let rules = || policies.iter().flat_map(|s| &s.policy.rules);
        let by_address = |c: &Criteria| {
            let nets = c.nets.is_some() || !c.not_nets.is_empty() || c.ip_version.is_some();
            nets || !c.sets.is_empty() || !c.not_sets.is_empty()
        };
        Self {
            addresses: rules().any(|rule| match &rule.peers {
                Peers::Criteria(criteria) => by_address(criteria),
                Peers::AnyOf(_) | Peers::Anybody => false,
            }),
            services: rules().any(|rule| match &rule.peers {
                Peers::Criteria(criteria) => criteria.services.is_some(),
                Peers::AnyOf(peers) => peers.iter().any(|p| matches!(p, Peer::Services(_))),
                Peers::Anybody => false,
            }),
        }
    }
}

/// The Services of each Pod.
type Services = FxHashMap<ObjectKey, Vec<ObjectKey>>;

fn services(clusters: &BTreeMap<ClusterKey, Arc<[Endpoint]>>) -> Services {
    let mut services = Services::default();
    for (key, endpoints) in clusters {
        for workload in endpoints.iter().filter_map(|e| e.workload.as_ref()) {
            let of_pod = services.entry(workload.key.clone()).or_default();
            if !of_pod.contains(&key.service) {
                of_pod.push(key.service.clone());
            }
        }
    }
    services
}

/// What is found when it is asked for: somebody outside, at an address of either family, of which only
/// the name is known; or at the one that the client dials, whatever name it is declared for.
fn outside(key: &ClusterKey, discovery: &Discovery) -> Vec<Destination> {
    let (addresses, host): (&[_], _) = match discovery {
        Discovery::DialledAddress { .. } => (&[DestinationAddress::Dialled], None),
        Discovery::Names { .. } | Discovery::RequestedHost { .. } => (
            &[
                DestinationAddress::Found(Family::V4),
                DestinationAddress::Found(Family::V6),
            ],
            Some(key.service.name.clone()),
        ),
    };
    let mut ports: Vec<u16> = match discovery {
        Discovery::Names { names, .. } => names.iter().map(|named| named.port).collect(),
        Discovery::RequestedHost { port, .. } | Discovery::DialledAddress { port } => vec![*port],
    };
    ports.sort_unstable();
    ports.dedup();
    let destination = |(port, address): (u16, DestinationAddress)| Destination {
        address,
        port: Some(port),
        workload: None,
        place: DestinationPlace::Outside,
        host: host.clone(),
        services: vec![key.service.clone()],
    };
    let each = |port| addresses.iter().map(move |address| (port, *address));
    ports.into_iter().flat_map(each).map(destination).collect()
}

struct Destinations<'a> {
    resources: &'a Resources,
    asked: Asked,
    services: Services,
}

impl Destinations<'_> {
    /// What is behind a service port, each kind of it once.
    fn behind(
        &self,
        key: &ClusterKey,
        endpoints: &[Endpoint],
        found_later: Option<&Discovery>,
    ) -> Arc<[Destination]> {
        let mut found = found_later.map_or_else(Vec::new, |found| outside(key, found));
        for endpoint in endpoints {
            let ip = endpoint.address.ip().to_canonical();
            let destination = match &endpoint.workload {
                Some(workload) => self.workload(workload, ip, endpoint.target_port()),
                None => self.nameless(key, ip, endpoint.address.port()),
            };
            if !found.iter().any(|other| self.same(other, &destination)) {
                found.push(destination);
            }
        }
        found.into()
    }

    fn workload(
        &self,
        workload: &Arc<Workload>,
        address: IpAddr,
        port: Option<u16>,
    ) -> Destination {
        Destination {
            address: DestinationAddress::At(address),
            port,
            workload: Some(workload.clone()),
            place: DestinationPlace::Inside(workload.key.namespace.clone()),
            host: None,
            services: self
                .services
                .get(&workload.key)
                .cloned()
                .unwrap_or_default(),
        }
    }

    fn nameless(&self, key: &ClusterKey, address: IpAddr, port: u16) -> Destination {
        // What is no Service is a host of a ServiceEntry, and what it lists without a workload is outside.
        let service = self.resources.services.get(&key.service);
        let has_selector = service.is_some_and(|loaded| {
            let service = loaded.object();
            service.is_none_or(|service| service.spec.has_selector())
        });
        Destination {
            address: DestinationAddress::At(address),
            port: Some(port),
            workload: None,
            host: service.is_none().then(|| key.service.name.clone()),
            place: match has_selector {
                true => DestinationPlace::Inside(key.service.namespace.clone()),
                false => DestinationPlace::Outside,
            },
            services: vec![key.service.clone()],
        }
    }

    /// Whether no policy tells one from the other.
    fn same(&self, one: &Destination, other: &Destination) -> bool {
        let (Some(a), Some(b)) = (&one.workload, &other.workload) else {
            return one == other;
        };
        one.port == other.port
            && one.services == other.services
            && (!self.asked.addresses || one.address == other.address)
            && a.labels == b.labels
            && a.identity == b.identity
            && a.account() == b.account()
            && a.namespace_labels == b.namespace_labels
            && a.named_ports == b.named_ports
            && (a.hbone, a.host_network) == (b.hbone, b.host_network)
    }
}
