//! What is around the objects that are translated: the pods behind Services, who else leads to them, what
//! there is already. Decides nothing of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Source;
use super::behind::{self, Behind};
use super::strangers::{self, Stranger};
use crate::diagnostics::Location;
use crate::identity::Identity;
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resolve;
use crate::resources::kube::PodSpec;
use crate::resources::{Loaded, Object, Place, Resources};
use crate::snapshot::{
    Action, Backend, BackendTarget, Binding, ClusterKey, Direction, Endpoint, Filter, HttpRule,
    LabelView, Policy, PolicyRule, Selecting, Service, Snapshot, Source as SourceOfRule, Standing,
    StringMatch, Surface, Truth, Values, Workload,
};

/// What there is.
pub(super) struct Ground<'a> {
    pub resources: &'a Resources,
    pub snapshot: &'a Snapshot,
    pub options: &'a resolve::Options,
    pub waypoint: Option<&'a Identity>,
    pub behind: Behind,
    /// Clients that Cilium does not know by labels.
    pub strangers: Vec<Stranger>,
    /// Why it is not known who is behind what.
    pub unread: Option<String>,
    routed: BTreeMap<ObjectKey, String>,
}

impl<'a> Ground<'a> {
    pub fn new(source: Source<'a>) -> Self {
        let snapshot = source.snapshot;
        Self {
            resources: source.resources,
            snapshot,
            options: source.options,
            waypoint: source.waypoint,
            behind: Behind::new(source.resources, snapshot),
            strangers: strangers::all(source.resources),
            unread: behind::unread(source.resources),
            routed: routed(snapshot),
        }
    }

    /// Whether a workload is a Pod, and no WorkloadEntry.
    pub fn is_pod(&self, workload: &Workload) -> bool {
        let pod = self.resources.pods.get(&workload.key);
        let addresses = |pod: &Arc<Object<PodSpec>>| pod.spec.pod_ips.to_vec();
        let own = pod.and_then(Loaded::object).map(addresses);
        own.is_some_and(|own| workload.addresses.iter().all(|ip| own.contains(ip)))
    }

    /// Pods that are known by no address, with what is known of them. Those in the network of their
    /// node are not selected by policies of pods.
    pub fn unaddressed(&self) -> impl Iterator<Item = (&'a ObjectKey, LabelView<'a>)> {
        let known: BTreeSet<&ObjectKey> =
            self.snapshot.workloads.values().map(|w| &w.key).collect();
        let pods = behind::running(self.resources).filter(|pod| !pod.spec.host_network);
        let pods = pods.filter(move |pod| !known.contains(&pod.origin.key));
        pods.map(|pod| {
            let view = LabelView {
                pod: Some(&pod.meta.labels),
                namespace: Some(&pod.origin.key.namespace),
                ..LabelView::default()
            };
            (&pod.origin.key, view)
        })
    }

    /// The endpoints of a service port.
    pub fn endpoints(&self, service: &ObjectKey, port: u16) -> &'a [Endpoint] {
        let key = ClusterKey::new(service.clone(), port);
        let found = self.snapshot.clusters.get(&key);
        found.map_or(&[][..], |endpoints| &endpoints[..])
    }

    /// The pods behind a Service, each once.
    pub fn pods_of(&self, service: &Service) -> Vec<&'a Arc<Workload>> {
        let ports = service.ports.iter();
        let endpoints = ports.flat_map(|port| self.endpoints(&service.key, port.number));
        let mut pods: Vec<_> = endpoints.filter_map(|e| e.workload.as_ref()).collect();
        pods.sort_by(|a, b| a.key.cmp(&b.key));
        pods.dedup_by(|a, b| a.key == b.key);
        pods
    }

    /// Why policy of a Service and policy of the pods behind it are not two words for the same.
    pub fn unusable(&self, key: &ObjectKey) -> Option<String> {
        let Some(service) = self.snapshot.services.get(key) else {
            return Some(format!("there is no Service {key} in the input"));
        };
        if service.is_entry() {
            return Some(format!(
                "{key} is a host of a ServiceEntry, and has no pods"
            ));
        }
        if service.binding != Binding::Served {
            return Some(format!(
                "the waypoint does not serve Service {key}, so that no policy for it is enforced"
            ));
        }
        if let Some(why) = self.routed.get(key) {
            return Some(format!(
                "{why}: policy of the Service and policy of its pods are not asked about the same requests"
            ));
        }
        let mut pods = 0;
        for port in &service.ports {
            let cluster = ClusterKey::new(key.clone(), port.number);
            if self.snapshot.discoveries.contains_key(&cluster) {
                return Some(format!(
                    "endpoints of Service {key} are found while it runs"
                ));
            }
            for endpoint in self.endpoints(key, port.number) {
                match &endpoint.workload {
                    Some(pod) if !self.is_pod(pod) => {
                        return Some(format!(
                            "endpoint {} of Service {key} is a workload outside of Kubernetes",
                            endpoint.address
                        ));
                    }
                    Some(pod) if !pod.host_network => pods += 1,
                    Some(pod) => {
                        return Some(format!(
                            "Pod {} behind Service {key} is in the network of its node, where policies of pods do not hold",
                            pod.key
                        ));
                    }
                    None => {
                        return Some(format!(
                            "endpoint {} of Service {key} is no Pod of the input",
                            endpoint.address
                        ));
                    }
                }
            }
        }
        let late = self.behind.unready(key).cloned();
        late.or_else(|| (pods == 0).then(|| format!("no Pod of the input is behind Service {key}")))
    }

    /// An ALLOW policy of a Service that is in force.
    pub fn allowing(&self, service: &'a Service) -> Option<&'a Arc<Policy>> {
        let mut policies = in_force(service);
        policies.find(|policy| policy.action == Action::Allow)
    }

    /// An ingress policy of the CNI that is in force and selects one of the pods, as far as is known.
    pub fn isolating(&self, pods: &[&Arc<Workload>]) -> Option<&'a Origin> {
        let selects = |selecting: &Selecting| {
            is_cilium_ingress(selecting)
                && pods
                    .iter()
                    .any(|pod| selecting.selects(&view(pod)) != Truth::No)
        };
        let mut of_cilium = self.snapshot.network.all.iter();
        let of_cilium = of_cilium.find(|s| selects(s)).map(|s| &s.policy.origin);
        of_cilium.or_else(|| self.isolating_of_kubernetes(pods))
    }

    /// A NetworkPolicy of Kubernetes on what comes in that selects one of the pods, as far as is known.
    /// They are united with Cilium's (specs/policies.md 2.1.3).
    pub fn isolating_of_kubernetes(&self, pods: &[&Arc<Workload>]) -> Option<&'a Origin> {
        let mut policies = self.snapshot.kube_network.iter();
        let found = policies.find(|policy| {
            let speaks = policy.ingress.is_some() || policy.broken.is_some();
            speaks
                && pods.iter().any(|pod| {
                    let own = pod.key.namespace == policy.origin.key.namespace;
                    own && policy.selector.holds(&|key| view(pod).of_pod(key)) != Truth::No
                })
        });
        found.map(|policy| &policy.origin)
    }

    /// A policy of ztunnel that allows connections to one of the pods, as far as is known.
    pub fn let_in_by_ztunnel(&self, pods: &[&Arc<Workload>]) -> Option<&'a Origin> {
        let mut policies = self.of_ztunnel(pods);
        let found = policies.find(|policy| policy.action == Action::Allow);
        found.map(|policy| &policy.origin)
    }

    /// A policy of ztunnel that keeps somebody from one of the pods whom the waypoint lets through: any, but
    /// for those that let the waypoint in and ask for nothing else.
    pub fn kept_out_by_ztunnel(&self, pods: &[&Arc<Workload>]) -> Option<&'a Origin> {
        let mut policies = self.of_ztunnel(pods);
        let found = policies.find(|policy| !self.only_closes(policy));
        found.map(|policy| &policy.origin)
    }

    /// The policies of ztunnel for one of the pods, as far as is known.
    fn of_ztunnel(&self, pods: &[&Arc<Workload>]) -> impl Iterator<Item = &'a Policy> {
        let policies = self.snapshot.ztunnel.iter().filter(|policy| {
            let namespace = policy.namespace.as_ref();
            pods.iter().any(|pod| {
                namespace.is_none_or(|n| *n == pod.key.namespace)
                    && policy.selector.holds(&|key| view(pod).of_pod(key)) != Truth::No
            })
        });
        policies.map(|policy| &*policy.policy)
    }

    /// Whether a policy is what `closing` writes: the waypoint is let in, whatever it brings.
    fn only_closes(&self, policy: &Policy) -> bool {
        let Some(waypoint) = self.waypoint else {
            return false;
        };
        let only = SourceOfRule {
            principals: Values {
                any_of: vec![StringMatch::Exact(waypoint.principal().into())],
                none_of: Vec::new(),
            },
            ..SourceOfRule::default()
        };
        let closes = |rule: &PolicyRule| {
            rule.broken.is_none()
                && rule.to.is_empty()
                && rule.when.is_empty()
                && matches!(rule.from.as_slice(), [source] if *source == only)
        };
        policy.action == Action::Allow
            && policy.broken.is_none()
            && !policy.rules.is_empty()
            && policy.rules.iter().all(closes)
    }

    /// Kind, namespace and name of all objects of the kinds that are written.
    pub fn names(&self) -> BTreeSet<(&'static str, ObjectKey)> {
        fn of<T>(
            kind: Kind,
            objects: &BTreeMap<ObjectKey, Loaded<T>>,
        ) -> impl Iterator<Item = (&'static str, ObjectKey)> {
            objects.keys().map(move |key| (kind.bare(), key.clone()))
        }
        let r = self.resources;
        let policies = of(Kind::AuthorizationPolicy, &r.authorization_policies);
        policies
            .chain(of(Kind::VirtualService, &r.virtual_services))
            .chain(of(Kind::CiliumNetworkPolicy, &r.cilium_policies))
            .chain(of(Kind::CiliumEnvoyConfig, &r.envoy_configs))
            .chain(of(Kind::HTTPRoute, &r.http_routes))
            .collect()
    }

    /// Where a part of an object stands.
    pub fn locate(&self, object: &Origin, path: &str) -> Option<Location> {
        fn of<'r, T>(
            objects: &'r BTreeMap<ObjectKey, Loaded<T>>,
            key: &ObjectKey,
        ) -> Option<&'r Place> {
            Some(&objects.get(key)?.object()?.place)
        }
        let (r, key) = (self.resources, &object.key);
        let place = match object.kind {
            Kind::AuthorizationPolicy => of(&r.authorization_policies, key),
            Kind::VirtualService => of(&r.virtual_services, key),
            Kind::CiliumNetworkPolicy => of(&r.cilium_policies, key),
            Kind::CiliumClusterwideNetworkPolicy => of(&r.cilium_clusterwide_policies, key),
            Kind::CiliumEnvoyConfig => of(&r.envoy_configs, key),
            Kind::CiliumClusterwideEnvoyConfig => of(&r.envoy_clusterwide_configs, key),
            _ => None,
        };
        place?.locate(path)
    }
}

/// The policies of a Service that deny or allow something.
pub(super) fn in_force(service: &Service) -> impl Iterator<Item = &Arc<Policy>> {
    let policies = service.policies.iter();
    policies.filter(|policy| !policy.dry_run && policy.action != Action::Audit)
}

/// Whether it is a policy of Cilium about what comes in, and in force.
pub(super) fn is_cilium_ingress(selecting: &Selecting) -> bool {
    let policy = &selecting.policy;
    policy.surface == Surface::Cilium
        && policy.direction == Direction::Ingress
        && matches!(policy.standing, Standing::InForce | Standing::Superseded)
}

/// What is known of a pod.
pub(super) fn view(workload: &Workload) -> LabelView<'_> {
    resolve::label_view(workload)
}

/// The Services whose routes do more than to send requests on to their own pods, or whose pods routes of
/// others lead to, and why.
fn routed(snapshot: &Snapshot) -> BTreeMap<ObjectKey, String> {
    let mut routed = BTreeMap::new();
    for service in snapshot.services.values() {
        let own = &service.key;
        for port in &service.ports {
            for route in &port.routes {
                let why = format!("{} routes requests of Service {own}", route.origin);
                for rule in &route.rules {
                    if !is_plain(rule, own, port.number) {
                        routed.entry(own.clone()).or_insert_with(|| why.clone());
                    }
                    for other in targets(rule).filter(|other| *other != own) {
                        routed.entry(other.clone()).or_insert_with(|| why.clone());
                    }
                }
            }
            for route in &port.stream_routes {
                let why = format!("{} routes connections of Service {own}", route.origin);
                routed.entry(own.clone()).or_insert_with(|| why.clone());
                let backends = route.rules.iter().flat_map(|rule| &rule.backends);
                for other in backends.filter_map(cluster).map(|key| &key.service) {
                    routed.entry(other.clone()).or_insert_with(|| why.clone());
                }
            }
        }
    }
    routed
}

/// Whether a rule sends requests as they are to the port they were sent to.
fn is_plain(rule: &HttpRule, own: &ObjectKey, port: u16) -> bool {
    let mut backends = rule.backends.iter();
    rule.filters.is_empty()
        && rule.broken.is_none()
        && backends.all(|backend| {
            let to_own = |key: &ClusterKey| key.service == *own && key.port == port;
            backend.filters.is_empty() && cluster(backend).is_some_and(to_own)
        })
}

fn cluster(backend: &Backend) -> Option<&ClusterKey> {
    match &backend.target {
        BackendTarget::Cluster(key) => Some(key),
        BackendTarget::Invalid(_) | BackendTarget::Unknown(_) => None,
    }
}

/// The Services that requests of a rule, or copies of them, go to.
fn targets(rule: &HttpRule) -> impl Iterator<Item = &ObjectKey> {
    let of_backends = rule.backends.iter().flat_map(|backend| &backend.filters);
    let mirrors = rule.filters.iter().chain(of_backends);
    let mirrors = mirrors.filter_map(|filter| match filter {
        Filter::Mirror(mirror) => Some(&mirror.target.service),
        _ => None,
    });
    let backends = rule.backends.iter().filter_map(cluster);
    backends.map(|key| &key.service).chain(mirrors)
}
