//! VirtualServices: to which ports of which services each applies (specs/policies.md 2.6,
//! specs/istio-waypoint.md 4.5). What a rule says is read in `virtual_rules`.
//!
//! A VirtualService is obeyed for services of its own namespace alone: who may write one in another
//! must not take over somebody's traffic (ISTIO-SECURITY-2026-002). Where a route of the Gateway API is
//! on the port, that one is in force: it names the service itself, and its semantics are the newer ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::destination_rules::{Settings, is_exported};
use super::route_parents::{Carries, not_served};
use super::virtual_delegates::Delegates;
use super::virtual_destinations::Destinations;
use super::virtual_rules::{self, Written};
use super::virtual_streams::StreamRules;
use super::{Findings, routes, stream_routes, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{ObjectKey, Origin};
use crate::resources::{Broken, Loaded, Resources, TargetRef};
use crate::snapshot::{
    Binding, ClusterKey, Endpoint, HttpRoute, Mesh, Service, ServicePort, StreamRoute, Waypoint,
};

type Services = BTreeMap<ObjectKey, Service>;

/// What a salvaged VirtualService is aimed at: `kind` of its targets.
pub(crate) const HOST: &str = "host";
/// It has rules for connections, or something that may have been meant for them.
pub(crate) const STREAMS: &str = "streams";

/// The name that stands for the mesh among gateways.
pub(super) const MESH: &str = "mesh";

/// Attaches every VirtualService to the ports it is for. Subsets that rules lead to become clusters.
pub(super) fn attach(
    resources: &Resources,
    mesh: &Mesh,
    waypoint: Option<&Waypoint>,
    services: &mut Services,
    clusters: &mut BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    settings: &mut Settings,
    findings: &mut Findings,
) {
    let Some(waypoint) = waypoint else {
        return;
    };
    let delegates = Delegates::of(resources);
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for loaded in resources.virtual_services.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                if !is_for(object, waypoint, findings) {
                    continue;
                }
                let destinations = Destinations::new(mesh, services, &settings.subsets);
                let reading = Attaching {
                    object,
                    mesh,
                    services,
                    delegates: &delegates,
                };
                found.extend(reading.read(destinations, &mut used, findings));
            }
            Loaded::Broken(broken) => found.extend(read_broken(broken, mesh, services, findings)),
        }
    }
    // Before any is attached, a port has routes of the Gateway API alone.
    let taken = taken(services);
    for (key, route) in found {
        match taken.get(&key) {
            Some(other) => report_taken(&route, other, &key, resources, findings),
            None => route.push(&key, services),
        }
    }
    for key in used {
        let whole = ClusterKey::new(key.service.clone(), key.port);
        let (Some(subset), Some(all)) = (settings.subsets.get(&key), clusters.get(&whole)) else {
            continue;
        };
        clusters.insert(key.clone(), subset.of(all));
        let of_subset = subset.settings.clone();
        settings.clusters.insert(key, of_subset);
    }
}

/// Whether the mesh obeys it, as far as this waypoint is concerned.
fn is_for(object: &Written, waypoint: &Waypoint, findings: &mut Findings) -> bool {
    let gateways = object.spec.gateways.as_deref().unwrap_or_default();
    let (message, path) = if !gateways.is_empty() && !gateways.iter().any(|g| g == MESH) {
        let message = "it is for gateways, and 'mesh' is not among them";
        (message, "spec.gateways")
    } else if !is_exported(
        object.spec.export_to.as_deref(),
        &object.origin.key.namespace,
        &waypoint.origin.key.namespace,
    ) {
        let message = "it is not exported to the namespace of this waypoint";
        (message, "spec.exportTo")
    } else {
        return true;
    };
    let finding = Diagnostic::new(Severity::Info, Code::NotForWaypoint, message)
        .with_effect("this waypoint does not obey it");
    findings.push(object.mark(finding, path));
    false
}

/// What a VirtualService says of a port.
#[derive(Clone)]
enum Route {
    Requests(Arc<HttpRoute>),
    Streams(Arc<StreamRoute>),
}

impl Route {
    fn origin(&self) -> &Origin {
        match self {
            Self::Requests(route) => &route.origin,
            Self::Streams(route) => &route.origin,
        }
    }

    fn push(self, at: &ClusterKey, services: &mut Services) {
        let service = services.get_mut(&at.service);
        let ports = service.into_iter().flat_map(|s| &mut s.ports);
        for port in ports.filter(|p| p.number == at.port) {
            match &self {
                Self::Requests(route) => port.routes.push(route.clone()),
                Self::Streams(route) => port.stream_routes.push(route.clone()),
            }
        }
    }
}

/// One VirtualService, before it is attached.
struct Attaching<'a> {
    object: &'a Written,
    mesh: &'a Mesh,
    services: &'a Services,
    delegates: &'a Delegates<'a>,
}

impl Attaching<'_> {
    /// What it says of every port it is for.
    fn read(
        &self,
        destinations: Destinations<'_>,
        used: &mut BTreeSet<ClusterKey>,
        findings: &mut Findings,
    ) -> Vec<(ClusterKey, Route)> {
        let named = self.named(findings);
        let words: Vec<String> = named.iter().map(|s| s.key.to_string()).collect();
        let scope = words.join(", ");
        // What a rule says may depend on the port that was dialled, and on nothing else.
        let mut requests: BTreeMap<u16, Route> = BTreeMap::new();
        let mut streams: BTreeMap<u16, Route> = BTreeMap::new();
        let (has_http, has_streams) = (self.has_http(), StreamRules::are_in(self.object));
        let mut routes = Vec::new();
        for service in named {
            let key = |port: &ServicePort| ClusterKey::new(service.key.clone(), port.number);
            let of =
                |carries: Carries| (service.ports.iter()).filter(move |p| carries.on(p.protocol));
            // Without rules for requests they pass (specs/policies.md 2.6).
            for port in of(Carries::Http).filter(|_| has_http) {
                let route = requests.entry(port.number).or_insert_with(|| {
                    self.requests(port.number, &scope, &destinations, used, findings)
                });
                routes.push((key(port), route.clone()));
            }
            for port in of(Carries::Streams).filter(|_| has_streams) {
                let route = streams.entry(port.number).or_insert_with(|| {
                    let rules = StreamRules {
                        object: self.object,
                        scope: &scope,
                        port: port.number,
                        destinations: &destinations,
                    };
                    Route::Streams(rules.read(used, findings))
                });
                routes.push((key(port), route.clone()));
            }
        }
        if has_streams && streams.is_empty() && !scope.is_empty() {
            let message = format!("no port of {scope} carries anything but HTTP");
            let finding = Diagnostic::warning(Code::NotAttached, message)
                .with_effect("its rules for connections (tcp, tls) have no effect")
                .with_hint("declare appProtocol: tcp or tls on the Service's port");
            findings.push(self.object.mark(finding, "spec"));
        }
        routes
    }

    fn has_http(&self) -> bool {
        let http = self.object.spec.http.as_ref();
        http.is_some_and(|rules| !rules.is_empty())
    }

    fn requests(
        &self,
        port: u16,
        scope: &str,
        destinations: &Destinations<'_>,
        used: &mut BTreeSet<ClusterKey>,
        findings: &mut Findings,
    ) -> Route {
        let rules = virtual_rules::Rules {
            object: self.object,
            scope,
            port,
            path_normalization: self.mesh.path_normalization,
            destinations,
            delegates: self.delegates,
        };
        Route::Requests(Arc::new(HttpRoute {
            origin: self.object.origin.clone(),
            created_s: self.object.meta.created_s,
            rules: rules.read(used, findings),
            broken: false,
        }))
    }

    /// The services that its hosts name, of those that this waypoint serves.
    fn named(&self, findings: &mut Findings) -> Vec<&Service> {
        let mut named: BTreeMap<&ObjectKey, &Service> = BTreeMap::new();
        let hosts = self.object.spec.hosts.as_deref().unwrap_or_default();
        // One without hosts is there for others to delegate to.
        if hosts.is_empty() && !self.delegates.has(&self.object.origin.key) {
            let finding = Diagnostic::warning(Code::MissingField, "a VirtualService needs hosts")
                .with_effect("it applies to nothing")
                .with_hint(
                    "hosts: [web.shop.svc.cluster.local]; or name it as the delegate of another",
                );
            findings.push(self.object.mark(finding, "spec.hosts"));
        }
        for (index, host) in hosts.iter().enumerate() {
            let at = format!("spec.hosts[{index}]");
            let found = self.of_host(host, &at, findings);
            for service in found {
                if service.binding == Binding::Served {
                    named.insert(&service.key, service);
                    continue;
                }
                let finding = not_served(service)
                    .with_effect("this waypoint does not apply the VirtualService to it");
                findings.push(self.object.mark(finding, &at));
            }
        }
        named.into_values().collect()
    }

    /// The services of its own namespace that a host names.
    fn of_host(&self, host: &str, at: &str, findings: &mut Findings) -> Vec<&Service> {
        let namespace = &self.object.origin.key.namespace;
        let wanted = full_host(host, namespace, self.mesh);
        let all = self.services.values();
        let (own, foreign): (Vec<_>, Vec<_>) = all
            .filter(|service| names(&wanted, &service.hostname))
            .partition(|service| service.key.namespace == *namespace);
        let is_pattern = wanted.starts_with('*');
        if !foreign.is_empty() && (!is_pattern || own.is_empty()) {
            let message = format!("host '{host}' is a service of another namespace");
            let finding = Diagnostic::warning(Code::NotAttached, message)
                .with_effect(
                    "it has no effect there: the routes of a service are those of its namespace",
                )
                .with_hint("move the VirtualService to the namespace of the service");
            findings.push(self.object.mark(finding, at));
        } else if own.is_empty() {
            let message = format!("no Service has the host '{host}'");
            let finding = Diagnostic::warning(Code::TargetNotFound, message)
                .with_effect("it has no effect by this host")
                .with_hint("a name without dots is one of its own namespace; others are written in full: web.shop.svc.cluster.local");
            findings.push(self.object.mark(finding, at));
        }
        own
    }
}

/// A host in full and in lower case; a name without a dot is one of `namespace`.
pub(super) fn full_host(host: &str, namespace: &str, mesh: &Mesh) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.contains('.') || host.starts_with('*') {
        return host;
    }
    format!("{host}.{namespace}.svc.{}", mesh.cluster_domain)
}

/// Whether a host, perhaps with a star in front, names a service.
fn names(host: &str, hostname: &str) -> bool {
    match host.strip_prefix('*') {
        Some(end) => hostname.ends_with(end),
        None => host == hostname,
    }
}

/// Ports that have routes of the Gateway API, of the namespace of the service.
fn taken(services: &Services) -> BTreeMap<ClusterKey, Origin> {
    let mut taken = BTreeMap::new();
    for service in services.values() {
        for port in &service.ports {
            let requests = port.routes.iter().map(|route| &route.origin);
            let streams = port.stream_routes.iter().map(|route| &route.origin);
            let own = |origin: &&Origin| origin.key.namespace == service.key.namespace;
            if let Some(origin) = requests.chain(streams).find(own) {
                let key = ClusterKey::new(service.key.clone(), port.number);
                taken.insert(key, origin.clone());
            }
        }
    }
    taken
}

fn report_taken(
    route: &Route,
    other: &Origin,
    at: &ClusterKey,
    resources: &Resources,
    findings: &mut Findings,
) {
    let message = format!("{other} applies to {at}");
    let finding = Diagnostic::error(Code::Conflict, message)
        .with_effect(format!("this VirtualService does not apply to {at}"))
        .with_hint("a route of the Gateway API goes first; keep one of the two");
    let object = resources.virtual_services.get(&route.origin().key);
    findings.push(match object.and_then(Loaded::object) {
        Some(object) => object.mark(finding, "spec.hosts"),
        None => finding.of(route.origin().clone(), ""),
    });
}

/// A VirtualService that can not be read answers 500 to what no other one matches, on every service it
/// may have been meant for; connections without HTTP are refused if it may have rules for them.
fn read_broken(
    broken: &Broken,
    mesh: &Mesh,
    services: &Services,
    findings: &mut Findings,
) -> Vec<(ClusterKey, Route)> {
    let namespace = &broken.origin.key.namespace;
    let hosts = broken.targets.as_ref().map(|targets| {
        let hosts = targets.iter().filter(|t| t.kind == HOST);
        let full = hosts.map(|t| full_host(&t.name, namespace, mesh));
        full.collect::<Vec<_>>()
    });
    // Of what it says nothing is known: perhaps also of connections.
    let may_have = |kind: &str| {
        let named = |targets: &Vec<TargetRef>| targets.iter().any(|t| t.kind == kind);
        broken.targets.as_ref().is_none_or(named)
    };
    let meant = |service: &&Service| {
        let named = |hosts: &Vec<String>| hosts.iter().any(|host| names(host, &service.hostname));
        service.key.namespace == *namespace
            && service.binding == Binding::Served
            && hosts.as_ref().is_none_or(named)
    };
    let requests = Route::Requests(routes::broken_route(broken));
    let streams = Route::Streams(stream_routes::broken_route(broken));
    let mut places = Vec::new();
    for service in services.values().filter(meant) {
        for port in &service.ports {
            let key = ClusterKey::new(service.key.clone(), port.number);
            if Carries::Http.on(port.protocol) {
                places.push((key.clone(), requests.clone()));
            }
            if Carries::Streams.on(port.protocol) && may_have(STREAMS) {
                places.push((key, streams.clone()));
            }
        }
    }
    let words: BTreeSet<String> = places.iter().map(|(key, _)| key.to_string()).collect();
    let effect = match words.len() {
        0 => "no service of this waypoint is named by it".to_owned(),
        _ => {
            let words: Vec<String> = words.into_iter().collect();
            format!(
                "what comes to {} and no other VirtualService matches is refused: 500 for requests",
                words.join(", ")
            )
        }
    };
    findings.push(unreadable(broken, effect));
    places
}
